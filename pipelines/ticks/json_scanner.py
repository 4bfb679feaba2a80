"""The compiled pass over a run's messages: from JSON bytes to columns of ticks.

It takes what nearly all producers send: flat objects, or arrays of them, in ASCII, with strings
without escapes and numbers that `ticks.decimal_number` can round. It never says that a tick is
wrong. Whatever it does not take, well-formed or not, is left to `ticks.reference_decoder`, a
message at a time, which is the definition; so a mistake here can be found by comparing the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Bytes, Floats, Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.columns import NO_SEQ, RESET, TRADE
from pipelines.ticks.event_time import LATEST, NANOSECONDS
from pipelines.ticks.json_tokens import (
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    MINUS,
    NO,
    NULL,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    after_space,
    integer,
    is_digit,
    is_word,
    number,
    other,
    same,
    string_end,
)
from pipelines.ticks.reference_decoder import MAX_ARRAY_TICKS, MAX_KEY_BYTES, MAX_MESSAGE_BYTES
from registry.definitions import Source

TRADE_OP, RESET_OP = (np.frombuffer(word, np.uint8) for word in (b"trade", b"reset"))


@dataclass(frozen=True, slots=True)
class Layout:
    """A source as the compiled pass sees it.

    `names` are the names of its key fields, its numeric fields, `ts`, `seq` and `op`, end to end;
    `ends` is where each of them ends.
    """

    names: Bytes
    ends: Int64s
    keys: int
    required: Any
    default: Floats
    factor: int
    skew: int
    positive: bool

    @classmethod
    def of(cls, source: Source) -> Layout:
        names = [name.encode() for name in (*source.key, *source.field_names, "ts", "seq", "op")]
        return cls(
            names=np.frombuffer(bytearray().join(names), np.uint8),
            ends=np.cumsum([len(name) for name in names], dtype=np.int64),
            keys=len(source.key),
            required=np.array([field.required for field in source.fields]),
            default=np.array(
                [math.nan if field.default is None else field.default for field in source.fields]
            ),
            factor=NANOSECONDS[source.ts_unit],
            skew=source.skew_ns,
            positive=source.positive,
        )


@dataclass(frozen=True, slots=True)
class Scanned:
    """Ticks as columns of length n, as of `kafka.run.Ticks`, and the places in the run of the
    messages that are left to be judged one at a time, none of whose ticks are among them."""

    record: Int64s
    index: Any
    keys: Int64s
    raw: Int64s
    tick_time: Int64s
    seq: Int64s
    op: Bytes
    fields: Floats
    left: Int64s


def scan(run: Run, layout: Layout, known_at: Int64s) -> Scanned:
    """The ticks of a run; `known_at` is its records' timestamps in nanoseconds UTC."""
    n = _most_ticks(run.data, run.values)
    fields = len(layout.default)
    found = Scanned(
        record=np.empty(n, np.int64),
        index=np.empty(n, np.int32),
        keys=np.empty((n, layout.keys, 2), np.int64),
        raw=np.empty((n, 2), np.int64),
        tick_time=np.empty(n, np.int64),
        seq=np.empty(n, np.int64),
        op=np.empty(n, np.uint8),
        fields=np.empty((n, fields)),
        left=np.empty(len(run), np.int64),
    )
    ticks, left = _scan(
        run.data,
        run.values,
        run.keys,
        known_at,
        layout.names,
        layout.ends,
        layout.required,
        layout.default,
        layout.factor,
        layout.skew,
        layout.positive,
        found.record,
        found.index,
        found.keys,
        found.raw,
        found.tick_time,
        found.seq,
        found.op,
        found.fields,
        found.left,
        np.zeros(len(layout.ends), np.int64),
    )
    return Scanned(
        record=found.record[:ticks],
        index=found.index[:ticks],
        keys=found.keys[:ticks],
        raw=found.raw[:ticks],
        tick_time=found.tick_time[:ticks],
        seq=found.seq[:ticks],
        op=found.op[:ticks],
        fields=found.fields[:ticks],
        left=found.left[:left],
    )


@compiled("int64(uint8[::1], int64[:,::1])")
def _most_ticks(data, values):  # type: ignore[no-untyped-def]
    """No more ticks than this can be in the messages: one in each that is no array."""
    most = values.shape[0]
    for record in range(values.shape[0]):
        start, end = values[record, 0], values[record, 1]
        at = after_space(data, start, end) if start >= 0 else end
        if at < end and data[at] == OPEN_ARRAY:
            for place in range(at, end):
                most += data[place] == OPEN_OBJECT
    return most


@compiled()
def _name(data, start, end, names, ends):  # type: ignore[no-untyped-def]
    """Which of the names the bytes from `start` to `end` are, `NO` for none."""
    before = 0
    for place in range(ends.shape[0]):
        after = ends[place]
        if same(data, start, end, names, before, after):
            return place
        before = after
    return NO


