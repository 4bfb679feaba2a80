"""What a Redis Cluster compares of each entity before it writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import SchemaBehind
from pipelines.live.materializer import Materializer
from pipelines.stores.redis import scripts
from registry.definitions import RowSchema
from registry.formats.row import unpack
from tests.support.cluster import Cluster
from tests.support.logs import runs
from tests.support.rebuilds import KEPT, SYMBOLS, TOPIC, Stores, quiet
from tests.support.shipped import PROGRAM, RULES, SCHEMA
from tests.support.sinks import GO_ON, ticks, worker
from tests.support.stored import stored_row

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def stores(three: Cluster, postgres_database: str) -> Iterator[Stores]:
    with ExitStack() as stack:
        made = Stores(three.url, postgres_database, stack, cluster=True)
        made.flush()
        yield made


def test_a_row_never_steps_back_to_an_earlier_row_schema(stores: Stores) -> None:
    log = list(runs(ticks(SYMBOLS, 90), (30, 60)))
    behind = stores.online()
    behind.materialize(log[0], GO_ON)
    newer = RowSchema(2, "price", SCHEMA.features)
    ahead = Materializer(RunComputation(RULES, newer, PROGRAM, 1000), stores.sink())
    ahead.materialize(log[1], GO_ON)
    stored = stores.rows()
    behind.forget()
    with pytest.raises(SchemaBehind):
        behind.materialize(log[2], GO_ON)
    assert stores.rows() == stored
    with stores.client() as client:
        rows = [unpack(stored_row(client, "price", name)) for name in SYMBOLS]
    assert {row.schema_id for row in rows} == {2}


def test_a_worker_that_remembers_what_was_lost(stores: Stores) -> None:
    """Its state has the same origin as the rebuilt one, and its ticks have other numbers."""
    log = list(runs(ticks(["A"], 240), (200, 230)))
    remembers, offline = stores.online(), stores.offline()
    for run in log[:2]:
        remembers.materialize(run, GO_ON)
        offline.materialize(run, GO_ON)
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    remembers.materialize(log[2], GO_ON)
    found = stores.states(["A"])
    stores.flush()
    alone = stores.online()
    for run in log:
        alone.materialize(run, GO_ON)
    assert stores.states(["A"]) == found


def test_a_watermark_never_steps_back(stores: Stores) -> None:
    """A worker is paused before it moves the watermark, and another one goes on meanwhile."""
    first, second = runs(ticks(SYMBOLS, 60), (30,))
    sink, ahead = stores.sink(), stores.online()
    run = sink.redis.run
    paused: list[Any] = []

    def pausing(script: str, *given: Any) -> Any:
        if script == scripts.ADVANCE and not paused:
            paused.append(given)
            for one in (first, second):
                ahead.materialize(one, GO_ON)
        return run(script, *given)

    with patch.object(sink.redis, "run", pausing):
        worker(sink).materialize(first, GO_ON)
    assert paused
    assert sink.watermarks(TOPIC.topic_id, [0]) == {0: second.next_offset}
