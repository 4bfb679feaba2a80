"""The values of a tick, compiled: each written to the tick's row as it is met in its message.

Functions that take a `position` return the position after the value there, and `NO` for what the
compiled pass does not take (`ticks.json_scanner`). `scan` is a `scanned_columns.Scan`.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.runtime.machine_code import compiled, inlined
from pipelines.ticks.columns import CLOSE, RESET, TRADE
from pipelines.ticks.event_time import LATEST
from pipelines.ticks.json_tokens import (
    FALSE,
    MINUS,
    NO,
    NOT_ASCII,
    NULL,
    QUOTE,
    SPACE,
    TRUE,
    integer,
    is_digit,
    is_word,
    number,
    same,
    scaled_integer,
    string_end,
)
from pipelines.ticks.message_limits import MAX_KEY_BYTES
from pipelines.ticks.scanned_columns import INTEGER, NOWHERE, TEXT, TRUE_VALUE
from pipelines.ticks.time_tokens import time_text

TRADE_OP, RESET_OP, CLOSE_OP = (
    np.frombuffer(word, np.uint8) for word in (b"trade", b"reset", b"close")
)
NO_PRICE = 2.0**63
"""The double of what Databento writes for no price."""


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


@compiled()
def _is_null(data, position, end):  # type: ignore[no-untyped-def]
    return is_word(data, position, min(position + 4, end), NULL)


@compiled()
def _is_integer_text(data, position, end):  # type: ignore[no-untyped-def]
    position += 1
    while is_digit(data, position, end):
        position += 1
    return position < end and data[position] == QUOTE


@inlined
def _field(scan, position, end, field, row):  # type: ignore[no-untyped-def]
    data, layout = scan.messages.data, scan.layout
    if not layout.required[field] and _is_null(data, position, end):
        return position + 4
    in_text = data[position] == QUOTE
    position += in_text
    if position >= end or (data[position] != MINUS and not is_digit(data, position, end)):
        return NO
    if layout.scale[field] == 0:
        position, found = number(data, position, end)
    else:
        position, found = scaled_integer(data, position, end, layout.scale[field])
    if position == NO or found == NO_PRICE or (layout.positive and found <= 0):
        return NO
    if in_text:
        if position >= end or data[position] != QUOTE:
            return NO
        position += 1
    scan.ticks.fields[row, field] = found
    return position


@inlined
def _time(scan, position, end, row):  # type: ignore[no-untyped-def]
    data, layout = scan.messages.data, scan.layout
    in_text = data[position] == QUOTE
    if in_text and not (layout.digits and _is_integer_text(data, position, end)):
        # read at the end of the message: here it would cost times that are integers as well
        scan.ticks.tick_time[row] = -position
        position = string_end(data, position + 1, end)
        return position if position == NO else position + 1
    position, count = integer(data, position + in_text, end)
    if position == NO or count < 0 or count >= LATEST // layout.factor:
        return NO
    scan.ticks.tick_time[row] = count * layout.factor
    return position + in_text


@inlined
def _seq(scan, position, end, row):  # type: ignore[no-untyped-def]
    """Of text only where it is: its number is worked out at the end, for all ticks of the run."""
    data, ticks = scan.messages.data, scan.ticks
    if data[position] == QUOTE:
        quote = _text_end(data, position, end)
        if quote == NO:
            return NO
        ticks.seq_text[row, 0], ticks.seq_text[row, 1] = position + 1, quote
        scan.scratch.texts[0] = 1
        return quote + 1
    if _is_null(data, position, end):
        return position + 4
    position, found = integer(data, position, end)
    if position != NO:
        ticks.seq[row] = found
    return position


@inlined
def _operation(scan, position, end, row):  # type: ignore[no-untyped-def]
    data = scan.messages.data
    quote = _text_end(data, position, end)
    if quote == NO:
        return NO
    if is_word(data, position + 1, quote, RESET_OP):
        scan.ticks.op[row] = RESET
    elif scan.ticks.keys.shape[1] > 1 and is_word(data, position + 1, quote, CLOSE_OP):
        scan.ticks.op[row] = CLOSE
    elif not is_word(data, position + 1, quote, TRADE_OP):
        return NO
    return quote + 1


@inlined
def value(scan, position, end, name, row):  # type: ignore[no-untyped-def]
    """Write the value of a name at `position` to its row."""
    ticks = scan.ticks
    n_keys, n_fields = ticks.keys.shape[1], ticks.fields.shape[1]
    if name < n_keys:
        quote = _text_end(scan.messages.data, position, end)
        ticks.keys[row, name, 0], ticks.keys[row, name, 1] = position + 1, quote
        return quote if quote == NO else quote + 1
    if name < n_keys + n_fields:
        return _field(scan, position, end, name - n_keys, row)
    if name == n_keys + n_fields:
        return _time(scan, position, end, row)
    if name == n_keys + n_fields + 1:
        return _seq(scan, position, end, row)
    return _operation(scan, position, end, row)


@inlined
def holds(scan, position, end, condition):  # type: ignore[no-untyped-def]
    """Whether the value at `position` is one of a condition's; a string is without escapes."""
    data, values = scan.messages.data, scan.layout.values
    quote = string_end(data, position + 1, end) if data[position] == QUOTE else NO
    after, found = integer(data, position, end)
    for wanted in range(values.first[condition], values.first[condition + 1]):
        kind = values.kind[wanted]
        if kind == TEXT:
            start, stop = values.text_start[wanted], values.text_end[wanted]
            if quote != NO and same(data, position + 1, quote, values.texts, start, stop):
                return True
        elif kind == INTEGER:
            if after != NO and found == values.number[wanted]:
                return True
        else:
            word = TRUE if kind == TRUE_VALUE else FALSE
            if is_word(data, position, min(position + word.shape[0], end), word):
                return True
    return False


