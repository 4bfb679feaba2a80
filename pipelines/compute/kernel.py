"""The rolling kernel: walks ticks in the order of their log, decides, remembers, computes.

It is compiled ahead of the first tick (`runtime.machine_code`) and kept on disk. It is pure: the
features of an accepted tick are a function of the remembered ticks of its entity, evaluated from
their values in a fixed order, without fast-math and without sums that carry history. So neither the
batch boundaries nor a restart can show in a result.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from pipelines.compute.entity_columns import REMEMBERED, EntityColumns, SeqRings
from pipelines.compute.entity_state import StateColumns
from pipelines.compute.instructions import Instructions
from pipelines.compute.natural_log import log_ratio
from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from pipelines.runtime.machine_code import compiled, inlined
from pipelines.runtime.named_columns import column, numba_type, type_of
from pipelines.ticks.columns import CLOSE, NO_SEQ, TRADE
from registry.formats.row import ValueStatus
from registry.formats.state import CLOSED
from registry.language.program import Function

ACCEPTED = 0
APPLIED = 1
WRONG_PARTITION = 2
DUPLICATE = 3
LATE = 4
"""Verdicts on a tick; an `APPLIED` tick is at or before the origin of its entity's state."""

LAST = int(Function.LAST)
MEAN = int(Function.MEAN)
STDDEV_LOG_RETURN = int(Function.STDDEV_LOG_RETURN)
OK = int(ValueStatus.OK)
WARMING = int(ValueStatus.WARMING)
UNDEFINED = int(ValueStatus.UNDEFINED)
CLOSED_STATUS = int(ValueStatus.CLOSED)


class TickColumns(NamedTuple):
    """The ticks of a run in order, as the kernel takes them; see `ticks.columns.Ticks`."""

    slot: Int32s = column(np.int32)
    """Slot of the tick's entity."""
    offset: Int64s = column(np.int64)
    message_index: Int32s = column(np.int32)
    time: Int64s = column(np.int64)
    seq: Int64s = column(np.int64)
    op: Bytes = column(np.uint8)
    fields: Floats = column(np.float64, "fields")


class RunContext(NamedTuple):
    """What the ticks of a run have in common."""

    topic: int
    """Topic incarnation, by the small number that stands for it."""
    partition: int
    skew: int
    """Nanoseconds by which a tick may be behind the newest one of its entity."""


class RowColumns(NamedTuple):
    """What the kernel finds out of ticks; all but the verdict of accepted ones only."""

    verdict: Bytes = column(np.uint8)
    event_time: Int64s = column(np.int64)
    sequence: Int64s = column(np.int64)
    features: Floats = column(np.float64, "features")
    status: Bytes = column(np.uint8, "features")


TICKS, CONTEXT, ROWS = type_of(TickColumns), numba_type(RunContext(0, 0, 0)), type_of(RowColumns)
INSTRUCTIONS, ENTITIES = type_of(Instructions), type_of(EntityColumns)
STATES, RINGS = type_of(StateColumns), type_of(SeqRings)
"""The types of the arguments of compiled functions, each made from the declaration."""


@compiled()
def _mean(ring, slot, field, end, n):  # type: ignore[no-untyped-def]
    """The mean of the last n values before number `end`, summed from the oldest on."""
    room = ring.shape[1]
    index = (end - n) % room
    total = 0.0
    for _ in range(n):
        total += ring[slot, index, field]
        index = index + 1 if index + 1 < room else 0
    return total / n


@compiled()
def _stddev(ring, slot, field, end, n):  # type: ignore[no-untyped-def]
    """Sample deviation (ddof = 1) of the last n, in two passes: the mean, then the squares."""
    room = ring.shape[1]
    mean = _mean(ring, slot, field, end, n)
    index = (end - n) % room
    squares = 0.0
    for _ in range(n):
        difference = ring[slot, index, field] - mean
        squares += difference * difference
        index = index + 1 if index + 1 < room else 0
    return math.sqrt(squares / (n - 1))


