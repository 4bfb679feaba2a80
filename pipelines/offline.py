"""The offline sink: rows, entities, rejected ticks and watermarks in Postgres.

The order of a commit:

1. The rows are copied into a temporary table of the session, in a transaction of its own that takes
   no lock anyone waits for.
2. One statement, a call of `tickwell.store_run`, locks the partition's watermark, compares it,
   inserts and advances. It is a transaction that begins and ends inside the server: a worker that
   is stopped or killed holds no lock across any of its own instructions.

When the connection breaks the outcome is unknown, and does not matter: the caller reloads, and the
watermark says whether the run is stored.

The window state of an entity needs no table of its own; it is its newest rows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any
from uuid import UUID

import numpy as np
import psycopg2
from psycopg2 import errorcodes

from pipelines.errors import ParityViolation, PipelineError, StoreUnavailable, WatermarkMoved
from pipelines.kernel import RESET
from pipelines.runs import NO_SEQ, Batch, Rejection
from pipelines.staging import stage
from pipelines.state import EntityState, tick_dtype
from pipelines.topics import Topic
from registry.definitions import Source
from registry.row import Origin

logger = logging.getLogger(__name__)
LOAD = files("pipelines").joinpath("sql/load.sql").read_text("utf-8")
STORE_RUN = files("pipelines").joinpath("sql/store_run.sql").read_text("utf-8")

OTHER_BITS = "TW001"
PASSING = frozenset({"08", "25", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE that pass by themselves: connection, transaction state (a read-only standby),
rollback, resources (a full disk), object state (a lock), operator intervention, system error."""

CONNECTION: dict[str, Any] = {
    "connect_timeout": 5,
    # a peer that vanished without a word is noticed after 15 s
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    # a run takes milliseconds; a statement that takes a minute waits for something that hangs
    "options": "-c statement_timeout=60000 -c lock_timeout=10000",
}


class Database:
    """A connection that comes back: lost ones are thrown away and opened anew at the next use."""

    def __init__(self, url: str, application_name: str) -> None:
        self._url = url
        self._name = application_name
        self._connection: Any = None

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """A cursor in autocommit mode. Raises `StoreUnavailable` for what passes by itself."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg2.connect(
                    self._url, application_name=self._name, **CONNECTION
                )
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                yield cursor
        except psycopg2.Error as error:
            self.close()
            raise _translated(error) from error

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class OfflineSink:
    """Stores the batches of one source in the Postgres at `url`.

    `schemas` are the ids of the row schemas that the source was ever written in.
    """

    name = "offline"

    def __init__(
        self, url: str, schemas: Sequence[int], application_name: str = "tickwell"
    ) -> None:
        self._database = Database(url, application_name)
        self._schemas = list(schemas)

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of those of `partitions` that were ever stored."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "SELECT partition, next_offset FROM tickwell.watermarks"
                " WHERE topic_id = %s::uuid AND partition = ANY (%s)",
                (str(UUID(bytes=topic_id)), list(partitions)),
            )
            return dict(cursor.fetchall())

    def settle(self, topic: Topic) -> int:
        """Record a topic's number of partitions; returns the number that was recorded first."""
        with self._database.cursor() as cursor:
            topic_id = str(UUID(bytes=topic.topic_id))
            cursor.execute(
                "INSERT INTO tickwell.topics (topic_id, topic, partitions) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (topic_id, topic.name, topic.partitions),
            )
            cursor.execute(
                "SELECT partitions FROM tickwell.topics WHERE topic_id = %s::uuid", (topic_id,)
            )
            return int(cursor.fetchone()[0])

    def load(
        self, source: Source, entities: Sequence[str], depth: int, before: Origin
    ) -> Mapping[str, EntityState]:
        """The states of those of `entities` that have rows from before the run."""
        return _load(self._database, self._schemas, source, entities, depth, before)

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns entities that have their home in another partition.

        Raises `WatermarkMoved`, `ParityViolation` and `StoreUnavailable`.
        """
        with self._database.cursor() as cursor:
            stage(cursor, batch)
            cursor.execute(
                STORE_RUN,
                {
                    **_identity(batch),
                    "topic": batch.run.topic,
                    "base": batch.run.base_offset,
                    "following": batch.run.next_offset,
                    **_rejected(batch.rejected),
                },
            )
            watermark, conflicts = cursor.fetchone()
        if watermark != batch.run.base_offset:
            raise WatermarkMoved(watermark)
        return list(conflicts)

    def close(self) -> None:
        self._database.close()


def _identity(batch: Batch) -> dict[str, Any]:
    """What all rows of a batch have in common, and the entities."""
    home = batch.run.topic_id + batch.run.partition.to_bytes(4, "big")
    unsettled = [
        name
        for name, expected in zip(batch.names, batch.expected, strict=True)
        if expected[:20] != home
    ]
    return {
        "source": batch.source.name,
        "schema": batch.schema.id,
        "topic_id": str(UUID(bytes=batch.run.topic_id)),
        "partition": batch.run.partition,
        "names": list(batch.names),
        "unsettled": unsettled,
    }


def _rejected(rejected: Sequence[Rejection]) -> dict[str, list[Any]]:
    """Rejected ticks by column. Postgres' text holds no NUL, so a detail shows it."""
    return {
        "rejected_offset": [tick.offset for tick in rejected],
        "rejected_index": [tick.index for tick in rejected],
        "rejected_reason": [tick.reason for tick in rejected],
        "rejected_detail": [_printable(tick.detail) for tick in rejected],
        "rejected_key": [_binary(tick.key) for tick in rejected],
        "rejected_value": [_binary(tick.value) for tick in rejected],
        "rejected_known_at": [tick.known_at for tick in rejected],
    }


