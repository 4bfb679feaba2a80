"""The compiled pass over a run's messages: from JSON bytes to columns of ticks.

It takes what nearly all producers send: objects, arrays of them, and arrays in a field, in ASCII,
with strings without escapes and numbers that `ticks.decimal_number` can round. It never says that a
tick is wrong. A message with anything else, well-formed or not, is left to
`ticks.reference_decoder`, which is the definition; so a mistake here is found by comparing the two.

A walk goes through an object along the tree of the source's paths (`ticks.path_tree`): where the
tree has a node, down into the object, elsewhere over the value. A value that does not suit its
field is passed over as well: whether the tick is one of the source's is known at its end.
"""

from __future__ import annotations

import numba
import numpy as np

from pipelines.kafka.run import Run
from pipelines.runtime.array_types import Int64s
from pipelines.runtime.machine_code import compiled, inlined
from pipelines.runtime.named_columns import allocate, sliced
from pipelines.ticks.columns import NO_SEQ, TRADE
from pipelines.ticks.json_tokens import (
    CLOSE_ARRAY,
    CLOSE_OBJECT,
    COMMA,
    NO,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    after_space,
    same,
    skipped,
    string_end,
    value_start,
)
from pipelines.ticks.message_limits import MAX_ARRAY_TICKS, MAX_KEY_BYTES, MAX_MESSAGE_BYTES
from pipelines.ticks.partitioners import find_fitting
from pipelines.ticks.scanned_columns import (
    SCAN,
    Layout,
    Messages,
    Scan,
    Scanned,
    ScannedTicks,
    Scratch,
)
from pipelines.ticks.scanned_values import (
    holds,
    is_complete,
    is_sound,
    take_around,
    take_record_values,
    value,
)
from pipelines.ticks.text_digest import digest_texts

TICK_ROOT, MESSAGE_ROOT = 0, 1
TAKEN, PASSED_OVER, LEFT = range(3)
"""What becomes of a tick."""

ELEMENT, WALK = range(2)
"""Steps: at an element of an array, or a message that is no array; in an object."""


def scan(run: Run, layout: Layout, known_at: Int64s) -> Scanned:
    """The ticks of a run; `known_at` is its records' timestamps in nanoseconds UTC."""
    data, values = run.data, run.values
    if len(layout.constants):
        data = np.concatenate([data, layout.constants])
    ticks = allocate(
        ScannedTicks,
        _most_ticks(data, values, layout.has_items) if layout.is_scanned else 0,
        keys=len(layout.constant),
        fields=len(layout.default),
        bounds=2,
    )
    if not layout.is_scanned:
        return Scanned(ticks, np.arange(len(run)), 0, data)
    left, fits = np.empty(len(run), np.int64), np.empty(len(run), np.bool_)
    find_fitting(data, run.keys, layout.partitioner, layout.partitions, run.partition, fits)
    scratch = Scratch(
        seen=np.zeros(len(layout.nodes.parent) + 1, np.int64),
        following=np.full(len(layout.nodes.parent), NO, np.int64),
        texts=np.zeros(1, np.int64),
    )
    messages = Messages(data, values, run.keys, known_at)
    whole = Scan(messages, len(run.data), layout, ticks, scratch)
    taken, many_left, passed_over = _scan(whole, fits, left)
    if taken < len(ticks.record):
        ticks = sliced(ticks, slice(taken))
    if scratch.texts[0]:
        digest_texts(data, ticks.seq_text, ticks.seq)
    return Scanned(ticks, left[:many_left], passed_over, data)


@compiled("int64(uint8[::1], int64[:,::1], boolean)", nogil=False)
def _most_ticks(data, values, has_items):  # type: ignore[no-untyped-def]
    """No more ticks than this can be in the messages: one in each that is no array.

    Where ticks are in arrays of messages, there is one row more, for what is around them.
    """
    most = values.shape[0] + has_items
    for record in range(values.shape[0]):
        start, end = values[record, 0], values[record, 1]
        first = after_space(data, start, end) if start >= 0 else end
        if first < end and (has_items or data[first] == OPEN_ARRAY):
            for position in range(first, end):
                most += data[position] == OPEN_OBJECT
    return most


@inlined
def _is_named(data, position, end, nodes, node):  # type: ignore[no-untyped-def]
    """Whether a node's name is at `position`, with a quote behind it."""
    first, last = nodes.name_start[node], nodes.name_end[node]
    quote = position + last - first
    if quote >= end or data[quote] != QUOTE:
        return False
    for k in range(last - first):
        if data[position + k] != nodes.names[first + k]:
            return False
    return True


@inlined
def _child(data, start, end, nodes, parent):  # type: ignore[no-untyped-def]
    """The child that has the name from `start` to `end`, or `NO`."""
    for node in range(nodes.first_child[parent], nodes.last_child[parent]):
        if same(
            data,
            start,
            end,
            nodes.names,
            nodes.name_start[node],
            nodes.name_end[node],
        ):
            return node
    return NO


