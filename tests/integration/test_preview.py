"""What versions that are not recorded would say of stored ticks, beside what is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, text

from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.postgres.preview import CANDIDATES, Preview
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.features_file import read
from registry.lifecycle.recording import record
from tests.support.file_loads import Asked, load_files
from tests.support.followers import Follower, mean_of
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import ticks
from tests.support.tick_files import csv_of

OLD, MEANS = "price_sma_5@1.0.0", (7, 29, 31)


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


@pytest.fixture
def catalog(stores: Stores, engine: Engine) -> Catalog:
    """What is recorded, and three versions that are not; of each of three symbols are 30 ticks."""
    known = record(engine, read(), "ann")
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(Topic("ticks.price", TOPIC_ID, 1))
    (run,) = runs(ticks(["A", "B", "C"], 90), [])
    Follower(engine, sink).take(run, ahead=False)
    new = {f"mean_{n}@1.0.0": mean_of(n) for n in MEANS}
    return msgspec.structs.replace(known, features=known.features | new)


@pytest.fixture
def preview(stores: Stores, catalog: Catalog) -> Iterator[Preview]:
    made = Preview(stores.postgres, catalog)
    yield made
    made.close()


def stored(engine: Engine, entity: str) -> list[tuple[int, float, float]]:
    """The event times, prices and values of `OLD` of an entity, as they are stored."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT event_time, fields[1], features[2] FROM tickwell.feature_rows"
                " WHERE entity = :entity ORDER BY event_time, sequence"
            ),
            {"entity": entity},
        )
        return [tuple(row) for row in rows]


@pytest.mark.parametrize("most", [1, 5, 40])
def test_the_last_ticks_of_a_few_entities(preview: Preview, engine: Engine, most: int) -> None:
    """A recorded version has the bits that are stored, a new one those of its window."""
    refs = [OLD, *(f"mean_{n}@1.0.0" for n in MEANS)]
    found = preview.last_ticks("price", refs, ["B", "NONE", "A"], most)
    assert [one.entity for one in found] == ["B", "A"]
    for one in found:
        rows = stored(engine, one.entity)
        shown = rows[-most:]
        assert list(one.event_times) == [time for time, _, _ in shown]
        old = [value for value, _ in one.values[OLD]]
        assert old == [None if math.isnan(value) else value for _, _, value in shown]
        prices = [price for _, price, _ in rows]
        for window in MEANS:
            for back, (value, status) in enumerate(reversed(one.values[f"mean_{window}@1.0.0"])):
                within = prices[max(0, len(prices) - back - window) : len(prices) - back]
                if len(within) < window:
                    assert (value, status) == (None, "warming")
                else:
                    assert value == pytest.approx(math.fsum(within) / window, rel=1e-12)
                    assert status == "ok"


def test_a_close_empties_windows_before_the_ticks_that_are_shown(
    preview: Preview, engine: Engine
) -> None:
    """What was reset is `warming` again, however few ticks are read before."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE tickwell.feature_rows SET op = 1 WHERE (event_time, sequence) IN (SELECT"
                " event_time, sequence FROM tickwell.feature_rows WHERE entity = 'A'"
                " ORDER BY event_time DESC, sequence DESC OFFSET 2 LIMIT 1) AND entity = 'A'"
            )
        )
    (one,) = preview.last_ticks("price", ["mean_7@1.0.0"], ["A"], 3)
    assert [status for _, status in one.values["mean_7@1.0.0"]] == ["warming"] * 3


def test_entities_that_ticked_last_come_first(
    stores: Stores, preview: Preview, engine: Engine
) -> None:
    assert preview.recent_entities("price", 2) == ["A", "B"], "of one time by their names"
    assert preview.recent_entities("volume", 2) == []
    sink = stores.keep(OfflineSink(stores.postgres))
    (run,) = runs(ticks(["C"], 300, first=90)[-1:], [], 389)
    with engine.begin() as connection:
        connection.execute(text("UPDATE tickwell.watermarks SET next_offset = 389"))
    Follower(engine, sink).take(run, ahead=False)
    assert preview.recent_entities("price", 9) == ["C", "A", "B"]


def test_entities_that_only_a_load_has_keep_no_other_from_being_found(
    stores: Stores, preview: Preview, tmp_path: Path
) -> None:
    """Only so many entities are looked at, the first ones by name."""
    symbols = [*(f"0{number}" for number in range(CANDIDATES)), "B"]
    lines = [f"{symbol},1.5,1600000000000" for symbol in symbols]
    file = csv_of(tmp_path, "symbol,price,ts", *lines)
    load_files(stores.postgres, [file], Asked(run_ticks=5_000))
    assert preview.recent_entities("price", 9) == ["A", "B", "C"]


def test_nothing_is_stored(preview: Preview, engine: Engine) -> None:
    def rows() -> str:
        with engine.connect() as connection:
            every = text("SELECT md5(array_agg(r ORDER BY r)::text) FROM tickwell.feature_rows r")
            return str(connection.execute(every).scalar())

    before = rows()
    newest = preview.newest("price", ["mean_7@1.0.0"], ["A", "NONE", "C"])
    assert newest.keys() == {"A", "C"}
    for entity, (values, status) in newest.items():
        prices = [price for _, price, _ in stored(engine, entity)]
        assert (values, status) == ([math.fsum(prices[-7:]) / 7], b"\0")
    preview.last_ticks("price", ["mean_7@1.0.0"], ["A"], 5)
    assert rows() == before
    declared = {feature.ref for feature in read().features}
    assert record(engine, read(), "ann").features.keys() == declared
