"""What Redis keeps of an entity, when the history of its source is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipelines.errors import StateOfOtherFields
from pipelines.stores.redis.online_sink import OnlineSink
from registry.definitions import Field
from registry.formats.state import BLOCK, CHUNK_BLOCKS, STATE_HEADER
from tests.support.logs import runs
from tests.support.shipped import SOURCE
from tests.support.sinks import BEGIN, GO_ON, Opened, ticks, worker
from tests.support.states import State, loaded
from tests.support.stored import stored_chunks, stored_state
from tests.support.windows import materialize

TICK_BYTES = 32
HISTORIES = st.sampled_from([64, 65, 99, 100, 128, 257, 1024])


def stored(sink: OnlineSink, depth: int) -> State:
    return loaded(sink, SOURCE, ["A"], depth, BEGIN)["A"]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(HISTORIES, st.integers(1, 150)), min_size=1, max_size=8))
def test_a_changed_history_loses_no_tick_that_it_can_hold(
    opened: Opened, redis_database: str, starts: list[tuple[int, int]]
) -> None:
    """Whatever sizes a state has been through, it gives the newest ticks that all could hold."""
    with redis.Redis.from_url(redis_database) as client:
        client.flushall()
    everything = ticks(["A"], sum(many for _, many in starts))
    cuts = np.cumsum([many for _, many in starts])[:-1].tolist()
    kept = 0
    for (history, many), run in zip(starts, runs(everything, cuts), strict=True):
        worker(opened(OnlineSink(redis_database)), history=history).materialize(run, GO_ON)
        kept, following = min(history, kept + many), run.next_offset
        for depth in (1, 21, 64, kept, 4096):
            state = stored(opened(OnlineSink(redis_database)), depth)
            held = len(state.ticks)
            assert min(kept, depth) <= held <= depth
            assert [tick.seq for tick in state.ticks] == list(range(following - held, following))
            assert state.count == following
            assert state.fill == (following if held == depth else held)
        with redis.Redis.from_url(redis_database) as client:
            chunks = stored_chunks(client, "price", "A")
            size = sum(map(len, chunks.values())) // TICK_BYTES
            assert len(stored_state(client, "price", "A")) <= STATE_HEADER.size + 8 * TICK_BYTES
        # a chunk that is kept in part is kept whole; what is too old goes a few blocks a run
        assert size <= max(kept, history) + CHUNK_BLOCKS * BLOCK + sum(h for h, _ in starts)


@pytest.mark.parametrize("restarts", [True, False], ids=["restarts", "goes on"])
def test_what_is_too_old_is_dropped(opened: Opened, redis_database: str, restarts: bool) -> None:
    """Little by little with the ticks that come, by a worker that knows or loads what is kept."""
    for history, first, many in ((1024, 0, 3000), (64, 3000, 1400)):
        work = worker(opened(OnlineSink(redis_database)), history=history)
        for run in runs(ticks(["A"], many, first), range(7, many, 7), first):
            if restarts and run.base_offset % 5 == 0:
                work = worker(opened(OnlineSink(redis_database)), history=history)
            work.materialize(run, GO_ON)
        with redis.Redis.from_url(redis_database) as client:
            size = sum(map(len, stored_chunks(client, "price", "A").values())) // TICK_BYTES
        assert history - BLOCK <= size <= history + BLOCK


@pytest.mark.parametrize("history", [64, 100, 1024])
def test_features_are_those_of_an_unchanged_history(
    opened: Opened, redis_database: str, history: int
) -> None:
    """Row by row; the longest window is 21 ticks, which every history here holds."""
    records, cuts = ticks(["A", "B", "C"], 900), (600,)
    first, second = runs(records, cuts)
    worker(opened(OnlineSink(redis_database)), history=257).materialize(first, GO_ON)
    _, expected = materialize(records, cuts)
    changed = worker(opened(OnlineSink(redis_database)), history=history)
    batch = changed.materialize(second, GO_ON)
    assert batch is not None
    assert batch.features.tobytes() == expected.features.tobytes()
    assert batch.status.tobytes() == expected.status.tobytes()


def test_a_source_that_got_another_field_is_told(opened: Opened, redis_database: str) -> None:
    (run,) = runs(ticks(["A"], 5), ())
    sink = opened(OnlineSink(redis_database))
    worker(sink).materialize(run, GO_ON)
    more: Any = replace(SOURCE, fields=(*SOURCE.fields, Field("venue", True, 0.0)))
    with pytest.raises(StateOfOtherFields, match=r"has 2 fields a tick .*, and price has 3"):
        loaded(sink, more, ["A"], 64, BEGIN)
