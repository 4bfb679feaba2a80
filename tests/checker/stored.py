"""What Postgres holds of one topic incarnation, streamed in the order of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from tests.oracle.features import Origin

AT_ONCE = 5_000
OPERATIONS = {"trade": 0, "reset": 1, "close": 2}
"""The column `op`."""

ROWS = """\
SELECT partition, "offset", index, schema_id, revision, entity, event_time, sequence, tick_time,
    seq, op, fields, features, status, known_at, seq_text
FROM tickwell.feature_rows WHERE topic_id = %s::uuid AND schema_id > 0
ORDER BY partition, "offset", index, schema_id, revision, event_time, sequence
"""
REJECTED = """\
SELECT partition, "offset", index, reason, key, value, known_at
FROM tickwell.rejected_ticks WHERE topic_id = %s::uuid
ORDER BY partition, "offset", index
"""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of `feature_rows`; `status` is a byte a feature."""

    origin: Origin
    schema: int
    revision: int
    entity: str
    event_time: int
    sequence: int
    tick_time: int
    seq: int | None
    op: int
    fields: Sequence[float]
    features: Sequence[float]
    status: bytes
    known_at: int
    seq_text: str | None


@dataclass(frozen=True, slots=True)
class StoredRejection:
    """A row of `rejected_ticks`."""

    origin: Origin
    reason: str
    key: bytes | None
    value: bytes | None
    known_at: int


def stored_rows(connection: Any, topic_id: bytes) -> Iterator[StoredRow]:
    for row in _stream(connection, ROWS, topic_id):
        columns = [*row[3:13], bytes(row[13]), *row[14:]]
        yield StoredRow(row[:3], *columns)


def stored_rejections(connection: Any, topic_id: bytes) -> Iterator[StoredRejection]:
    for row in _stream(connection, REJECTED, topic_id):
        partition, offset, index, reason, key, value, known_at = row
        yield StoredRejection(
            (partition, offset, index), reason, _bytes(key), _bytes(value), known_at
        )


def homes(connection: Any, source: str, topic_id: bytes) -> Mapping[str, int]:
    """The partition that each entity is at home in, by entity's name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT entity, partition FROM tickwell.entities"
            " WHERE source = %s AND topic_id = %s::uuid",
            (source, str(UUID(bytes=topic_id))),
        )
        return dict(cursor.fetchall())


def partitions(connection: Any, topic_id: bytes) -> int | None:
    """How many partitions the topic had when it was first read, None for one never read."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT partitions FROM tickwell.topics WHERE topic_id = %s::uuid",
            (str(UUID(bytes=topic_id)),),
        )
        return next((number for (number,) in cursor), None)


def watermarks(connection: Any, topic_id: bytes) -> Mapping[int, int]:
    """The next offset of each partition."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT partition, next_offset FROM tickwell.watermarks WHERE topic_id = %s::uuid",
            (str(UUID(bytes=topic_id)),),
        )
        return dict(cursor.fetchall())


def rows_of_other_topics(connection: Any, topic_ids: Sequence[bytes]) -> Sequence[tuple[str, int]]:
    """(topic id, rows) of incarnations that are not among `topic_ids`, without loaded rows.

    Those are in the negative of their row schema.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic_id::text, count(*) FROM tickwell.feature_rows"
            " WHERE NOT topic_id = ANY (%s::uuid[]) AND schema_id > 0 GROUP BY 1",
            ([str(UUID(bytes=topic_id)) for topic_id in topic_ids],),
        )
        return list(cursor.fetchall())


class Placed(Protocol):
    @property
    def origin(self) -> Origin: ...


S = TypeVar("S", bound=Placed)


class InOrder(Generic[S]):
    """Stored things in the order of their origins, taken as the log is walked."""

    def __init__(self, things: Iterator[S]) -> None:
        self._things = things
        self._next = next(things, None)

    def before(self, origin: Origin | None) -> Iterator[S]:
        """Those before an origin, all of them for None."""
        while self._next is not None and (origin is None or self._next.origin < origin):
            yield self._take()

    def at(self, origin: Origin) -> list[S]:
        """Those at an origin; those before it must have been taken."""
        found = []
        while self._next is not None and self._next.origin == origin:
            found.append(self._take())
        return found

    def _take(self) -> S:
        assert self._next is not None
        taken, self._next = self._next, next(self._things, None)
        return taken


def _stream(connection: Any, query: str, topic_id: bytes) -> Iterator[Any]:
    """The rows of a query, a few thousand at a time; the connection is in a transaction."""
    with connection.cursor(name=f"checker_{id(query)}") as cursor:
        cursor.itersize = AT_ONCE
        cursor.execute(query, (str(UUID(bytes=topic_id)),))
        yield from cursor


def _bytes(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
