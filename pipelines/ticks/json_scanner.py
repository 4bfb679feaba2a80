"""The compiled pass over a run's messages: from JSON bytes to columns of ticks.

It takes what nearly all producers send: flat objects, or arrays of them, in ASCII, with strings
without escapes and numbers that `ticks.decimal_number` can round. It never says that a tick is
wrong. A message with anything else, well-formed or not, is left to `ticks.reference_decoder`, which
is the definition; so a mistake here is found by comparing the two.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Int64s
from pipelines.runtime.machine_code import compiled, inlined
from pipelines.runtime.named_columns import allocate, sliced
from pipelines.ticks.columns import CLOSE, NO_SEQ, RESET, TRADE
from pipelines.ticks.event_time import LATEST
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
from pipelines.ticks.message_limits import MAX_ARRAY_TICKS, MAX_KEY_BYTES, MAX_MESSAGE_BYTES
from pipelines.ticks.scanned_columns import (
    LAYOUT,
    MESSAGES,
    TICKS,
    Layout,
    Messages,
    Scanned,
    ScannedTicks,
)

TRADE_OP, RESET_OP, CLOSE_OP = (
    np.frombuffer(word, np.uint8) for word in (b"trade", b"reset", b"close")
)


def scan(run: Run, layout: Layout, known_at: Int64s) -> Scanned:
    """The ticks of a run; `known_at` is its records' timestamps in nanoseconds UTC."""
    fields = len(layout.default)
    ticks = allocate(
        ScannedTicks,
        _most_ticks(run.data, run.values),
        keys=len(layout.ends) - fields - 3,
        fields=fields,
        bounds=2,
    )
    left, seen = np.empty(len(run), np.int64), np.zeros(len(layout.ends) + 1, np.int64)
    messages = Messages(run.data, run.values, run.keys, known_at)
    taken, many_left = _scan(messages, layout, ticks, left, seen)
    if taken < len(ticks.record):
        ticks = sliced(ticks, slice(taken))
    return Scanned(ticks, left[:many_left])


@compiled("int64(uint8[::1], int64[:,::1])")
def _most_ticks(data, values):  # type: ignore[no-untyped-def]
    """No more ticks than this can be in the messages: one in each that is no array."""
    most = values.shape[0]
    for record in range(values.shape[0]):
        start, end = values[record, 0], values[record, 1]
        first = after_space(data, start, end) if start >= 0 else end
        if first < end and data[first] == OPEN_ARRAY:
            for position in range(first, end):
                most += data[position] == OPEN_OBJECT
    return most


@compiled()
def _name(data, start, end, layout):  # type: ignore[no-untyped-def]
    """The index of the name from `start` to `end`, `NO` for one that the source does not have."""
    before = 0
    for name in range(layout.ends.shape[0]):
        after = layout.ends[name]
        if same(data, start, end, layout.names, before, after):
            return name
        before = after
    return NO


@compiled()
def _text_end(data, position, end):  # type: ignore[no-untyped-def]
    """The position of the quote that ends the text at `position`, 1 to `MAX_KEY_BYTES` bytes."""
    if data[position] != QUOTE:
        return NO
    quote = string_end(data, position + 1, end)
    size = quote - position - 1
    if quote == NO or size == 0 or size > MAX_KEY_BYTES:
        return NO
    return quote


@inlined
def _field(data, position, end, field, layout, ticks, row):  # type: ignore[no-untyped-def]
    """The end of the value of a numeric field at `position`, which is written to its row."""
    if not layout.required[field] and is_word(data, position, min(position + 4, end), NULL):
        return position + 4
    if data[position] != MINUS and not is_digit(data, position, end):
        return NO
    position, value = number(data, position, end)
    if layout.positive and value <= 0:
        return NO
    ticks.fields[row, field] = value
    return position


@inlined
def _value(data, position, end, name, layout, ticks, row):  # type: ignore[no-untyped-def]
    """The end of the value of `name` at `position`, which is written to its row."""
    n_keys, n_fields = ticks.keys.shape[1], ticks.fields.shape[1]
    if name < n_keys:
        quote = _text_end(data, position, end)
        ticks.keys[row, name, 0], ticks.keys[row, name, 1] = position + 1, quote
        return quote if quote == NO else quote + 1
    if name < n_keys + n_fields:
        return _field(data, position, end, name - n_keys, layout, ticks, row)
    if name == n_keys + n_fields:  # ts
        position, value = integer(data, position, end)
        if value < 0 or value >= LATEST // layout.factor:
            return NO
        ticks.tick_time[row] = value * layout.factor
        return position
    if name == n_keys + n_fields + 1:  # seq
        if is_word(data, position, min(position + 4, end), NULL):
            return position + 4
        position, ticks.seq[row] = integer(data, position, end)
        return position
    quote = _text_end(data, position, end)  # op
    if quote == NO:
        return NO
    if is_word(data, position + 1, quote, RESET_OP):
        ticks.op[row] = RESET
    elif n_keys > 1 and is_word(data, position + 1, quote, CLOSE_OP):
        ticks.op[row] = CLOSE
    elif not is_word(data, position + 1, quote, TRADE_OP):
        return NO
    return quote + 1