@compiled()
def _tick(  # type: ignore[no-untyped-def]
    data,
    at,
    end,
    names,
    ends,
    required,
    default,
    factor,
    positive,
    tick,
    keys,
    times,
    seq,
    op,
    fields,
    seen,
    stamp,
):
    """Where the object at `at` ends; its tick is written to row `tick` of the columns.

    `seen` holds the last object in which each of the names was; `stamp` is this one.
    """
    n_keys, n_fields = keys.shape[1], fields.shape[1]
    ts_place, seq_place, op_place = n_keys + n_fields, n_keys + n_fields + 1, n_keys + n_fields + 2
    seq[tick] = NO_SEQ
    op[tick] = TRADE
    for field in range(n_fields):
        fields[tick, field] = default[field]
    at = after_space(data, at + 1, end)
    while True:
        if at >= end or data[at] != QUOTE:
            return NO
        quote = string_end(data, at + 1, end)
        if quote == NO:
            return NO
        name = _name(data, at + 1, quote, names, ends)
        at = after_space(data, quote + 1, end)
        if at >= end or data[at] != COLON:
            return NO
        at = after_space(data, at + 1, end)
        if at >= end:
            return NO
        if name == NO:
            at = other(data, at, end)
        else:
            if seen[name] == stamp:
                return NO
            seen[name] = stamp
            if name < n_keys or name == op_place:
                if data[at] != QUOTE:
                    return NO
                quote = string_end(data, at + 1, end)
                size = quote - at - 1
                if quote == NO or size == 0 or size > MAX_KEY_BYTES:
                    return NO
                if name < n_keys:
                    keys[tick, name, 0], keys[tick, name, 1] = at + 1, quote
                elif is_word(data, at + 1, quote, RESET_OP):
                    op[tick] = RESET
                elif not is_word(data, at + 1, quote, TRADE_OP):
                    return NO
                at = quote + 1
            elif name == ts_place:
                at, value = integer(data, at, end)
                if value < 0 or value >= LATEST // factor:
                    return NO
                times[tick] = value * factor
            elif name == seq_place:
                if is_word(data, at, min(at + 4, end), NULL):
                    at += 4
                else:
                    at, seq[tick] = integer(data, at, end)
            elif not required[name - n_keys] and is_word(data, at, min(at + 4, end), NULL):
                at += 4
            elif data[at] == MINUS or is_digit(data, at, end):
                at, measured = number(data, at, end)
                if positive and measured <= 0:
                    return NO
                fields[tick, name - n_keys] = measured
            else:
                return NO
        if at == NO:
            return NO
        at = after_space(data, at, end)
        if at >= end:
            return NO
        if data[at] == CLOSE_OBJECT:
            break
        if data[at] != COMMA:
            return NO
        at = after_space(data, at + 1, end)
    for place in range(n_keys):
        if seen[place] != stamp:
            return NO
    if seen[ts_place] != stamp:
        return NO
    for field in range(n_fields):
        if op[tick] == RESET:
            fields[tick, field] = math.nan
        elif required[field] and seen[n_keys + field] != stamp:
            return NO
    return at + 1


@compiled(
    "UniTuple(int64, 2)(uint8[::1], int64[:,::1], int64[:,::1], int64[::1],"
    " uint8[::1], int64[::1], boolean[::1], float64[::1], int64, int64, boolean,"
    " int64[::1], int32[::1], int64[:,:,::1], int64[:,::1],"
    " int64[::1], int64[::1], uint8[::1], float64[:,::1], int64[::1], int64[::1])"
)
def _scan(  # type: ignore[no-untyped-def]
    data,
    values,
    message_keys,
    known_at,
    names,
    ends,
    required,
    default,
    factor,
    skew,
    positive,
    # the columns of ticks, and the messages left
    record,
    index,
    keys,
    raw,
    times,
    seq,
    op,
    fields,
    left,
    seen,
):
    """Fill the columns; returns how many ticks there are, and how many messages are left."""
    n = n_left = stamp = 0
    for message in range(values.shape[0]):
        start, end = values[message, 0], values[message, 1]
        first = n
        in_array = False
        taken = False
        at = end
        if start >= 0 and end - start <= MAX_MESSAGE_BYTES:
            at = after_space(data, start, end)
            if at < end and data[at] == OPEN_ARRAY:
                in_array = True
                at = after_space(data, at + 1, end)
        while at < end and data[at] == OPEN_OBJECT:
            begin = at
            stamp += 1
            at = _tick(
                data, at, end, names, ends, required, default, factor, positive,
                n, keys, times, seq, op, fields, seen, stamp,
            )  # fmt: skip
            if (
                at == NO
                or times[n] > known_at[message] + skew
                or message_keys[message, 0] < 0
                or not same(
                    data,
                    message_keys[message, 0],
                    message_keys[message, 1],
                    data,
                    keys[n, 0, 0],
                    keys[n, 0, 1],
                )
            ):
                break
            record[n] = message
            index[n] = n - first
            raw[n, 0], raw[n, 1] = begin, at
            n += 1
            at = after_space(data, at, end)
            if in_array and at < end and data[at] == COMMA:
                at = after_space(data, at + 1, end)
                continue
            if in_array and at < end and data[at] == CLOSE_ARRAY:
                at = after_space(data, at + 1, end)
                taken = at == end
            elif not in_array:
                raw[first, 0], raw[first, 1] = start, end
                taken = at == end
            break
        if not taken or n - first > MAX_ARRAY_TICKS:
            n = first
            left[n_left] = message
            n_left += 1
    return n, n_left
