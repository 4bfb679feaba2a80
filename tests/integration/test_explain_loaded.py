"""Explanations of ticks that were loaded from files: of the windows that their load saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.database.engine import connect
from registry.language.program import compile_program
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from registry.source_rules import SourceRules
from serving.history.explaining import Explainer
from serving.history.explanation import Explanation
from serving.history.snapshot import snapshot
from serving.history.window_ticks import TickKey
from tests.support.backfills import backfill
from tests.support.file_loads import as_csv, load_files, loaded_rows, records_of, ticks
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON
from tests.support.tick_files import TS

DAY = 86_400_000
"""Milliseconds."""

FEATURES = ["current_price", "price_sma_5", "price_volatility"]


def explained(postgres: str, features: list[str], after_ns: int) -> list[Explanation]:
    """Explanations of all loaded ticks of A, each as of a moment after it, and by its key."""
    keys = [TickKey(row[2], row[3]) for row in loaded_rows(postgres) if row[1] == "A"]
    found = []
    with snapshot(postgres) as seen:
        explainer = Explainer(seen)
        for feature in features:
            for key in keys:
                moment = key.event_time + after_ns
                found.append(explainer.explain(feature, {"symbol": "A"}, moment))
            found += [explainer.explain(feature, {"symbol": "A"}, tick=key) for key in keys[::5]]
    assert len(found) > len(keys)
    return found


@pytest.mark.parametrize("later", ["before", "around"])
def test_what_is_loaded_later_is_not_in_the_windows(
    stores: Stores, tmp_path: Path, later: str
) -> None:
    first, second = (ticks(90, seed, "AB", first=TS + seed * DAY) for seed in (1, 2))
    load_files(stores.postgres, [as_csv(tmp_path, second, "second.csv")])
    engine = connect(stores.postgres, pool_size=1)
    registry = Registry(engine, By("test"))
    schema = {"source": "price", "expression": "mean(price, 7)"}
    registry.create_feature_version("price_sma_7", "1.0.0", schema)
    backfill(engine, stores.postgres, "price_sma_7@1.0.0")
    features = [*FEATURES, "price_sma_7"]
    assert all(one.same for one in explained(stores.postgres, features, 300 * 10**6))
    made = first if later == "before" else [*first, *second]
    load_files(stores.postgres, [as_csv(tmp_path, made, "first.csv")])
    found = explained(stores.postgres, features, 300 * 10**6)
    assert all(one.same for one in found)
    assert {one.stored.backfill is None for one in found if one.stored is not None} == {True, False}
    engine.dispose()


def test_a_loaded_tick_has_other_windows_than_that_of_live_at_its_key(
    stores: Stores, tmp_path: Path
) -> None:
    made = ticks(200, 3, "A")
    load_files(stores.postgres, [as_csv(tmp_path, made)])
    cut = sorted(tick[2] for tick in made)[80]
    catalog = stores.catalog
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(Topic("ticks.price", TOPIC_ID, 1))
    schema = catalog.schemas[catalog.writing["price"]]
    program, rules = compile_program(catalog, schema), SourceRules.of(catalog, "price")
    worker = Materializer(RunComputation(rules, schema, program, 1_000), sink)
    records = records_of([tick for tick in made if tick[2] > cut], delay_ms=400)
    (run,) = runs(records, [], 0)
    worker.materialize(replace(run, topic="ticks.price"), GO_ON)
    for after_ms in (300, 500):  # the loaded ticks alone were known, and both
        assert all(one.same for one in explained(stores.postgres, FEATURES, after_ms * 10**6))