@inlined
def _fill_returns(entities, slot, first, end, code):  # type: ignore[no-untyped-def]
    """Compute the log returns of the ticks of a slot from number `first` up to, not at, `end`.

    A return is a function of two prices that follow each other, and remembered with the later.
    """
    fields, returns = entities.ring_fields, entities.ring_returns
    lookback, room = fields.shape[1], returns.shape[1]
    for k in range(code.function.shape[0]):
        if code.function[k] == STDDEV_LOG_RETURN:
            field, index = code.field[k], code.returns[k]
            for ordinal in range(first, end):
                returns[slot, ordinal % room, index] = log_ratio(
                    fields[slot, ordinal % lookback, field],
                    fields[slot, (ordinal - 1) % lookback, field],
                )


@compiled(numba.void(STATES, numba.int32[::1], numba.int32[::1], INSTRUCTIONS, ENTITIES, RINGS))
def restore_states(states, topics, slots, code, entities, rings):  # type: ignore[no-untyped-def]
    """Take over stored states of the entities in `slots`, and compute their log returns.

    `topics` are the topic incarnations of their origins.
    """
    for k in range(slots.shape[0]):
        slot, count = slots[k], states.accepted[k]
        entities.home_topic[slot] = topics[k]
        entities.home_partition[slot] = states.partition[k]
        entities.newest_offset[slot] = states.offset[k]
        entities.newest_index[slot] = states.message_index[k]
        entities.newest_sequence[slot] = states.sequence[k]
        entities.newest_time[slot] = states.event_time[k]
        entities.accepted[slot] = count
        entities.fill[slot] = states.fill[k]
        ring, lookback = entities.seq_ring[slot], entities.ring_fields.shape[1]
        begin, end = states.ends[k], states.ends[k + 1]
        for tick in range(max(begin, end - max(REMEMBERED, lookback)), end):
            ordinal = count - (end - tick)
            if ring > 0:
                index = ordinal & (REMEMBERED - 1)
                rings.time[ring, index] = states.tick_time[tick]
                rings.seq[ring, index] = states.seq[tick]
            index = ordinal % lookback
            for field in range(states.fields.shape[1]):
                entities.ring_fields[slot, index, field] = states.fields[tick, field]
        # the oldest value has no previous one to return from
        first = count - min(end - begin, lookback) + 1
        _fill_returns(entities, slot, first, count, code)


@inlined
def _is_duplicate(entities, rings, slot, time, seq):  # type: ignore[no-untyped-def]
    if seq == NO_SEQ:
        return False
    ring, end = entities.seq_ring[slot], entities.accepted[slot]
    for ordinal in range(end - 1, max(end - REMEMBERED, 0) - 1, -1):
        index = ordinal & (REMEMBERED - 1)
        if rings.seq[ring, index] == seq and rings.time[ring, index] == time:
            return True
    return False


@inlined
def _decide(ticks, i, context, entities, rings, rows):  # type: ignore[no-untyped-def]
    """The verdict on tick `i`; writes the event time and the sequence of an accepted one."""
    slot = ticks.slot[i]
    known = entities.accepted[slot] > 0
    if known and entities.home_topic[slot] == context.topic:
        if entities.home_partition[slot] != context.partition:
            return WRONG_PARTITION
        offset, newest_offset = ticks.offset[i], entities.newest_offset[slot]
        if offset < newest_offset or (
            offset == newest_offset and ticks.message_index[i] <= entities.newest_index[slot]
        ):
            return APPLIED
    time = ticks.time[i]
    rows.event_time[i] = time
    rows.sequence[i] = 0
    if known:
        if _is_duplicate(entities, rings, slot, time, ticks.seq[i]):
            return DUPLICATE
        newest_time = entities.newest_time[slot]
        if time < newest_time - context.skew:
            return LATE
        if time <= newest_time:
            rows.event_time[i] = newest_time
            rows.sequence[i] = entities.newest_sequence[slot] + 1
    return ACCEPTED


@inlined
def _filled(fill, op):  # type: ignore[no-untyped-def]
    """How many ticks are in an entity's windows after a tick, or `CLOSED`.

    A reset empties the windows; a close does as well, and only a trade ends it.
    """
    if op == TRADE:
        return max(fill, 0) + 1
    return CLOSED if op == CLOSE else min(fill, 0)