@inlined
def _is_complete(layout, ticks, row, seen, stamp):  # type: ignore[no-untyped-def]
    """Whether the object has all that a tick needs; only a trade has numbers."""
    n_keys, n_fields = ticks.keys.shape[1], ticks.fields.shape[1]
    for key in range(n_keys):
        if seen[key] != stamp:
            return False
    if seen[n_keys + n_fields] != stamp:
        return False
    for field in range(n_fields):
        if ticks.op[row] != TRADE:
            ticks.fields[row, field] = math.nan
        elif layout.required[field] and seen[n_keys + field] != stamp:
            return False
    return True


@inlined
def _tick(data, position, end, layout, ticks, row, seen):  # type: ignore[no-untyped-def]
    """The end of the object at `position`, whose tick is written to its row; `NO` if it is left.

    `seen` holds the number of the last object that had each of the names, and at the end that of
    the last object.
    """
    stamp = seen[-1] + 1
    seen[-1] = stamp
    ticks.seq[row] = NO_SEQ
    ticks.op[row] = TRADE
    for field in range(ticks.fields.shape[1]):
        ticks.fields[row, field] = layout.default[field]
    position = after_space(data, position + 1, end)
    while True:
        if position >= end or data[position] != QUOTE:
            return NO
        quote = string_end(data, position + 1, end)
        if quote == NO:
            return NO
        name = _name(data, position + 1, quote, layout)
        position = after_space(data, quote + 1, end)
        if position >= end or data[position] != COLON:
            return NO
        position = after_space(data, position + 1, end)
        if position >= end:
            return NO
        if name == NO:
            position = other(data, position, end)
        elif seen[name] == stamp:
            return NO
        else:
            seen[name] = stamp
            position = _value(data, position, end, name, layout, ticks, row)
        if position == NO:
            return NO
        position = after_space(data, position, end)
        if position >= end:
            return NO
        if data[position] == CLOSE_OBJECT:
            return position + 1 if _is_complete(layout, ticks, row, seen, stamp) else NO
        if data[position] != COMMA:
            return NO
        position = after_space(data, position + 1, end)


@inlined
def _is_sound(messages, message, layout, ticks, row):  # type: ignore[no-untyped-def]
    """Whether a tick fits its message: not ahead of its timestamp, and of its key."""
    if ticks.tick_time[row] > messages.known_at[message] + layout.skew:
        return False
    data, start, end = messages.data, messages.keys[message, 0], messages.keys[message, 1]
    return start >= 0 and same(data, start, end, data, ticks.keys[row, 0, 0], ticks.keys[row, 0, 1])


@inlined
def _message(messages, message, layout, ticks, first, seen):  # type: ignore[no-untyped-def]
    """How many ticks of a message were written, from row `first` on; `NO` if it is left."""
    data, start, end = messages.data, messages.values[message, 0], messages.values[message, 1]
    if start < 0 or end - start > MAX_MESSAGE_BYTES:
        return NO
    position = after_space(data, start, end)
    in_array = position < end and data[position] == OPEN_ARRAY
    if in_array:
        position = after_space(data, position + 1, end)
    row = first
    while position < end and data[position] == OPEN_OBJECT:
        begin = position
        position = _tick(data, position, end, layout, ticks, row, seen)
        if position == NO or not _is_sound(messages, message, layout, ticks, row):
            return NO
        ticks.record[row] = message
        ticks.index_in_message[row] = row - first
        ticks.raw[row, 0], ticks.raw[row, 1] = begin, position
        row += 1
        position = after_space(data, position, end)
        if not in_array:
            ticks.raw[first, 0], ticks.raw[first, 1] = start, end
            return 1 if position == end else NO
        if position < end and data[position] == CLOSE_ARRAY:
            is_whole = after_space(data, position + 1, end) == end
            return row - first if is_whole and row - first <= MAX_ARRAY_TICKS else NO
        if position >= end or data[position] != COMMA:
            return NO
        position = after_space(data, position + 1, end)
    return NO


@compiled((MESSAGES, LAYOUT, TICKS, numba.int64[::1], numba.int64[::1]))
def _scan(messages, layout, ticks, left, seen):  # type: ignore[no-untyped-def]
    """Fill the columns; returns how many ticks there are, and how many messages are left."""
    n = n_left = 0
    for message in range(messages.values.shape[0]):
        many = _message(messages, message, layout, ticks, n, seen)
        if many == NO:
            left[n_left] = message
            n_left += 1
        else:
            n += many
    return n, n_left