@inlined
def is_complete(scan, row, stamp):  # type: ignore[no-untyped-def]
    """Whether the object with number `stamp` has all that a tick reads in it; only a trade has
    numbers."""
    layout, ticks, seen = scan.layout, scan.ticks, scan.scratch.seen
    for k in range(layout.needed.shape[0]):
        if seen[layout.needed[k]] != stamp:
            return False
    if ticks.op[row] != TRADE:
        for field in range(ticks.fields.shape[1]):
            ticks.fields[row, field] = math.nan
        return True
    for k in range(layout.needed_numbers.shape[0]):
        if seen[layout.needed_numbers[k]] != stamp:
            return False
    return True


@inlined
def take_record_values(scan, message, row):  # type: ignore[no-untyped-def]
    """Write what a tick does not have in JSON: constants, the record's key and its timestamp.

    Returns whether they can be a tick's.
    """
    messages, layout, ticks = scan.messages, scan.layout, scan.ticks
    for key in range(ticks.keys.shape[1]):
        if layout.constant[key, 0] >= 0:
            ticks.keys[row, key, 0] = scan.constants + layout.constant[key, 0]
            ticks.keys[row, key, 1] = scan.constants + layout.constant[key, 1]
        elif layout.is_message_key[key]:
            start, end = messages.keys[message, 0], messages.keys[message, 1]
            if start < 0 or start == end:
                return False
            for position in range(start, end):
                if messages.data[position] < SPACE or messages.data[position] >= NOT_ASCII:
                    return False
            ticks.keys[row, key, 0], ticks.keys[row, key, 1] = start, end
    if layout.is_recorded:
        ticks.tick_time[row] = messages.known_at[message]
        return messages.known_at[message] >= 0
    return True


@inlined
def take_around(scan, row, template, stamp):  # type: ignore[no-untyped-def]
    """Copy what a tick reads in the message around it, which is in the row `template`.

    Returns whether all that a tick needs is there. `stamp` is the number of the message.
    """
    layout, ticks, seen = scan.layout, scan.ticks, scan.scratch.seen
    n_keys, n_fields = ticks.keys.shape[1], ticks.fields.shape[1]
    for key in range(n_keys):
        node = layout.around[key]
        if node != NOWHERE:
            if seen[node] != stamp:
                return False
            ticks.keys[row, key, 0] = ticks.keys[template, key, 0]
            ticks.keys[row, key, 1] = ticks.keys[template, key, 1]
    for field in range(n_fields):
        node = layout.around[n_keys + field]
        if node != NOWHERE and ticks.op[row] == TRADE:
            if layout.required[field] and seen[node] != stamp:
                return False
            ticks.fields[row, field] = ticks.fields[template, field]
    node = layout.around[n_keys + n_fields]
    if node != NOWHERE:
        if seen[node] != stamp:
            return False
        ticks.tick_time[row] = ticks.tick_time[template]
    if layout.around[n_keys + n_fields + 1] != NOWHERE:
        ticks.seq[row] = ticks.seq[template]
        ticks.seq_text[row, 0] = ticks.seq_text[template, 0]
        ticks.seq_text[row, 1] = ticks.seq_text[template, 1]
    return True


@inlined
def _has_time(scan, end, row):  # type: ignore[no-untyped-def]
    """Whether the time of a row can be a tick's; reads one that is text."""
    time = scan.ticks.tick_time
    if time[row] < 0:
        position, time[row] = time_text(scan.messages.data, -time[row], end)
        if position == NO:
            return False
    return scan.layout.earliest <= time[row] < LATEST


@inlined
def is_sound(scan, message, row):  # type: ignore[no-untyped-def]
    """Whether a tick has a time and fits its record: not ahead of it, and of its key."""
    messages, layout, ticks = scan.messages, scan.layout, scan.ticks
    if not _has_time(scan, messages.values[message, 1], row):
        return False
    if ticks.tick_time[row] > messages.known_at[message] + layout.skew:
        return False
    if not layout.keyed:
        return True
    data, start, end = messages.data, messages.keys[message, 0], messages.keys[message, 1]
    return start >= 0 and same(data, start, end, data, ticks.keys[row, 0, 0], ticks.keys[row, 0, 1])