@inlined
def _remember(ticks, i, context, entities, rings, rows):  # type: ignore[no-untyped-def]
    """Make the accepted tick `i` the newest one of its entity."""
    slot = ticks.slot[i]
    ordinal = entities.accepted[slot]
    ring = entities.seq_ring[slot]
    if ring > 0:
        index = ordinal & (REMEMBERED - 1)
        rings.time[ring, index] = ticks.time[i]
        rings.seq[ring, index] = ticks.seq[i]
    index = ordinal % entities.ring_fields.shape[1]
    for field in range(ticks.fields.shape[1]):
        entities.ring_fields[slot, index, field] = ticks.fields[i, field]
    entities.home_topic[slot] = context.topic
    entities.home_partition[slot] = context.partition
    entities.newest_offset[slot] = ticks.offset[i]
    entities.newest_index[slot] = ticks.message_index[i]
    entities.newest_sequence[slot] = rows.sequence[i]
    entities.newest_time[slot] = rows.event_time[i]
    entities.accepted[slot] = ordinal + 1
    entities.fill[slot] = _filled(entities.fill[slot], ticks.op[i])


@inlined
def _compute(code, entities, slot, rows, i):  # type: ignore[no-untyped-def]
    """Compute the features of row `i` from the remembered ticks of its entity."""
    end, fill = entities.accepted[slot], entities.fill[slot]
    for k in range(code.function.shape[0]):
        function, field, n = code.function[k], code.field[k], code.window[k]
        depth = n + 1 if function == STDDEV_LOG_RETURN else n
        if fill < depth:
            rows.features[i, k] = math.nan
            rows.status[i, k] = CLOSED_STATUS if fill == CLOSED else WARMING
            continue
        if function == STDDEV_LOG_RETURN:
            value = _stddev(entities.ring_returns, slot, code.returns[k], end, n)
        elif function == MEAN:
            value = _mean(entities.ring_fields, slot, field, end, n)
        else:
            index = (end - 1) % entities.ring_fields.shape[1]
            value = entities.ring_fields[slot, index, field]
        if math.isfinite(value):
            rows.features[i, k] = value
            rows.status[i, k] = OK
        else:
            rows.features[i, k] = math.nan
            rows.status[i, k] = UNDEFINED


@inlined
def _take(ticks, i, context, code, entities, rings, rows):  # type: ignore[no-untyped-def]
    """Remember the accepted tick `i`, and compute its features."""
    slot = ticks.slot[i]
    _remember(ticks, i, context, entities, rings, rows)
    end = entities.accepted[slot]
    _fill_returns(entities, slot, end - 1, end, code)
    _compute(code, entities, slot, rows, i)


@compiled(numba.void(TICKS, CONTEXT, INSTRUCTIONS, ENTITIES, RINGS, ROWS))
def advance(ticks, context, code, entities, rings, rows):  # type: ignore[no-untyped-def]
    """Decide and compute every tick of a run; changes `entities` and `rings`, and fills `rows`.

    The entity of each tick with a `seq` has a ring.
    """
    for i in range(ticks.slot.shape[0]):
        verdict = _decide(ticks, i, context, entities, rings, rows)
        rows.verdict[i] = verdict
        if verdict == ACCEPTED:
            _take(ticks, i, context, code, entities, rings, rows)


@compiled(numba.void(TICKS, CONTEXT, INSTRUCTIONS, ENTITIES, RINGS, ROWS))
def advance_accepted(ticks, context, code, entities, rings, rows):  # type: ignore[no-untyped-def]
    """Compute every tick of some that are known to have been accepted, as `advance` does.

    Of each entity in the order of its log; ticks of several may follow each other in any way.
    """
    for i in range(ticks.slot.shape[0]):
        rows.verdict[i] = ACCEPTED
        _take(ticks, i, context, code, entities, rings, rows)


@compiled(numba.void(INSTRUCTIONS, ENTITIES, ROWS))
def compute_newest(code, entities, rows):  # type: ignore[no-untyped-def]
    """Compute the features of the newest tick of each slot, as rows of the same number."""
    for slot in range(rows.verdict.shape[0]):
        _compute(code, entities, slot, rows, slot)
