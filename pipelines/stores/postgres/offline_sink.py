"""The offline sink: rows, entities, rejected ticks and watermarks in Postgres.

A run is stored in one transaction:

1. `tickwell.begin_run` takes the partition's lock, compares the watermark with where the run
   begins, and makes the partition the home of entities that are new.
2. The rows are copied straight into the table. Where some are there already, of a replay, they are
   copied into a temporary table instead, inserted where they are missing and compared elsewhere.
3. Rejected ticks are stored, and the watermark moves to the run's end.

Between these a worker may be stopped with its locks held. So whoever waits for a partition longer
than `PATIENCE_MS` ends the session that holds it. That loses nothing: the transaction is undone,
and who wakes up finds its connection gone, and the watermark where another worker has brought it.

When the connection breaks the outcome is unknown, and does not matter: the caller reloads, and the
watermark says whether the run is stored.

The window state of an entity needs no table of its own; it is its newest rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg2

from pipelines.compute.batch import Batch
from pipelines.compute.entity_state import EntityState
from pipelines.errors import PartitionHeld, RowsThere, WatermarkMoved
from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.row_copy import copy_rows, stage_rows
from pipelines.stores.postgres.states_from_rows import load_states
from pipelines.ticks.columns import Rejection
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.resources import sql

logger = logging.getLogger(__name__)


WATERMARK = sql(__package__, "watermark")
BEGIN_RUN, FINISH_RUN = sql(__package__, "begin_run"), sql(__package__, "finish_run")
STORE_REJECTED = sql(__package__, "store_rejected")
LOCK = "SELECT tickwell.lock_partition(%(topic_id)s::uuid, %(partition)s, %(patience)s)"
FENCE = "SELECT tickwell.fence_partition(%(topic_id)s::uuid, %(partition)s)"
INSERT_STAGED = "SELECT tickwell.insert_staged()"

PATIENCE_MS = 2_000
"""How long to wait for who holds a partition; a copy takes a tenth of it."""


class OfflineSink:
    """Stores batches in the Postgres at `url`."""

    name = "offline"
    pace = 0.1  # each run is a transaction, and nobody waits for a row

    def __init__(self, url: str, application_name: str = "tickwell") -> None:
        self._database = Database(url, application_name)
        self._meets_rows = False  # a replay was here: to copy straight into the table would fail

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of those of `partitions` that were ever stored.

        Who is in the middle of storing a run of one is waited for, or got out of the way.
        """
        found = {}
        for partition in partitions:
            one = {**_partition(topic_id, partition), "patience": PATIENCE_MS}
            with self._fencing(one), self._database.transaction() as cursor:
                cursor.execute(LOCK, one)
                cursor.execute(WATERMARK, one)
                row = cursor.fetchone()
            if row is not None:
                found[partition] = int(row[0])
        return found

    def settle(self, topic: Topic) -> int:
        """Record a topic's number of partitions; returns the number that was recorded first.

        A topic id that is new becomes the current incarnation of its name. Who is still storing a
        run of an earlier one is got out of the way: its rows would come after ours were computed.
        """
        with self._database.cursor() as cursor:
            topic_id = str(UUID(bytes=topic.topic_id))
            cursor.execute(
                "INSERT INTO tickwell.topics (topic_id, topic, partitions) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (topic_id, topic.name, topic.partitions),
            )
            cursor.execute(FENCE, {"topic_id": topic_id, "partition": None})
            cursor.execute(
                "SELECT partitions FROM tickwell.topics WHERE topic_id = %s::uuid", (topic_id,)
            )
            return int(cursor.fetchone()[0])

    def load(
        self, source: Source, entities: Sequence[str], depth: int, before: Origin
    ) -> Mapping[str, EntityState]:
        """The states of those of `entities` that have rows from before the run."""
        return load_states(self._database, source, entities, depth, before)

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns entities that have their home in another partition.

        Raises `WatermarkMoved`, `TopicRecreated`, `ParityViolation` and `StoreUnavailable`.
        """
        try:
            return self._store(batch)
        except RowsThere:
            self._meets_rows = True
        return self._store(batch)

    def _store(self, batch: Batch) -> Sequence[str]:
        run = {
            **_partition(batch.run.topic_id, batch.run.partition),
            "topic": batch.run.topic,
            "source": batch.source.name,
            "base": batch.run.base_offset,
            "following": batch.run.next_offset,
            "unsettled": unsettled(batch),
            "patience": PATIENCE_MS,
        }
        with self._fencing(run), self._database.transaction() as cursor:
            cursor.execute(BEGIN_RUN, run)
            watermark, conflicts = cursor.fetchone()
            if watermark != batch.run.base_offset:
                raise WatermarkMoved(watermark)
            if conflicts:
                cursor.connection.rollback()
                return list(conflicts)
            if self._meets_rows:
                stage_rows(cursor, batch)
                cursor.execute(INSERT_STAGED)
                self._meets_rows = int(cursor.fetchone()[0]) < len(batch)
            else:
                copy_rows(cursor, batch)
            if batch.rejected:
                cursor.execute(STORE_REJECTED, {**run, **rejected_columns(batch.rejected)})
            cursor.execute(FINISH_RUN, run)
        return []

    @contextmanager
    def _fencing(self, partition: Mapping[str, Any]) -> Iterator[None]:
        """Ends the session that holds a partition for too long, before the caller tries again."""
        try:
            yield
        except PartitionHeld:
            with self._database.cursor() as cursor:
                cursor.execute(FENCE, partition)
                ended = cursor.fetchone()[0]
            logger.warning("ended %d sessions that held a partition without going on", ended)
            raise

    def close(self) -> None:
        self._database.close()


def _partition(topic_id: bytes, partition: int) -> dict[str, Any]:
    return {"topic_id": str(UUID(bytes=topic_id)), "partition": partition}


def unsettled(batch: Batch) -> list[str]:
    """The entities of a batch that are not known to have their home in its partition."""
    home = batch.run.topic_id + batch.run.partition.to_bytes(4, "big")
    return [
        name
        for name, expected in zip(batch.names, batch.expected, strict=True)
        if expected[:20] != home
    ]


def rejected_columns(rejected: Sequence[Rejection]) -> dict[str, list[Any]]:
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