@inlined
def _member(scan, position, end, node, previous):  # type: ignore[no-untyped-def]
    """The begin of the value of the member of an object at `position`, and the node of its name.

    `NO` for a begin that is none, and for a name that the source does not read. The node that came
    behind `previous` in the object before is tried first.
    """
    data, nodes, following = scan.messages.data, scan.layout.nodes, scan.scratch.following
    if position >= end or data[position] != QUOTE:
        return NO, NO
    position += 1
    child = following[previous]
    if child != NO and nodes.parent[child] == node and _is_named(data, position, end, nodes, child):
        quote = position + nodes.name_end[child] - nodes.name_start[child]
    else:
        quote = string_end(data, position, end)
        if quote == NO:
            return NO, NO
        child = _child(data, position, quote, nodes, node)
        if child != NO:
            following[previous] = child
    return value_start(data, quote + 1, end), child


@inlined
def _walk(scan, position, end, node, is_inside, row, stamp):  # type: ignore[no-untyped-def]
    """Go through an object, from its node on, or on from behind the array of ticks in it.

    `is_inside` says that a member begins at `position`, and not that one has ended. Returns the
    position after the object, and the node 0 or 1; or the array's, and its object's node; whether
    it is at the array; whether a value did not suit its field, and how many conditions hold.
    """
    data, layout, seen = scan.messages.data, scan.layout, scan.scratch.seen
    nodes = layout.nodes
    names = layout.around.shape[0]
    items = names + layout.values.first.shape[0] - 1
    has_failed, held, previous = False, 0, node
    while True:
        if is_inside:
            begin, child = _member(scan, position, end, node, previous)
            if begin == NO or (child != NO and seen[child] == stamp):
                return NO, node, False, has_failed, held
            position = NO
            if child != NO:
                seen[child] = stamp
                previous = child
                role = nodes.role[child]
                if role == NO and data[begin] == OPEN_OBJECT:
                    inside = after_space(data, begin + 1, end)
                    if inside < end and data[inside] == CLOSE_OBJECT:
                        position = inside + 1
                    else:
                        node, position = child, inside
                        continue
                while role != NO:
                    if role == items:
                        return begin, node, True, has_failed, held
                    if role < names:
                        after = value(scan, begin, end, role, row)
                        has_failed |= after == NO
                        position = max(position, after)
                    else:
                        held += holds(scan, begin, end, role - names)
                    role = nodes.next_role[role]
            if position == NO:
                position = skipped(data, begin, end)
                if position == NO:
                    return NO, node, False, has_failed, held
        position = after_space(data, position, end)
        if position >= end:
            return NO, node, False, has_failed, held
        if data[position] == COMMA:
            position = after_space(data, position + 1, end)
            is_inside = True
            continue
        if data[position] != CLOSE_OBJECT:
            return NO, node, False, has_failed, held
        position += 1
        if nodes.parent[node] < 0:
            return position, node, False, has_failed, held
        node = nodes.parent[node]
        is_inside = False


@inlined
def _begin(scan, row):  # type: ignore[no-untyped-def]
    """Empty a row for the next object; returns the object's number."""
    ticks, seen = scan.ticks, scan.scratch.seen
    stamp = seen[-1] + 1
    seen[-1] = stamp
    ticks.seq[row] = NO_SEQ
    ticks.op[row] = TRADE
    if scan.scratch.texts[0] != 0:
        ticks.seq_text[row, 0], ticks.seq_text[row, 1] = 0, 0
    for field in range(ticks.fields.shape[1]):
        ticks.fields[row, field] = scan.layout.default[field]
    return stamp


@inlined
def _verdict(scan, message, row, stamp, has_failed, held):  # type: ignore[no-untyped-def]
    """What becomes of the tick of an object that was gone through, which is in its row."""
    if held < scan.layout.on_tick:
        return PASSED_OVER
    if has_failed or not is_complete(scan, row, stamp):
        return LEFT
    if scan.layout.has_record_values and not take_record_values(scan, message, row):
        return LEFT
    return TAKEN


@inlined
def _at_items(data, position, end):  # type: ignore[no-untyped-def]
    """The next position and step at what should be the array of ticks, and whether it is one."""
    if data[position] != OPEN_ARRAY:
        return skipped(data, position, end), WALK, False
    inside = after_space(data, position + 1, end)
    if inside < end and data[inside] == CLOSE_ARRAY:
        return inside + 1, WALK, True
    return inside, ELEMENT, True


@inlined
def _behind_element(data, position, end):  # type: ignore[no-untyped-def]
    """The next position and step behind an element of an array: `WALK` behind its last one."""
    if position != NO:
        position = after_space(data, position, end)
    if position == NO or position >= end:
        return NO, WALK
    if data[position] == COMMA:
        return after_space(data, position + 1, end), ELEMENT
    return position + 1 if data[position] == CLOSE_ARRAY else NO, WALK


