"""A batch as the bytes that Redis keeps (`registry.formats`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.compute.batch import Batch
from pipelines.compute.entity_state import EntityState, tick_dtype
from pipelines.errors import StateOfOtherFields
from registry.definitions import Source
from registry.formats.layout import Field, Layout
from registry.formats.origin import Origin
from registry.formats.redis_keys import SEPARATOR, members_key, row_key, state_key
from registry.formats.row import LAYOUT_VERSION, row_layout
from registry.formats.state import MARK, STATE_HEADER

COUNT = Layout(Field("count", "i8"))


@dataclass(frozen=True, slots=True)
class Restored:
    """An entity as another store knows it: its state, and its newest row (`formats.row`)."""

    entity: str
    state: EntityState
    row: bytes


class Writes:
    """What to write of each entity of a batch, as bytes cut from whole columns."""

    def __init__(self, batch: Batch, history: int) -> None:
        self._batch = batch
        self._history = history
        ticks, self.tick_bytes = _ticks(batch)
        order = np.argsort(batch.name, kind="stable")
        ends = np.searchsorted(batch.name[order], np.arange(len(batch.names)), "right")
        starts = np.concatenate([[0], ends])[:-1]
        newest = order[ends - 1] if len(batch.names) else order
        self._sorted_ticks = ticks[order].tobytes()
        self._rows, self._row_bytes = _rows(batch, newest)
        # how many the ring holds depends on how many it held: the script adds what was there
        self._headers = _headers(batch, newest, history, self.tick_bytes, ends - starts)
        # by place: where the entity's ticks begin and end among the sorted ones, the first's number
        self._starts, self._ends = starts.tolist(), ends.tolist()
        self._first = batch.ordinal[order[starts]].tolist() if len(batch.names) else []

    def add(self, place: int, keys: list[str], arguments: list[Any]) -> None:
        """Append the keys and arguments of the entity at `place` in the batch's names."""
        batch, size = self._batch, STATE_HEADER.size
        row = self._rows[place * self._row_bytes : (place + 1) * self._row_bytes]
        header = self._headers[place * size : (place + 1) * size]
        expected = batch.expected[place]
        if expected:
            expected = identity(expected, self._first[place])
        pieces = list(self._pieces(place))
        entity, source = batch.names[place], batch.source.name
        _append(keys, arguments, source, entity, expected, header, row, pieces)

    def _pieces(self, place: int) -> Iterator[tuple[int, bytes]]:
        """The entity's ticks as (offset in the state, bytes); two pieces where the ring wraps."""
        start, end = self._starts[place], self._ends[place]
        passed_over = max(0, end - start - self._history)
        start += passed_over
        first = self._first[place] + passed_over
        for begin, stop, at in _ring(first, end - start, self._history):
            size = self.tick_bytes
            ticks = self._sorted_ticks[(start + begin) * size : (start + stop) * size]
            yield STATE_HEADER.size + at * size, ticks


def append_restored(
    keys: list[str],
    arguments: list[Any],
    source: Source,
    restored: Restored,
    below: EntityState | None,
    history: int,
) -> None:
    """Append what the script takes to put a state in the place of the one `below`."""
    state = restored.state
    n, size = len(state.ticks), state.ticks.itemsize
    origin = state.origin
    header = STATE_HEADER.struct.pack(
        *(origin.topic_id, origin.partition, origin.offset, origin.index),
        *(state.sequence, state.count, state.fill),
        *(MARK, history, size, -n),
    )
    ticks = state.ticks.tobytes()
    pieces = [
        (STATE_HEADER.size + at * size, ticks[begin * size : stop * size])
        for begin, stop, at in _ring(state.count - n, n, history)
    ]
    expected = b"" if below is None else identity(below.origin.pack(), below.count)
    entity = restored.entity
    _append(keys, arguments, source.name, entity, expected, header, restored.row, pieces)


def identity(origin: bytes, count: int) -> bytes:
    """What the script knows a state by.

    The origin alone would not do: a state that was rebuilt from Postgres has the same one, and its
    ticks in other places of the ring.
    """
    return origin + COUNT.struct.pack(count)


