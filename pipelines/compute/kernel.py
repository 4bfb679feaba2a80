"""The rolling kernel: walks ticks in the order of their log, decides, remembers, computes.

It is compiled ahead of the first tick (`runtime.machine_code`) and kept on disk. It is pure: the
features of an accepted tick are a function of the remembered ticks of its entity, evaluated from
their values in a fixed order, without fast-math and without sums that carry history. So neither the
batch boundaries nor a restart can show in a result.
"""

from __future__ import annotations

import math

from pipelines.compute.natural_log import log_ratio
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.columns import NO_SEQ, RESET
from registry.formats.row import ValueStatus
from registry.language.program import Function

ACCEPTED = 0
APPLIED = 1
WRONG_PARTITION = 2
DUPLICATE = 3
LATE = 4
"""What became of a tick; `APPLIED` ticks are at or before the origin of what is stored."""

REMEMBERED = 64
"""A tick is a duplicate of one of its entity's last 64."""

LAST = int(Function.LAST)
MEAN = int(Function.MEAN)
STDDEV_LOG_RETURN = int(Function.STDDEV_LOG_RETURN)
OK = int(ValueStatus.OK)
WARMING = int(ValueStatus.WARMING)
UNDEFINED = int(ValueStatus.UNDEFINED)


@compiled()
def _mean(ring, slot, field, count, n, mask):  # type: ignore[no-untyped-def]
    total = 0.0
    for ordinal in range(count - n, count):
        total += ring[slot, ordinal & mask, field]
    return total / n


@compiled()
def _stddev(ring, slot, place, count, n, mask):  # type: ignore[no-untyped-def]
    """Sample deviation (ddof = 1) of the last n, in two passes: the mean, then the squares."""
    total = 0.0
    for ordinal in range(count - n, count):
        total += ring[slot, ordinal & mask, place]
    mean = total / n
    squares = 0.0
    for ordinal in range(count - n, count):
        difference = ring[slot, ordinal & mask, place] - mean
        squares += difference * difference
    return math.sqrt(squares / (n - 1))


@compiled("void(int64, int64, int64, int64[:,::1], float64[:,:,::1], float64[:,:,::1])")
def fill_returns(slot, first, count, code, ring_fields, ring_returns):  # type: ignore[no-untyped-def]
    """The log returns of the remembered ticks of a slot, from number `first` up to `count`.

    A return is a function of two prices that follow each other, and remembered with the later.
    """
    mask = ring_fields.shape[1] - 1
    for k in range(code.shape[0]):
        if code[k, 0] == STDDEV_LOG_RETURN:
            field, place = code[k, 1], code[k, 3]
            for ordinal in range(first, count):
                ring_returns[slot, ordinal & mask, place] = log_ratio(
                    ring_fields[slot, ordinal & mask, field],
                    ring_fields[slot, (ordinal - 1) & mask, field],
                )


@compiled()
def _is_duplicate(ring_time, ring_seq, slot, count, tick_time, seq, mask):  # type: ignore[no-untyped-def]
    if seq == NO_SEQ:
        return False
    for ordinal in range(count - 1, max(count - REMEMBERED, 0) - 1, -1):
        place = ordinal & mask
        if ring_seq[slot, place] == seq and ring_time[slot, place] == tick_time:
            return True
    return False


SIGNATURE = (
    "void(int32[::1], int64[::1], int32[::1], int64[::1], int64[::1], uint8[::1], float64[:,::1],"
    " int32, int32, int64, int64[:,::1],"
    " int32[::1], int32[::1], int64[::1], int32[::1], int64[::1], int64[::1], int64[::1],"
    " int64[::1], int64[:,::1], int64[:,::1], float64[:,:,::1], float64[:,:,::1],"
    " uint8[::1], int64[::1], int64[::1], int64[::1], float64[:,::1], uint8[:,::1])"
)


@compiled(SIGNATURE)
def advance(  # type: ignore[no-untyped-def]
    # the ticks of one partition, in order
    slot,
    offset,
    index,
    tick_time,
    seq,
    op,
    fields,
    # what they have in common: topic incarnation (a small number), partition, ns, program
    topic,
    partition,
    skew,
    code,
    # what is known of each entity, by slot; changed in place
    home_topic,
    home_partition,
    newest_offset,
    newest_index,
    sequence,
    count,
    fill,
    newest_event,
    ring_time,
    ring_seq,
    ring_fields,
    ring_returns,
    # results, by tick; features and status are (ticks, features)
    verdict,
    out_event,
    out_sequence,
    out_ordinal,
    features,
    status,
):
    """Decide and compute every tick; see `compute.window_table` for the arrays' meaning."""
    remembered, mask = ring_time.shape[1] - 1, ring_fields.shape[1] - 1
    for i in range(slot.shape[0]):
        s = slot[i]
        known = count[s] > 0
        if known and home_topic[s] == topic:
            if home_partition[s] != partition:
                verdict[i] = WRONG_PARTITION
                continue
            if offset[i] < newest_offset[s] or (
                offset[i] == newest_offset[s] and index[i] <= newest_index[s]
            ):
                verdict[i] = APPLIED
                continue
        time = tick_time[i]
        event = time
        out_sequence[i] = 0
        if known:
            if _is_duplicate(ring_time, ring_seq, s, count[s], time, seq[i], remembered):
                verdict[i] = DUPLICATE
                continue
            newest = newest_event[s]
            if time < newest - skew:
                verdict[i] = LATE
                continue
            if time <= newest:
                event = newest
                out_sequence[i] = sequence[s] + 1

        verdict[i] = ACCEPTED
        out_event[i] = event
        out_ordinal[i] = count[s]
        newest_event[s] = event
        ring_time[s, count[s] & remembered] = time
        ring_seq[s, count[s] & remembered] = seq[i]
        place = count[s] & mask
        for f in range(fields.shape[1]):
            ring_fields[s, place, f] = fields[i, f]
        home_topic[s] = topic
        home_partition[s] = partition
        newest_offset[s] = offset[i]
        newest_index[s] = index[i]
        sequence[s] = out_sequence[i]
        count[s] += 1
        fill[s] = 0 if op[i] == RESET else fill[s] + 1

        fill_returns(s, count[s] - 1, count[s], code, ring_fields, ring_returns)
        for k in range(code.shape[0]):
            function, field, n = code[k, 0], code[k, 1], code[k, 2]
            depth = n + 1 if function == STDDEV_LOG_RETURN else n
            if fill[s] < depth:
                features[i, k] = math.nan
                status[i, k] = WARMING
                continue
            if function == STDDEV_LOG_RETURN:
                value = _stddev(ring_returns, s, code[k, 3], count[s], n, mask)
            elif function == MEAN:
                value = _mean(ring_fields, s, field, count[s], n, mask)
            else:
                value = ring_fields[s, place, field]
            if math.isfinite(value):
                features[i, k] = value
                status[i, k] = OK
            else:
                features[i, k] = math.nan
                status[i, k] = UNDEFINED


@compiled("int64(int32[::1], int32[::1], int32[::1], int32[::1])")
def number_slots(slot, number, distinct, place):  # type: ignore[no-untyped-def]
    """Number slots in order of appearance; `number` is -1 for each of them, and is changed.

    Fills `distinct` with the slots by number and `place` with the number of each of `slot`; returns
    how many there are.
    """
    many = 0
    for i in range(slot.shape[0]):
        s = slot[i]
        if number[s] < 0:
            number[s] = many
            distinct[many] = s
            many += 1
        place[i] = number[s]
    return many
