"""What the compiled pass over messages reads and fills: a source's layout, messages and ticks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.runtime.array_types import Bytes, Floats, Int32s, Int64s
from pipelines.runtime.named_columns import allocate, column, numba_type
from pipelines.ticks.event_time import NANOSECONDS
from pipelines.ticks.partitioners import CODES
from pipelines.ticks.path_tree import Nodes, PathTree
from registry.definitions import Condition, Field, Place, Source
from registry.paths import Part, Path, parse_path

NOWHERE = -1
"""Instead of a node: no field of a message holds the value."""

TEXT, INTEGER, FALSE_VALUE, TRUE_VALUE = range(4)
"""Kinds of values of a condition."""


class Values(NamedTuple):
    """The values of conditions, as columns by value."""

    first: Int64s
    """By condition, and one more: its values are from here up to the next condition's."""
    kind: Int64s
    number: Int64s
    texts: Bytes
    """The texts of values, end to end."""
    text_start: Int64s
    text_end: Int64s

    @classmethod
    def of(cls, conditions: Sequence[Condition]) -> Values:
        values = [value for condition in conditions for value in condition.values]
        texts = [value.encode() if isinstance(value, str) else b"" for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        return cls(
            first=np.cumsum([0, *(len(each.values) for each in conditions)], dtype=np.int64),
            kind=np.array([_kind(value) for value in values], np.int64),
            number=np.array([0 if isinstance(v, str) else int(v) for v in values], np.int64),
            texts=_bytes(b"".join(texts)),
            text_start=ends[:-1],
            text_end=ends[1:],
        )


class Layout(NamedTuple):
    """A source as the compiled pass sees it.

    A *name* is the index of a key field, a numeric field, `ts`, `seq` or `op`, in this order. The
    paths are two trees in one (`ticks.path_tree`): of a tick, from node 0, and of the message
    around the ticks, from node 1. A *role* is a name, or what comes after the names: a condition,
    and last of all the array of ticks.
    """

    nodes: Nodes
    needed: Int64s
    """The nodes in a tick that each has, and behind them those of numbers that a trade has."""
    needed_numbers: Int64s
    around: Int64s
    """By name: its node in the message around, or `NOWHERE`."""
    constant: Int64s
    """By key field, (keys, 2): begin and end of a constant behind the run's bytes, or below 0."""
    is_message_key: Any
    """By key field, bool: it is the key of its record."""
    required: Any
    """By numeric field, bool."""
    default: Floats
    """By numeric field, NaN for none."""
    scale: Int64s
    """By numeric field: the power of ten that its integers are multiplied with, 0 for none."""
    values: Values
    """What conditions want."""
    on_tick: int
    """Number of conditions on a tick; the others are on the message around."""
    on_message: int
    factor: int
    """Nanoseconds of a unit of `ts`."""
    earliest: int
    """Nanoseconds UTC."""
    skew: int
    """Nanoseconds that a tick may be ahead of its record."""
    positive: bool
    digits: bool
    """Whether `ts` may be an integer in text."""
    is_recorded: bool
    """Whether `ts` is the record's timestamp."""
    has_record_values: bool
    """Whether anything of a tick is a constant, or the record's."""
    keyed: bool
    """Whether the message key is that of the tick."""
    has_items: bool
    partitioner: int
    """Of `partitioners.CODES`."""
    partitions: int
    """Of the topic, 0 where it is not known."""
    constants: Bytes
    """The key fields that are constants, end to end; they are put behind the run's bytes."""
    is_scanned: bool
    """Whether the compiled pass can read the messages: not where headers count, or `op` is around
    the ticks."""

    @classmethod
    def of(cls, source: Source, partitions: int | None = None) -> Layout:
        """`partitions` is their number in the source's topic, None where it is not known."""
        paths, places, fields = source.paths, source.places_by_name, source.fields
        conditions = [parse_path(each.path, source.name) for each in source.where]
        nodes, node, around = _nodes(source, conditions)
        keys = len(source.key)
        numbers = [keys + n for n, field in enumerate(fields) if field.required]
        texts = [_constant(places[name].value) for name in source.key]
        is_key = [name in paths and paths[name].part is Part.KEY for name in source.key]
        is_recorded = "ts" in paths and paths["ts"].part is Part.TIMESTAMP
        return cls(
            nodes=nodes,
            needed=_known(node[[*range(keys), keys + len(fields)]]),
            needed_numbers=_known(node[numbers]),
            around=around,
            constant=_bounds(texts),
            is_message_key=np.array(is_key, np.bool_),
            required=np.array([field.required for field in fields], np.bool_),
            default=np.array([_default(field, places[field.name]) for field in fields], np.float64),
            scale=np.array([places[field.name].scale for field in fields], np.int64),
            values=Values.of(source.where),
            on_tick=sum(path.part is Part.TICK for path in conditions),
            on_message=sum(path.part is Part.AROUND for path in conditions),
            factor=NANOSECONDS[source.ts_unit],
            earliest=source.earliest_ns,
            skew=source.skew_ns,
            positive=source.positive,
            digits=places["ts"].digits,
            is_recorded=is_recorded,
            has_record_values=is_recorded or any(is_key) or any(texts),
            keyed=source.message_key == "first",
            has_items=source.items is not None,
            partitioner=CODES[source.partitioner],
            partitions=partitions or 0,
            constants=_bytes(b"".join(texts)),
            is_scanned=_is_scanned(paths, conditions),
        )


def _nodes(source: Source, conditions: Sequence[Path]) -> tuple[Nodes, Int64s, Int64s]:
    """The tree of a source's paths, and by name its node in the tick and around it."""
    names, paths, tree = source.tick_names, source.paths, PathTree()
    node, around = np.full((2, len(names)), NOWHERE)
    for index, name in enumerate(names):
        path = paths.get(name)
        if path is not None and path.is_json:
            (node if path.part is Part.TICK else around)[index] = tree.add(path, index)
    for role, path in enumerate(conditions, len(names)):
        if path.is_json:
            tree.add(path, role)
    if source.items is not None:
        array = parse_path(source.items, source.name)
        tree.add(array._replace(part=Part.AROUND), len(names) + len(conditions))
    nodes, numbers = tree.numbered()
    number = np.array([*numbers, NOWHERE])  # the last one is that of `NOWHERE`
    return nodes, number[node], number[around]


def _is_scanned(paths: Mapping[str, Path], conditions: Sequence[Path]) -> bool:
    return (
        all(path.part is not Part.HEADER for path in paths.values())
        and all(path.is_json for path in conditions)
        and not ("op" in paths and paths["op"].part is Part.AROUND)
    )


def _known(nodes: Int64s) -> Int64s:
    known: Int64s = nodes[nodes != NOWHERE]
    return known


def _bounds(texts: Sequence[bytes]) -> Int64s:
    """(n, 2): begin and end of each text, end to end; `NOWHERE` for one that is empty."""
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    bounds = np.stack([ends[:-1], ends[1:]], axis=1)
    bounds[[not text for text in texts]] = NOWHERE
    return bounds


def _default(field: Field, place: Place) -> float:
    if isinstance(place.value, float):
        return place.value
    return math.nan if field.default is None else field.default


class Messages(NamedTuple):
    """The messages of a run as columns; `known_at` is nanoseconds UTC, the rest as in `Run`."""

    data: Bytes = column(np.uint8)
    values: Int64s = column(np.int64, "bounds")
    keys: Int64s = column(np.int64, "bounds")
    known_at: Int64s = column(np.int64)


class ScannedTicks(NamedTuple):
    """Ticks as columns of length n, as of `ticks.columns.Ticks`."""

    record: Int64s = column(np.int64)
    index_in_message: Int32s = column(np.int32)
    keys: Int64s = column(np.int64, "keys", "bounds")
    raw: Int64s = column(np.int64, "bounds")
    tick_time: Int64s = column(np.int64)
    seq: Int64s = column(np.int64)
    op: Bytes = column(np.uint8)
    fields: Floats = column(np.float64, "fields")
    seq_text: Int64s = column(np.int64, "bounds")


class Scratch(NamedTuple):
    """What the pass notes for itself.

    `seen` has by node the number of the last object that had it, and at its end that of the last
    object; `following` by node the one that last came behind it, or first in it. `texts` is 1 once
    a `seq` of the run was text.
    """

    seen: Int64s
    following: Int64s
    texts: Int64s


class Scan(NamedTuple):
    """What the pass reads and fills; `constants` is where those of the source begin in the data."""

    messages: Messages
    constants: int
    layout: Layout
    ticks: ScannedTicks
    scratch: Scratch


class Scanned(NamedTuple):
    """What the pass took of a run, and the records whose messages are left, as a whole.

    `data` holds the texts of the ticks: the run's bytes, and constants behind them.
    """

    ticks: ScannedTicks
    left: Int64s
    passed_over: int
    data: Bytes


def _kind(value: bool | int | str) -> int:
    if isinstance(value, bool):
        return TRUE_VALUE if value else FALSE_VALUE
    return TEXT if isinstance(value, str) else INTEGER


def _constant(value: str | float | None) -> bytes:
    return value.encode() if isinstance(value, str) else b""


def _bytes(text: bytes) -> Bytes:
    return np.frombuffer(bytearray(text), np.uint8)


NOTHING = np.empty(0, np.int64)
SCAN = numba_type(
    Scan(
        allocate(Messages, 0, bounds=2),
        0,
        Layout.of(Source("", "", ("k",), ())),
        allocate(ScannedTicks, 0, keys=1, fields=1, bounds=2),
        Scratch(NOTHING, NOTHING, NOTHING),
    )
)
"""The type of the argument of compiled functions."""