def _append(
    keys: list[str],
    arguments: list[Any],
    source: str,
    entity: str,
    expected: bytes,
    header: bytes,
    row: bytes,
    pieces: Sequence[tuple[int, bytes]],
) -> None:
    """Append what the script takes of one entity."""
    message_key, _, member = entity.partition(SEPARATOR)
    keys += (state_key(source, entity), row_key(source, entity), members_key(source, message_key))
    arguments += (expected, header, row, member, len(pieces))
    for piece in pieces:
        arguments += piece


def _ring(first: int, n: int, history: int) -> Iterator[tuple[int, int, int]]:
    """Where `n` ticks from number `first` on go: (begin, stop) of them to a place of the ring."""
    at = first % history
    wrap = min(n, history - at)
    for begin, stop, place in ((0, wrap, at), (wrap, n, 0)):
        if stop > begin:
            yield begin, stop, place


def _ticks(batch: Batch) -> tuple[Any, int]:
    """The accepted ticks as a column of `tick_dtype`, and the size of one."""
    dtype = tick_dtype(len(batch.source.fields))
    ticks = np.empty(len(batch), dtype)
    ticks["event_time"] = batch.event_time
    ticks["tick_time"] = batch.tick_time
    ticks["seq"] = batch.seq
    ticks["fields"] = batch.fields
    return ticks, dtype.itemsize


def _headers(batch: Batch, newest: Any, history: int, tick_bytes: int, added: Any) -> bytes:
    """`STATE_HEADER` of each entity, end to end; `newest` are the places of their newest ticks."""
    headers = np.empty(len(newest), STATE_HEADER.dtype)
    headers["topic_id"] = np.void(batch.run.topic_id)
    headers["partition"] = batch.run.partition
    headers["offset"] = batch.offset[newest]
    headers["index"] = batch.index[newest]
    headers["sequence"] = batch.sequence[newest]
    headers["count"] = batch.ordinal[newest] + 1
    headers["fill"] = batch.fill
    headers["mark"] = np.void(MARK)
    headers["room"] = history
    headers["tick_bytes"] = tick_bytes
    headers["held"] = added
    return headers.tobytes()


def _rows(batch: Batch, places: Any) -> tuple[bytes, int]:
    """The rows at `places` as `formats.row.pack` makes them, end to end, and the size of one."""
    layout = row_layout(len(batch.schema.features))
    rows = np.empty(len(places), layout.dtype)
    rows["layout_version"] = LAYOUT_VERSION
    rows["schema_id"] = batch.schema.id
    rows["event_time"] = batch.event_time[places]
    rows["sequence"] = batch.sequence[places]
    rows["known_at"] = batch.known_at[places]
    rows["topic_id"] = np.void(batch.run.topic_id)
    rows["partition"] = batch.run.partition
    rows["offset"] = batch.offset[places]
    rows["index"] = batch.index[places]
    rows["status"] = batch.status[places]
    rows["values"] = batch.features[places]
    return rows.tobytes(), layout.size


def unpack_state(packed: bytes, source: Source, entity: str, depth: int) -> EntityState:
    """The state of a header and the `depth` newest ticks, oldest first, as `load.lua` gives them.

    Windows see no further back than the ring: when it was kept shorter until now, those that need
    more than it holds fill up first. Raises `StateOfOtherFields`.
    """
    dtype = tick_dtype(len(source.fields))
    header = STATE_HEADER.struct.unpack_from(packed)
    *origin, sequence, count, fill, _, _, tick_bytes, _ = header
    if tick_bytes != dtype.itemsize:
        raise StateOfOtherFields(source.name, entity, tick_bytes, dtype.itemsize)
    ticks = np.frombuffer(packed, dtype, offset=STATE_HEADER.size)
    return EntityState(
        origin=Origin(*origin),
        sequence=sequence,
        count=count,
        fill=fill if len(ticks) == depth else min(fill, len(ticks)),
        ticks=ticks,
    )
