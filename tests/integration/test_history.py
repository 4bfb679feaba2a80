"""The ring of an entity in Redis, when TICKWELL_HISTORY is changed between starts."""

from __future__ import annotations

import struct
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
from registry.formats.redis_keys import state_key
from registry.formats.state import STATE_HEADER
from tests.support.logs import runs
from tests.support.shipped import SOURCE
from tests.support.sinks import BEGIN, GO_ON, Opened, ticks, worker
from tests.support.states import State, loaded
from tests.support.windows import materialize

TICK_BYTES = 40
HISTORIES = st.sampled_from([64, 65, 99, 100, 128, 257, 1024])


def stored(sink: OnlineSink, depth: int) -> State:
    return loaded(sink, SOURCE, ["A"], depth, BEGIN)["A"]


def as_before(url: str) -> None:
    """Rewrites the state into the layout before: without a mark, the ring from 56 on."""
    with redis.Redis.from_url(url) as client:
        state = client.get(state_key("price", "A"))
        count, (room, _, held) = (
            struct.unpack_from(">q", state, 40)[0],
            struct.unpack_from(">IIq", state, 64),
        )
        assert held == min(count, room), "a state that it could hold"
        client.set(state_key("price", "A"), state[:56] + state[STATE_HEADER.size :])


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(HISTORIES, st.integers(1, 150)), min_size=1, max_size=8), st.booleans())
def test_a_changed_history_loses_no_tick_that_it_can_hold(
    opened: Opened, redis_database: str, starts: list[tuple[int, int]], began_before: bool
) -> None:
    """Whatever sizes a state has been through, it gives the newest ticks that all could hold."""
    with redis.Redis.from_url(redis_database) as client:
        client.flushall()
    everything = ticks(["A"], sum(many for _, many in starts))
    cuts = np.cumsum([many for _, many in starts])[:-1].tolist()
    held = 0
    for number, ((history, many), run) in enumerate(
        zip(starts, runs(everything, cuts), strict=True)
    ):
        sink = opened(OnlineSink(redis_database, history))
        worker(sink).materialize(run, GO_ON)
        held = min(history, held + many)
        if number == 0 and began_before:
            as_before(redis_database)
        following = run.next_offset
        for reader in (sink, opened(OnlineSink(redis_database, 4096))):
            state = stored(reader, 4096)
            assert [tick.seq for tick in state.ticks] == list(range(following - held, following))
            assert (state.count, state.fill) == (following, held)
        with redis.Redis.from_url(redis_database) as client:
            size = client.strlen(state_key("price", "A"))
        if number or not began_before:
            assert size <= STATE_HEADER.size + history * TICK_BYTES


@pytest.mark.parametrize("history", [64, 100, 1024])
def test_features_are_those_of_an_unchanged_history(
    opened: Opened, redis_database: str, history: int
) -> None:
    """Row by row; the longest window is 21 ticks, which every history here holds."""
    records, cuts = ticks(["A", "B", "C"], 900), (600,)
    first, second = runs(records, cuts)
    worker(opened(OnlineSink(redis_database, 257))).materialize(first, GO_ON)
    _, expected = materialize(records, cuts)
    changed = worker(opened(OnlineSink(redis_database, history)))
    batch = changed.materialize(second, GO_ON)
    assert batch is not None
    assert batch.features.tobytes() == expected.features.tobytes()
    assert batch.status.tobytes() == expected.status.tobytes()


def test_a_source_that_got_another_field_is_told(opened: Opened, redis_database: str) -> None:
    (run,) = runs(ticks(["A"], 5), ())
    sink = opened(OnlineSink(redis_database))
    worker(sink).materialize(run, GO_ON)
    more: Any = replace(SOURCE, fields=(*SOURCE.fields, Field("venue", True, 0.0)))
    with pytest.raises(StateOfOtherFields, match="40 bytes a tick, and price needs 48"):
        loaded(sink, more, ["A"], 64, BEGIN)
