"""The stored ticks that a backfill is of, entity by entity, each in the order of its log.

An entity's event time never falls, and of ticks of one event time the sequence counts: so both are
the order in which live took them, over all incarnations of the topic. What is read at once is
bounded in rows, whatever the number of ticks of an entity; where it ends within one, the ticks in
the windows of the next one are read once more. So going on and beginning again are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pipelines.compute.recomputation import AcceptedTicks
from pipelines.errors import StateOfOtherFields
from pipelines.runtime.array_types import Int64s
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.row_copy import CHUNK_BYTES, HEADER, TRAILER, array_of, sized
from registry.definitions import Source
from registry.formats.row import ValueStatus
from registry.lifecycle.backfills import Backfill
from registry.resources import sql

ENTITIES, READ_TICKS = sql(__package__, "entities"), sql(__package__, "read_ticks")
COPY = "COPY ({}) TO STDOUT (FORMAT binary)"

ROWS_A_PIECE = 131_072
"""Rows that a statement gives at most for each row schema: 13 MB."""

FIRST_ENTITIES, MOST_ENTITIES = 16, 4_096
"""Entities that the first statement reads, and that a later one reads at most."""

BEFORE_ALL = -(2**63)
"""A time before that of every tick."""


class Position(NamedTuple):
    """How far a backfill has come: to a tick of an entity, or to its end where there is no time."""

    entity: str | None
    event_time: int | None = None
    sequence: int | None = None


BEGIN = Position(None)


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


class StoredTicks:
    """Reads the ticks of a backfill by a connection of its own; one thread at a time.

    `schemas` are those of `registry.lifecycle.backfills.schemas_to_read`, and `before` the ticks
    that are in the window of the next one.
    """

    def __init__(
        self,
        database: Database,
        source: Source,
        backfill: Backfill,
        schemas: Mapping[int, bool],
        before: int,
        rows_a_piece: int = ROWS_A_PIECE,
    ) -> None:
        self._database = database
        self._source = source
        self._dtype = _row(len(source.fields))
        self._schemas = schemas
        self._lacking = np.array([one for one, lacks in schemas.items() if lacks], np.int64)
        self._before = before
        self._rows_a_piece = rows_a_piece
        self._many = FIRST_ENTITIES
        self._ends: dict[tuple[str, int], int] = {}
        for one in backfill.ranges:
            where = str(UUID(bytes=one.topic_id)), one.partition
            self._ends[where] = max(one.end, self._ends.get(where, 0))

    def read(self, position: Position) -> Piece | None:
        """The piece behind a position; None where there is no entity any more.

        Raises `StoreUnavailable` and `StateOfOtherFields`.
        """
        within = position.event_time is not None
        names, homes = self._entities(position, self._many - within)
        if not names:
            return None
        after = [(BEFORE_ALL, 0)] * len(names)
        if position.event_time is not None and position.sequence is not None:
            after[0] = position.event_time, position.sequence
        most = max(1, self._rows_a_piece // len(names))
        rows = self._rows(
            {
                "entities": names,
                "topics": [topic for topic, _ in homes],
                "ends": [self._ends.get(home, 0) for home in homes],
                "after_times": [time for time, _ in after],
                "after_sequences": [sequence for _, sequence in after],
                "schemas": list(self._schemas),
                "before": self._before if within else 0,
                "most": most,
                "closed": bytes([ValueStatus.CLOSED]),
            }
        )
        found = _Rows(rows, after[0] if within else None)
        cut = found.cut(most)
        if cut is None:
            following = Position(names[-1])
        else:
            following = Position(names[cut.place], cut.event_time, cut.sequence)
            names = names[: cut.place + 1]
        self._many = self._next_many(found, len(names))
        return found.piece(names, self._lacking, self._before, following)

    def _entities(self, position: Position, many: int) -> tuple[list[str], list[tuple[str, int]]]:
        """The next entities, with the one within which the position is, and their homes."""
        wanted = {"source": self._source.name, "after": position.entity, "many": many}
        with self._database.transaction() as cursor:
            found = []
            if position.event_time is not None:
                cursor.execute(
                    "SELECT entity, topic_id::text, partition FROM tickwell.entities"
                    " WHERE source = %s AND entity = %s",
                    (self._source.name, position.entity),
                )
                found += cursor.fetchall()
            if many > 0:
                cursor.execute(ENTITIES, wanted)
                found += cursor.fetchall()
        return [entity for entity, _, _ in found], [(str(t), int(p)) for _, t, p in found]

    def _rows(self, wanted: Mapping[str, Any]) -> Any:
        sent = BytesIO()
        with self._database.transaction() as cursor:
            statement = cursor.mogrify(READ_TICKS, wanted).decode()
            cursor.copy_expert(COPY.format(statement), sent, CHUNK_BYTES)
        data = sent.getbuffer()[len(HEADER) : -len(TRAILER)]
        whole, rest = divmod(len(data), self._dtype.itemsize)
        rows = np.frombuffer(data, self._dtype, whole)
        fields = len(self._source.fields)
        if rest or (rows["fields_length"] != fields).any():
            raise StateOfOtherFields(
                self._source.name,
                f"rows in Postgres have ticks with another number of fields than the {fields} of "
                f"{self._source.name}",
            )
        return rows

    def _next_many(self, found: _Rows, entities: int) -> int:
        """How many entities to read next, so that the longest of them is not cut."""
        fit = self._rows_a_piece // (2 * max(1, found.longest()))
        return max(1, min(fit, 2 * max(entities, self._many), MOST_ENTITIES))


class _Cut(NamedTuple):
    """The last tick that is known to be followed by no other one that was not read."""

    place: int
    event_time: int
    sequence: int


class _Rows:
    """Rows as they were read, of the entities with the indexes `place`."""

    def __init__(self, rows: Any, after: tuple[int, int] | None) -> None:
        place = rows["place"].astype(np.int64) - 1
        time, sequence = rows["event_time"].astype(np.int64), rows["sequence"].astype(np.int64)
        schema = rows["schema_id"].astype(np.int64)
        if not _is_in_order(place, time, sequence):
            order = np.lexsort((schema, sequence, time, place))
            place, time, sequence = place[order], time[order], sequence[order]
            rows, schema = rows[order], schema[order]
        self._rows, self._place, self._schema = rows, place, schema
        self._time, self._sequence = time, sequence
        self._earlier = 0
        """Rows of ticks that are computed already; those of the first entity come first."""
        if after is not None:
            first = int(np.searchsorted(place, 1))
            earlier = (time[:first] < after[0]) | (
                (time[:first] == after[0]) & (sequence[:first] <= after[1])
            )
            self._earlier = int(earlier.sum())

    def longest(self) -> int:
        """The rows of the entity that has the most."""
        return int(np.bincount(self._place).max()) if len(self._place) else 0

    def cut(self, most: int) -> _Cut | None:
        """Where to stop if there may be more ticks than were read, and forget what is behind it."""
        place, schema = self._place[self._earlier :], self._schema[self._earlier :]
        if len(place) < most:
            return None
        group = place * (int(schema.max()) + 1) + schema
        counts = np.bincount(group)
        full = np.flatnonzero(counts >= most)
        if not len(full):
            return None
        first = int(full[0] // (int(schema.max()) + 1))
        ends = [
            self._earlier + int(np.flatnonzero(group == each)[-1])
            for each in full
            if each // (int(schema.max()) + 1) == first
        ]
        keys = [(int(self._time[end]), int(self._sequence[end])) for end in ends]
        time, sequence = min(keys)
        kept = (self._place < first) | (
            (self._place == first)
            & ((self._time < time) | ((self._time == time) & (self._sequence <= sequence)))
        )
        self._keep(kept)
        return _Cut(first, time, sequence)

    def piece(
        self, names: Sequence[str], lacking: Int64s, before: int, following: Position
    ) -> Piece:
        """One tick for each that is there, in however many row schemas it is."""
        lacks = np.isin(self._schema, lacking)
        starts = np.flatnonzero(~_is_same(self._place, self._time, self._sequence))
        earlier = self._earlier
        if len(starts) < len(lacks):
            lacks = np.logical_or.reduceat(lacks, starts) if len(starts) else lacks
            earlier = int((starts < earlier).sum())
            self._keep(starts)
        surplus = max(0, earlier - before)
        if surplus:  # each row schema gave so many as are needed of all
            lacks, earlier = lacks[surplus:], earlier - surplus
            self._keep(slice(surplus, None))
        lacks[:earlier] = False
        closed = np.zeros(len(names), np.bool_)
        if earlier:
            closed[0] = bool(self._rows["closed"][0])
        ticks = AcceptedTicks(
            entity=self._place.astype(np.int32),
            op=self._rows["op"].astype(np.uint8),
            fields=self._rows["fields"]["value"].astype(np.float64),
            closed=closed,
        )
        done = len(names) - (following.event_time is not None)
        computed = np.flatnonzero(lacks)
        return Piece(names, ticks, self._time, self._sequence, computed, following, done)

    def _keep(self, which: Any) -> None:
        self._rows, self._place, self._schema = (
            self._rows[which],
            self._place[which],
            self._schema[which],
        )
        self._time, self._sequence = self._time[which], self._sequence[which]


def _is_in_order(place: Int64s, time: Int64s, sequence: Int64s) -> bool:
    """Whether rows are in the order of entities and ticks, each tick being one row."""
    ahead = place[1:] > place[:-1]
    same = place[1:] == place[:-1]
    ahead |= same & (time[1:] > time[:-1])
    ahead |= same & (time[1:] == time[:-1]) & (sequence[1:] > sequence[:-1])
    return bool(ahead.all())


def _is_same(place: Int64s, time: Int64s, sequence: Int64s) -> NDArray[np.bool_]:
    """Of each row whether it is of the tick of the row before."""
    same = np.zeros(len(place), np.bool_)
    same[1:] = (place[1:] == place[:-1]) & (time[1:] == time[:-1]) & (sequence[1:] == sequence[:-1])
    return same


def _row(fields: int) -> np.dtype[np.void]:
    """A row of `read_ticks.sql` in PostgreSQL's binary COPY format."""
    return np.dtype(
        [
            ("columns", ">i2"),
            *sized("place", ">i4"),
            *sized("schema_id", ">i4"),
            *sized("event_time", ">i8"),
            *sized("sequence", ">i8"),
            *sized("op", ">i2"),
            *sized("closed", "?"),
            *array_of("fields", fields),
        ]
    )
