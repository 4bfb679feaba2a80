"""What versions that are not recorded would say of stored ticks, beside what is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import pytest
from sqlalchemy import Engine, text

from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.postgres.preview import preview
from registry.database.engine import connect
from registry.features_file import read
from registry.lifecycle.recording import record
from tests.support.followers import Follower, mean_of
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import ticks

OLD = "price_sma_5@1.0.0"


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def test_the_newest_tick_of_a_few_entities(stores: Stores, engine: Engine) -> None:
    known = record(engine, read(), "ann")
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(Topic("ticks.price", TOPIC_ID, 1))
    (run,) = runs(ticks(["A", "B", "C"], 90), [])
    Follower(engine, sink).take(run, ahead=False)
    new = {f"mean_{n}@1.0.0": mean_of(n) for n in (7, 29, 31)}
    catalog = msgspec.structs.replace(known, features=known.features | new)
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT entity, event_time, fields[1], features[2] FROM tickwell.feature_rows"
                " ORDER BY entity, event_time, sequence"
            )
        ).all()
    found = preview(stores.postgres, catalog, "price", [OLD, *new], 2)
    assert [one.entity for one in found] == [("A",), ("B",)]
    for one in found:
        of_entity = [row for row in rows if row[0] == one.entity[0]]
        prices = [row[2] for row in of_entity]
        assert len(prices) == 30
        assert (one.event_time, one.values[OLD]) == of_entity[-1][1::2]
        assert one.values["mean_7@1.0.0"] == math.fsum(prices[-7:]) / 7
        assert one.values["mean_29@1.0.0"] == pytest.approx(math.fsum(prices[-29:]) / 29, rel=1e-12)
        assert (one.values["mean_31@1.0.0"], one.statuses["mean_31@1.0.0"]) == (None, "warming")
    assert record(engine, read(), "ann") == known
    assert preview(stores.postgres, catalog, "volume", ["current_volume@1.0.0"], 2) == []
