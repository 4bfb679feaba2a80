"""The offline sink: rows, entities, rejected ticks and watermarks in Postgres.

A run is stored in one transaction:

1. `tickwell.begin_run` takes the partition's lock, compares the watermark with where the run
   begins, and makes the partition the home of entities that are new. Whoever records other rules
   takes the same lock, so now it is certain that the rules which decided the run hold there.
   Where the run is the partition's first one in its row schema, that is recorded with the offset
   at which it begins (`tickwell.begin_schema`).
2. The rows are copied straight into the table. Where a replay has stored some of them already, they
   are copied into a temporary table instead, and the missing ones inserted, the others compared.
3. Rejected ticks are stored, the days of the rows are counted as changed
   (`pipelines.stores.postgres.changed_days`), and the watermark moves to the run's end.

Between these steps a worker may be stopped with its locks held. So a worker that waits for a
partition longer than `PATIENCE_MS` ends the session that holds it. Nothing is lost: the transaction
is undone, and a worker that is continued finds its connection closed, and the watermark that
another worker has advanced.

When the connection breaks, the outcome is unknown and does not matter: the caller reloads, and the
watermark says whether the run is stored.

The window state of an entity needs no table of its own; it is the entity's newest rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.errors import PartitionHeld, RowsAlreadyStored, StoreUnavailable, WatermarkMoved
from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.changed_days import days_of
from pipelines.stores.postgres.connection import LOCK_TIMEOUT_MS, Database
from pipelines.stores.postgres.rejected_ticks import STORE_REJECTED, rejected_columns
from pipelines.stores.postgres.row_copy import copy_bytes, copy_rows, stage_rows
from pipelines.stores.postgres.states_from_rows import load_states
from pipelines.stores.sink import Store
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.resources import sql

logger = logging.getLogger(__name__)


WATERMARK, CHECK_RULES = sql(__package__, "watermark"), sql(__package__, "check_rules")
CHECK_RUN = sql(__package__, "check_run")
BEGIN_RUN, FINISH_RUN = sql(__package__, "begin_run"), sql(__package__, "finish_run")
LOCK = "SELECT tickwell.lock_partition(%(topic_id)s::uuid, %(partition)s, %(patience)s)"
FENCE = "SELECT tickwell.fence_partition(%(topic_id)s::uuid, %(partition)s)"
INSERT_STAGED = "SELECT tickwell.insert_staged()"

PATIENCE_MS = 2_000
"""Milliseconds to wait for the session that holds a partition; a copy takes a tenth of it."""

Copy = Callable[[Any, memoryview], None]
"""Copies packed rows by a cursor."""


class OfflineSink:
    """Stores batches in the Postgres at `url`.

    Another thread may load states meanwhile, by a connection of its own.
    """

    name = "offline"
    keeps_states = False
    pace = 0.1  # each run is a transaction, and no reader waits for a row

    def __init__(
        self,
        url: str,
        application_name: str = "tickwell",
        lock_timeout_ms: int = LOCK_TIMEOUT_MS,
        copy: Copy = copy_rows,
    ) -> None:
        self._database = Database(url, application_name, lock_timeout_ms)
        self._loads = Database(url, application_name, lock_timeout_ms)
        self._loads_begin_anew = False
        self._copy = copy
        self._meets_rows = False  # a replay stored rows: to copy straight into the table would fail

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of those of `partitions` that were ever stored.

        A session that is storing a run of one of them is waited for, and ended if that takes long.
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

        A topic id that is new becomes the current incarnation of its name. Sessions that are still
        storing a run of an earlier one are ended: their rows would be stored after ours were
        computed without them.
        """
        topic_id = str(UUID(bytes=topic.topic_id))
        with self._database.transaction() as cursor:
            cursor.execute(
                "INSERT INTO tickwell.topics (topic_id, topic, partitions) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (topic_id, topic.name, topic.partitions),
            )
        # Now it is seen by all, and none begins to store a run of an earlier one any more.
        with self._database.transaction() as cursor:
            cursor.execute(FENCE, {"topic_id": topic_id, "partition": None})
            cursor.execute(
                "SELECT partitions FROM tickwell.topics WHERE topic_id = %s::uuid", (topic_id,)
            )
            return int(cursor.fetchone()[0])

    def load(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        """The states of those of `entities` that have rows from before the run.

        Once a store has failed they are read by a new connection: the server of the old one may
        be there and not be the primary any more.
        """
        if self._loads_begin_anew:
            self._loads_begin_anew = False
            self._loads.close()
        return load_states(self._loads, source, entities, depth, before)

    def begin(self, topic_id: bytes, partition: int) -> bool:
        """Nothing needs to be done; a new generation of the group forgets what was loaded."""
        return False

    def prepare(self, batch: Batch) -> Store:
        """Pack the rows of a batch; returns what stores it as `store` does."""
        return partial(self._store, batch, copy_bytes(batch))

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns entities that have their home in another partition.

        Raises `WatermarkMoved`, `TopicRecreated`, `OtherRules`, `SchemaBehind`, `ParityViolation`
        and `StoreUnavailable`.
        """
        return self.prepare(batch)()

    def _store(self, batch: Batch, rows: memoryview) -> Sequence[str]:
        try:
            try:
                return self._attempt(batch, rows)
            except RowsAlreadyStored:
                self._meets_rows = True
            return self._attempt(batch, rows)
        except StoreUnavailable:
            self._loads_begin_anew = True
            raise

    def _attempt(self, batch: Batch, rows: memoryview) -> Sequence[str]:
        run: dict[str, Any] = {
            **_partition(batch.run.topic_id, batch.run.partition),
            "topic": batch.run.topic,
            "source": batch.source.name,
            "base": batch.run.base_offset,
            "following": batch.run.next_offset,
            "known_at": newest_timestamp(batch.run),
            "rules": batch.rules,
            "schema": batch.schema.id,
            "unsettled": unsettled(batch),
            "patience": PATIENCE_MS,
            "days": days_of(batch.event_time),
        }
        with self._fencing(run), self._database.transaction() as cursor:
            cursor.execute(BEGIN_RUN, run)
            watermark, conflicts = cursor.fetchone()
            if watermark != batch.run.base_offset:
                raise WatermarkMoved(watermark)
            if conflicts:
                cursor.execute("ROLLBACK")
                return list(conflicts)
            cursor.execute(CHECK_RUN, run)
            if self._meets_rows:
                stage_rows(cursor, rows)
                cursor.execute(INSERT_STAGED)
                inserted = int(cursor.fetchone()[0])
                self._meets_rows = inserted < len(batch)
                run["days"] = run["days"] if inserted else []
            else:
                self._copy(cursor, rows)
            if batch.rejected:
                cursor.execute(STORE_REJECTED, {**run, **rejected_columns(batch.rejected)})
            cursor.execute(FINISH_RUN, run)
        return []

    @contextmanager
    def _fencing(self, partition: Mapping[str, Any]) -> Iterator[None]:
        """End the session that holds a partition for too long, before the caller tries again."""
        try:
            yield
        except PartitionHeld:
            with self._database.transaction() as cursor:
                cursor.execute(FENCE, partition)
                ended = cursor.fetchone()[0]
            if ended:
                logger.warning("ended %d sessions that held a partition without progress", ended)
            else:
                logger.info(
                    "waiting for a session that holds a partition or its entities: it records "
                    "rules, or has not held them for long"
                )
            raise

    def close(self) -> None:
        self._database.close()
        self._loads.close()


def _partition(topic_id: bytes, partition: int) -> dict[str, Any]:
    return {"topic_id": str(UUID(bytes=topic_id)), "partition": partition}


def newest_timestamp(run: Run) -> int | None:
    """The newest timestamp of a run's records, nanoseconds UTC; None where it has none.

    It is no later than now: on a topic with CreateTime producers say what they like.
    """
    return min(int(run.timestamps.max()) * 1_000_000, time.time_ns()) if len(run) else None


def unsettled(batch: Batch) -> list[str]:
    """The entities of a batch whose home is not known to be its partition."""
    at_home = batch.expected.at_home(batch.run.topic_id, batch.run.partition)
    return [batch.names[index] for index in np.flatnonzero(~at_home).tolist()]