def _printable(text: str) -> str:
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()


def _binary(value: bytes | None) -> Any:
    return None if value is None else psycopg2.Binary(value)


def _load(
    database: Database,
    schemas: Sequence[int],
    source: Source,
    entities: Sequence[str],
    depth: int,
    before: Origin,
) -> dict[str, EntityState]:
    if not entities:
        return {}
    wanted = {
        "entities": list(entities),
        "schemas": schemas,
        "depth": depth,
        "topic_id": str(UUID(bytes=before.topic_id)),
        "partition": before.partition,
        "before": before.offset,
    }
    with database.cursor() as cursor:
        cursor.execute(LOAD, wanted)
        rows = cursor.fetchall()
    by_entity: dict[str, list[Any]] = {}
    for entity, *row in rows:
        by_entity.setdefault(entity, []).append(row)
    dtype = tick_dtype(len(source.fields))
    return {entity: _state(newest, dtype) for entity, newest in by_entity.items()}


def _state(newest: Sequence[Sequence[Any]], dtype: np.dtype[np.void]) -> EntityState:
    """The state that an entity's rows, newest first, leave it in."""
    _, sequence, _, _, _, _, topic_id, partition, offset, index = newest[0]
    ticks = np.empty(len(newest), dtype)
    for place, (event_time, _, tick_time, seq, _, fields, *_) in enumerate(reversed(newest)):
        ticks[place] = (event_time, tick_time, NO_SEQ if seq is None else seq, tuple(fields))
    resets = [place for place, row in enumerate(newest) if row[4] == RESET]
    return EntityState(
        origin=Origin(UUID(topic_id).bytes, partition, offset, index),
        sequence=sequence,
        count=len(newest),
        fill=resets[0] if resets else len(newest),
        ticks=ticks,
    )


def _translated(error: psycopg2.Error) -> PipelineError:
    code = error.pgcode or ""
    if code == OTHER_BITS:
        return ParityViolation(*json.loads(error.diag.message_detail or "[]"))
    message = str(error).strip().split("\n")[0]
    if not code or code[:2] in PASSING or code == errorcodes.QUERY_CANCELED:
        return StoreUnavailable(f"Postgres: {message}")
    return PipelineError(f"Postgres: {message} ({code})")
