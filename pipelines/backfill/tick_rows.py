"""Rows of ticks as they were read, made into one tick each, in the order of its entity's log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.backfill.copied_ticks import CopiedTicks
from pipelines.compute.recomputation import AcceptedTicks
from pipelines.runtime.array_types import Bytes, Floats, Int64s

FIRST_ENTITIES = 1
"""Entities that the first statement reads: nobody knows yet how many ticks one has."""


class Position(NamedTuple):
    """How far a backfill has come: to a tick of an entity, or to its end where there is no time.

    All ticks of live come first, then those that were loaded, `of_loads`.
    """

    entity: str | None
    event_time: int | None = None
    sequence: int | None = None
    of_loads: bool = False

    def behind(self, entity: str) -> Position:
        """The end of an entity, of ticks of the same kind."""
        return Position(entity, of_loads=self.of_loads)


class Piece(NamedTuple):
    """Ticks of some entities, to be computed in one go.

    `computed` are those that the version lacks, by their index: the others are there to be in
    windows. `following` is where the next piece begins, and `entities` how many end in this one.
    """

    names: Sequence[str]
    ticks: AcceptedTicks
    event_time: Int64s
    sequence: Int64s
    computed: Int64s
    following: Position
    entities: int
    many: int = FIRST_ENTITIES
    """How many entities to read next."""


class Cut(NamedTuple):
    """The last tick that is known to be followed by no other one that was not read."""

    place: int
    event_time: int
    sequence: int


class TickRows:
    """Ticks as they were read; `place` is the index of an entity, `schema` of one of n row schemas.

    `earlier` are ticks of the first entity that are computed already, as `read_earlier.sql` gives
    them.
    """

    def __init__(self, ticks: CopiedTicks, schemas: int, earlier: Any) -> None:
        self._schemas = schemas
        columns = _Columns(
            place=ticks.number // schemas,
            schema=ticks.number % schemas,
            event_time=ticks.event_time,
            sequence=ticks.sequence,
            op=ticks.op,
            value=ticks.value,
            closed=np.zeros(len(ticks.number), np.bool_),
        )
        self._earlier = 0 if earlier is None else len(earlier)
        if self._earlier:
            columns = _earlier_columns(earlier).followed_by(columns)
        if not _is_in_order(columns):
            order = np.lexsort(
                (columns.schema, columns.sequence, columns.event_time, columns.place)
            )
            columns = columns.only(order)
        self._columns = columns

    def longest(self) -> int:
        """The rows of the entity that has the most."""
        place = self._columns.place
        return int(np.bincount(place).max()) if len(place) else 0

    def cut(self, most: int) -> Cut | None:
        """Where to stop if there may be more ticks than were read, and forget what is behind it."""
        columns, n, earlier = self._columns, self._schemas, self._earlier
        group = columns.place[earlier:] * n + columns.schema[earlier:]
        if len(group) < most:
            return None
        full = np.flatnonzero(np.bincount(group) >= most)
        if not len(full):
            return None
        place = int(full[0]) // n
        ends = [earlier + int(np.flatnonzero(group == each)[-1]) for each in full]
        time, sequence = min(
            (int(columns.event_time[end]), int(columns.sequence[end]))
            for each, end in zip(full, ends, strict=True)
            if each // n == place
        )
        kept = (columns.place < place) | (
            (columns.place == place)
            & (
                (columns.event_time < time)
                | ((columns.event_time == time) & (columns.sequence <= sequence))
            )
        )
        self._columns = columns.only(kept)
        return Cut(place, time, sequence)

    def piece(self, names: Sequence[str], lacks: Any, before: int, following: Position) -> Piece:
        """One tick for each that is there, in however many row schemas it is.

        `lacks` says of each row schema whether its ticks are to be computed.
        """
        columns, earlier = self._columns, self._earlier
        computed = lacks[columns.schema]
        starts = np.flatnonzero(~_is_same(columns))
        if len(starts) < len(computed):
            computed = np.logical_or.reduceat(computed, starts)
            earlier = int((starts < earlier).sum())
            columns = columns.only(starts)
        surplus = max(0, earlier - before)
        if surplus:  # each row schema gave so many as are needed of all
            computed, earlier = computed[surplus:], earlier - surplus
            columns = columns.only(slice(surplus, None))
        computed[:earlier] = False
        closed = np.zeros(len(names), np.bool_)
        if earlier:
            closed[0] = columns.closed[0]
        ticks = AcceptedTicks(columns.place.astype(np.int32), columns.op, columns.value, closed)
        done = len(names) - (following.event_time is not None)
        which = np.flatnonzero(computed)
        return Piece(names, ticks, columns.event_time, columns.sequence, which, following, done)


class _Columns(NamedTuple):
    """The columns of rows."""

    place: Int64s
    schema: Int64s
    event_time: Int64s
    sequence: Int64s
    op: Bytes
    value: Floats
    closed: NDArray[np.bool_]

    def only(self, which: Any) -> _Columns:
        return _Columns(*(column[which] for column in self))

    def followed_by(self, others: _Columns) -> _Columns:
        pairs: Iterable[tuple[Any, Any]] = zip(self, others, strict=True)
        return _Columns(*(np.concatenate(pair) for pair in pairs))


def _earlier_columns(rows: Any) -> _Columns:
    return _Columns(
        place=np.zeros(len(rows), np.int64),
        schema=rows["number"].astype(np.int64) - 1,
        event_time=rows["event_time"].astype(np.int64),
        sequence=rows["sequence"].astype(np.int64),
        op=rows["op"].astype(np.uint8),
        value=rows["value"].astype(np.float64),
        closed=rows["closed"].astype(np.bool_),
    )


def _is_in_order(columns: _Columns) -> bool:
    """Whether rows are in the order of entities and ticks, each tick being one row."""
    place, time, sequence = columns.place, columns.event_time, columns.sequence
    same = place[1:] == place[:-1]
    ahead = place[1:] > place[:-1]
    ahead |= same & (time[1:] > time[:-1])
    ahead |= same & (time[1:] == time[:-1]) & (sequence[1:] > sequence[:-1])
    return bool(ahead.all())


def _is_same(columns: _Columns) -> NDArray[np.bool_]:
    """Of each row whether it is of the tick of the row before."""
    same = np.zeros(len(columns.place), np.bool_)
    same[1:] = True
    for column in (columns.place, columns.event_time, columns.sequence):
        same[1:] &= column[1:] == column[:-1]
    return same
