"""The stored ticks that a backfill is of, entity by entity, each in the order of its log.

An entity's event time never falls, and of ticks of one event time the sequence counts: so both are
the order in which live took them, over all incarnations of the topic. What is read at once is
bounded in rows, whatever the number of ticks of an entity; where it ends within one, the ticks in
the windows of the next one are read once more. So going on and beginning again are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from io import BytesIO
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from pipelines.backfill.copied_ticks import OP_BITS, copied_ticks
from pipelines.backfill.tick_rows import FIRST_ENTITIES, Piece, Position, TickRows
from pipelines.errors import StateOfOtherFields
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.row_copy import CHUNK_BYTES, HEADER, TRAILER, sized
from registry.definitions import Source
from registry.formats.row import ValueStatus
from registry.lifecycle.backfills import Backfill
from registry.resources import sql

ENTITIES, READ_TICKS = sql(__package__, "entities"), sql(__package__, "read_ticks")
READ_EARLIER = sql(__package__, "read_earlier")
IN_KEY_ORDER = sql(__package__, "in_key_order")
REPLAYED_BEYOND = sql(__package__, "replayed_beyond")
COPY = "COPY ({}) TO STDOUT (FORMAT binary)"

ROWS_A_PIECE = 262_144
"""Rows that a statement gives at most for each row schema: 9 MB."""

MOST_ENTITIES = 4_096
"""Entities that a statement reads at most."""

BEFORE_ALL = -(2**63)
"""A time before that of every tick."""


class Planned(NamedTuple):
    """Entities whose ticks behind a position are to be read, with the topics of their homes.

    Of its home an entity has the ticks before the offset `ends`.
    """

    position: Position
    names: Sequence[str]
    topics: Sequence[str]
    ends: Sequence[int]


class Wanted(NamedTuple):
    """Of which ticks a backfill is, and what it needs of them.

    `schemas` are those of `registry.lifecycle.backfills.schemas_to_read`, `field` is an index of
    those of `source`, and `before` the number of ticks that are in the window of the next one.
    """

    source: Source
    backfill: Backfill
    schemas: Mapping[int, bool]
    field: int
    before: int
    of_loads: bool = False
    """Whether the ticks are those that were loaded; all of them count then."""


class StoredTicks:
    """Reads the ticks of a backfill by a connection of its own; one thread at a time."""

    def __init__(
        self, database: Database, wanted: Wanted, rows_a_piece: int = ROWS_A_PIECE
    ) -> None:
        self._database = database
        self._wanted = wanted
        self._schemas = np.array(list(wanted.schemas), np.int64)
        self._lacks = np.array(list(wanted.schemas.values()), np.bool_)
        self._rows_a_piece = rows_a_piece
        self._ends: dict[tuple[str, int], int] = {}
        for one in wanted.backfill.ranges:
            where = str(UUID(bytes=one.topic_id)), one.partition
            self._ends[where] = max(one.end, self._ends.get(where, 0))
        self._of_field = {"fields": len(wanted.source.fields), "field": wanted.field + 1}
        self._all: bool | None = True if wanted.of_loads else None

    def plan(self, position: Position, many: int) -> Planned | None:
        """What to read behind a position; None where there is no entity any more.

        Raises `StoreUnavailable`.
        """
        within = position.event_time is not None
        names, homes = self._entities(position, many - within)
        if not names:
            return None
        ends = [self._ends.get(home, 0) for home in homes]
        return Planned(position, names, [topic for topic, _ in homes], ends)

    def read(self, planned: Planned) -> Piece:
        """The ticks of what was planned, or the first ones of them where there are many.

        Raises `StoreUnavailable` and `StateOfOtherFields`.
        """
        position, names, n = planned.position, planned.names, len(self._schemas)
        most = max(1, self._rows_a_piece // len(names))
        after, earlier = [(BEFORE_ALL, 0)] * len(names), None
        with self._database.transaction() as cursor:
            if self._all is None:
                self._all = not self._is_replayed_beyond(cursor)
            if position.event_time is not None and position.sequence is not None:
                after[0] = position.event_time, position.sequence
                earlier = self._earlier(cursor, planned)
            cursor.execute(IN_KEY_ORDER)
            copied = self._copied(
                cursor,
                READ_TICKS,
                {
                    "entities": [name for name in names for _ in range(n)],
                    "schemas": self._schemas.tolist() * len(names),
                    "topics": [topic for topic in planned.topics for _ in range(n)],
                    "ends": [end for end in planned.ends for _ in range(n)],
                    "after_times": [time for time, _ in after for _ in range(n)],
                    "after_sequences": [sequence for _, sequence in after for _ in range(n)],
                    "most": most,
                    "all": self._all,
                    "whole": position.event_time is None,
                    "op_bits": OP_BITS,
                },
            )
        ticks = copied_ticks(copied)
        if ticks is None:
            raise self._other_fields()
        found = TickRows(ticks, n, earlier)
        cut = found.cut(most)
        if cut is None:
            following = position.behind(names[-1])
        else:
            following = position._replace(
                entity=names[cut.place], event_time=cut.event_time, sequence=cut.sequence
            )
            names = names[: cut.place + 1]
        # so many that the longest of them would not be cut
        fit = self._rows_a_piece // (2 * max(1, found.longest()))
        many = max(1, min(fit, 2 * len(names) + 2, MOST_ENTITIES))
        return found.piece(names, self._lacks, self._wanted.before, following)._replace(many=many)

    def _entities(self, position: Position, many: int) -> tuple[list[str], list[tuple[str, int]]]:
        """The next entities, with the one within which the position is, and their homes."""
        wanted = {"source": self._wanted.source.name, "after": position.entity, "many": many}
        with self._database.transaction() as cursor:
            found = []
            if position.event_time is not None:
                cursor.execute(
                    "SELECT entity, topic_id::text, partition FROM tickwell.entities"
                    " WHERE source = %s AND entity = %s",
                    (self._wanted.source.name, position.entity),
                )
                found += cursor.fetchall()
            if many > 0:
                cursor.execute(ENTITIES, wanted)
                found += cursor.fetchall()
        return [entity for entity, _, _ in found], [(str(t), int(p)) for _, t, p in found]

    def _earlier(self, cursor: Any, planned: Planned) -> Any:
        """The ticks of the first entity that are computed, as far as they are in windows."""
        wanted = {
            "entity": planned.names[0],
            "topic": planned.topics[0],
            "end": planned.ends[0],
            "schemas": self._schemas.tolist(),
            "time": planned.position.event_time,
            "sequence": planned.position.sequence,
            "before": self._wanted.before,
            "closed": bytes([ValueStatus.CLOSED]),
            "all": self._all,
        }
        data = self._copied(cursor, READ_EARLIER, wanted)[len(HEADER) : -len(TRAILER)]
        whole, rest = divmod(len(data), EARLIER_TICK.itemsize)
        rows = np.frombuffer(data, EARLIER_TICK, whole)
        if rest or (rows["value_size"] != 8).any():
            raise self._other_fields()
        return rows

    def _copied(self, cursor: Any, statement: str, wanted: Mapping[str, Any]) -> memoryview:
        sent = BytesIO()
        made = cursor.mogrify(statement, {**wanted, **self._of_field}).decode()
        cursor.copy_expert(COPY.format(made), sent, CHUNK_BYTES)
        return sent.getbuffer()

    def _other_fields(self) -> StateOfOtherFields:
        name, fields = self._wanted.source.name, len(self._wanted.source.fields)
        return StateOfOtherFields(
            name,
            f"rows in Postgres have ticks with another number of fields than the {fields} of "
            f"{name}",
        )

    def _is_replayed_beyond(self, cursor: Any) -> bool:
        wanted = {
            "topics": [topic for topic, _ in self._ends],
            "partitions": [partition for _, partition in self._ends],
            "ends": list(self._ends.values()),
        }
        cursor.execute(REPLAYED_BEYOND, wanted)
        return bool(cursor.fetchone()[0])


def pieces(readers: Sequence[StoredTicks], position: Position) -> Iterator[Piece]:
    """The pieces behind a position, one after the other; the next ones are read meanwhile.

    While an entity is so long that it is cut, the next piece is known only after the one before,
    so one is read at a time.
    """
    following: Position | None = position
    free, waiting = deque(readers), deque[tuple[Future[Piece], StoredTicks]]()
    many, is_cut = FIRST_ENTITIES, False
    with ThreadPoolExecutor(len(readers), "backfill") as pool:
        piece: Piece | None = None
        while True:
            while free and following is not None and not (waiting and is_cut):
                planned = free[0].plan(following, many)
                if planned is None:
                    following = None
                    break
                waiting.append((pool.submit(free[0].read, planned), free.popleft()))
                following = position.behind(planned.names[-1])
            if piece is not None:
                yield piece
            if not waiting:
                return
            reading, reader = waiting.popleft()
            piece = reading.result()
            free.append(reader)
            many, is_cut = piece.many, piece.following.event_time is not None
            if is_cut:
                for reading, reader in waiting:
                    wait([reading])
                    free.append(reader)
                waiting.clear()
                following = piece.following


_EARLIER_TICK: list[Any] = [
    ("columns", ">i2"),
    *sized("number", ">i8"),
    *sized("event_time", ">i8"),
    *sized("sequence", ">i8"),
    *sized("op", ">i2"),
    *sized("value", ">f8"),
    *sized("closed", "?"),
]
EARLIER_TICK = np.dtype(_EARLIER_TICK)
"""A row of `read_earlier.sql` in PostgreSQL's binary COPY format."""
