"""Postgres at one moment: watermarks, and of each entity its state and newest row.

Entities are read through cursors of the server, in pieces, so that memory does not grow with their
number. Numbers arrive as the bytes that Postgres stores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import numpy as np

from pipelines.compute.entity_state import EntityState, fill_of, tick_dtype
from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.connection import Database
from pipelines.stores.redis.restored_states import Restored
from registry.database.month_partitions import HOLD
from registry.definitions import Catalog, Source
from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from registry.resources import sql

ENTITIES = sql(__package__, "snapshot")

NAMES_A_PIECE = 5_000
"""Names of entities fetched at once."""

ARRAY_HEADER = 20
"""Bytes that `array_send` puts before the elements of a one-dimensional array."""

Packed = memoryview | bytes


class Snapshot:
    """One source and topic incarnation as the database had them when it was opened."""

    def __init__(self, cursor: Any, catalog: Catalog, source: Source, topic: Topic) -> None:
        self._cursor = cursor
        self._source = source
        self._topic_id = str(UUID(bytes=topic.topic_id))
        self._writing = catalog.writing[source.name]

    def partitions(self) -> int | None:
        """How many partitions the topic had when it was first stored, None if it never was."""
        self._cursor.execute(
            "SELECT partitions FROM tickwell.topics WHERE topic_id = %s::uuid", (self._topic_id,)
        )
        found = self._cursor.fetchone()
        return None if found is None else int(found[0])

    def watermark(self, partition: int) -> int | None:
        """The offset before which everything is stored, None if nothing is."""
        self._cursor.execute(
            "SELECT next_offset FROM tickwell.watermarks"
            " WHERE topic_id = %s::uuid AND partition = %s",
            (self._topic_id, partition),
        )
        found = self._cursor.fetchone()
        return None if found is None else int(found[0])

    def rules(self, partition: int) -> list[tuple[int, int]]:
        """The ids of the rules that began in a partition, each with its first offset."""
        self._cursor.execute(
            "SELECT rules_id, from_offset FROM tickwell.rules_starts"
            " WHERE topic_id = %s::uuid AND partition = %s ORDER BY rules_id",
            (self._topic_id, partition),
        )
        return [(int(rules_id), int(offset)) for rules_id, offset in self._cursor.fetchall()]

    def count(self, partitions: Collection[int]) -> int:
        """How many entities have their home in `partitions` or in another incarnation."""
        self._cursor.execute(
            "SELECT count(*) FROM tickwell.entities WHERE source = %s"
            " AND (topic_id <> %s::uuid OR partition = ANY (%s))",
            (self._source.name, self._topic_id, list(partitions)),
        )
        return int(self._cursor.fetchone()[0])

    def names(self) -> Iterator[list[str]]:
        """The names of all entities of the source, in pieces."""
        self._cursor.execute(
            "DECLARE names NO SCROLL CURSOR FOR"
            " SELECT entity FROM tickwell.entities WHERE source = %s",
            (self._source.name,),
        )
        for piece in self._pieces("names", NAMES_A_PIECE):
            yield [name for (name,) in piece]

    def entities(
        self, partition: int | None, history: int, a_piece: int
    ) -> Iterator[list[Restored]]:
        """The entities whose home is a partition, as they were at its watermark.

        With None, those whose home is in another incarnation of the topic. Of each entity at most
        `history` ticks are read, and its state counts these. A piece has at most `a_piece`
        entities.
        """
        before = 0 if partition is None else self.watermark(partition) or 0
        self._cursor.execute(
            ENTITIES,
            {
                "source": self._source.name,
                "topic_id": self._topic_id,
                "partition": partition,
                "before": before,
                "writing": self._writing,
                "history": history,
            },
        )
        fields = len(self._source.fields)
        for piece in self._pieces("entities", a_piece):
            yield [_restored(row, fields) for row in piece]

    def _pieces(self, cursor: str, size: int) -> Iterator[Sequence[Any]]:
        while True:
            self._cursor.execute(f"FETCH {size} FROM {cursor}")
            piece = self._cursor.fetchall()
            if not piece:
                break
            yield piece
        self._cursor.execute(f"CLOSE {cursor}")


@contextmanager
def snapshot(postgres: str, catalog: Catalog, source: Source, topic: Topic) -> Iterator[Snapshot]:
    """The database at `postgres` as it is now. Raises `StoreUnavailable`."""
    database = Database(postgres, "tickwell rebuild-online")
    try:
        with database.transaction() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute(HOLD)
            yield Snapshot(cursor, catalog, source, topic)
    finally:
        database.close()


def _restored(row: Sequence[Any], fields: int) -> Restored:
    entity, packed, schema_id, event_time, sequence, known_at, topic_id, *rest = row
    partition, offset, index, status, features = rest
    origin = Origin(UUID(topic_id).bytes, partition, offset, index)
    ticks, ops = _ticks(packed, fields)
    return Restored(
        entity=entity,
        state=EntityState(
            origin=origin,
            sequence=sequence,
            event_time=event_time,
            count=len(ticks),
            fill=fill_of(ops, bytes(status)),
            ticks=ticks,
        ),
        row=pack(
            Row(
                schema_id=schema_id,
                event_time=event_time,
                sequence=sequence,
                known_at=known_at,
                origin=origin,
                status=bytes(status),
                values=tuple(_doubles(features, len(status)).tolist()),
            )
        ),
    )


def _ticks(packed: Packed, fields: int) -> tuple[Any, Any]:
    """Ticks as Postgres sent them, as `tick_dtype`; and their ops."""
    sent = np.frombuffer(
        packed,
        np.dtype(
            [
                ("event_time", ">i8"),
                ("tick_time", ">i8"),
                ("seq", ">i8"),
                ("op", ">i2"),
                ("header", f"V{ARRAY_HEADER}"),
                ("fields", _ELEMENT, (fields,)),
            ]
        ),
    )
    ticks = np.empty(len(sent), tick_dtype(fields))
    for name in ("tick_time", "seq"):
        ticks[name] = sent[name]
    ticks["fields"] = sent["fields"]["value"]
    return ticks, sent["op"]


_ELEMENT = np.dtype([("size", ">i4"), ("value", ">f8")])


def _doubles(packed: Packed, n: int) -> Any:
    return np.frombuffer(packed, _ELEMENT, n, ARRAY_HEADER)["value"]