@inlined
def _are_sound(scan, message, first, last, stamp):  # type: ignore[no-untyped-def]
    """Whether the ticks of a message fit it; takes what they read around them."""
    for row in range(first, last):
        if scan.layout.has_items and not take_around(
            scan, row, scan.ticks.record.shape[0] - 1, stamp
        ):
            return False
        if not is_sound(scan, message, row):
            return False
    return True


@inlined
def _message(scan, message, first):  # type: ignore[no-untyped-def]
    """How many ticks of a message were written, from row `first` on, or `NO` if it is left; and how
    many were passed over.

    There is one call of `_walk`, since each is a copy of it: it goes through ticks, and through the
    message around them, whose row is the last one, up to their array and on from there.
    """
    data, values, ticks = scan.messages.data, scan.messages.values, scan.ticks
    has_items, end = scan.layout.has_items, values[message, 1]
    position = after_space(data, values[message, 0], end)
    if position >= end or (has_items and data[position] != OPEN_OBJECT):
        return NO, 0
    around = ticks.record.shape[0] - 1 if has_items else NO
    in_array = not has_items and data[position] == OPEN_ARRAY
    row, elements, passed_over, held_around = first, 0, 0, 0
    # `bool(1)` is no literal: for one numba would compile `_walk` once more
    is_sane, is_found, is_inside = True, not has_items, bool(1)
    begin, target, node, step = position, around, MESSAGE_ROOT, ELEMENT
    around_node, stamp, around_stamp = node, 0, 0
    if has_items:
        step, around_stamp = WALK, _begin(scan, around)
        stamp = around_stamp
    if has_items or in_array:
        position = after_space(data, position + 1, end)
    while True:
        if step == ELEMENT:
            if position >= end or (data[position] != OPEN_OBJECT and not in_array):
                return NO, 0
            begin = position
            if data[position] == OPEN_OBJECT:
                target, node, is_inside, step = row, TICK_ROOT, True, WALK
                stamp = _begin(scan, row)
                position = after_space(data, position + 1, end)
            else:
                position, is_sane = skipped(data, position, end), False
        if step == WALK:
            position, node, is_at_items, has_failed, held = _walk(
                scan, position, end, node, is_inside, target, stamp
            )
            if position == NO:
                return NO, 0
            if target == around:
                held_around += held
                is_sane &= not has_failed
                if not is_at_items:
                    break
                is_found, is_inside, around_node = True, False, node
                position, step, in_array = _at_items(data, position, end)
                is_sane &= in_array
                if position == NO:
                    return NO, 0
                continue
            verdict = _verdict(scan, message, row, stamp, has_failed, held)
            if verdict == TAKEN:
                ticks.record[row] = message
                ticks.index_in_message[row] = elements
                ticks.raw[row, 0], ticks.raw[row, 1] = begin, position
                row += 1
            passed_over += verdict == PASSED_OVER
            is_sane &= verdict != LEFT
        elements += 1
        if not in_array:
            ticks.raw[first, 0], ticks.raw[first, 1] = values[message, 0], end
            break
        position, step = _behind_element(data, position, end)
        if position == NO:
            return NO, 0
        if step == WALK:
            if not has_items:
                break
            target, node, stamp, is_inside = around, around_node, around_stamp, False
    if after_space(data, position, end) != end:
        return NO, 0
    if held_around < scan.layout.on_message or (is_sane and is_found and elements == 0):
        return 0, 1
    is_taken = is_sane and is_found and elements <= MAX_ARRAY_TICKS
    if not is_taken or not _are_sound(scan, message, first, row, around_stamp):
        return NO, 0
    return row - first, passed_over


@compiled((SCAN, numba.boolean[::1], numba.int64[::1]))
def _scan(scan, fits, left):  # type: ignore[no-untyped-def]
    """Fill the columns; returns how many ticks there are, how many messages are left, and how many
    messages and elements were passed over.

    `fits` says by message whether it is in the partition of its key.
    """
    n, n_left, n_passed_over = np.int64(0), 0, 0  # no literal: `_message` is compiled once
    values, keys = scan.messages.values, scan.messages.keys
    for message in range(values.shape[0]):
        many, passed_over = NO, 0
        start, end = values[message, 0], values[message, 1]
        key_bytes = keys[message, 1] - keys[message, 0]
        if start >= 0 and end - start <= MAX_MESSAGE_BYTES and key_bytes <= MAX_KEY_BYTES:
            many, passed_over = _message(scan, message, n)
        if many > 0 and not fits[message]:
            many = NO
        if many == NO:
            left[n_left] = message
            n_left += 1
        else:
            n += many
            n_passed_over += passed_over
    return n, n_left, n_passed_over
