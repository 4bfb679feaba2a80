"""The sink of a load: its rows in Postgres, with how far it is.

The order of a commit:

1. Entities that nobody knows become known, in a transaction of their own: live settles the same
   ones, and would else wait for the copy.
2. The partition's progress is compared and moved, the rows are copied straight into the table,
   their days counted, the rejected ticks stored, and all of it committed.

No key of a loaded row is one of live's (`registry.formats.loaded_rows`), and no lock is one that
live waits for. So a load that is stopped or killed at any instant blocks nobody, and its rows and
its progress agree.
"""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from pipelines.compute.batch import Batch
from pipelines.load.errors import LoadMoved
from pipelines.stores.postgres.changed_days import change_days
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.rejected_ticks import STORE_REJECTED, rejected_columns
from pipelines.stores.postgres.row_copy import copy_bytes, copy_rows
from registry.resources import sql

APPLICATION = "tickwell load"
ADVANCE, SETTLE = sql(__package__, "advance"), sql(__package__, "settle")
NEVER_PUBLISHED = sql(__package__, "never_published")


class BatchStore(Protocol):
    """What takes the batches of a partition in their order."""

    def store(self, batch: Batch, passed_over: int) -> int:
        """Take a batch, beside which so many ticks were passed over; returns its bytes."""
        ...

    def close(self) -> None: ...


class LoadSink:
    """Stores the batches of one partition of a load."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, APPLICATION)
        self._known: frozenset[str] = frozenset()

    def store(self, batch: Batch, passed_over: int) -> int:
        """Store a batch and move the progress to its run's end; returns the bytes of its rows.

        Raises, with nothing stored, `LoadMoved` where the progress is not at the run's beginning,
        and `StoreUnavailable`.
        """
        run, packed = batch.run, copy_bytes(batch)
        moved = {
            "load": str(UUID(bytes=run.topic_id)),
            "topic_id": str(UUID(bytes=run.topic_id)),
            "topic": run.topic,
            "source": batch.source.name,
            "partition": run.partition,
            "base": run.base_offset,
            "following": run.next_offset,
            "rows": len(batch),
            "passed_over": passed_over,
            "rejected": len(batch.rejected),
        }
        self._settle(moved, frozenset(batch.names))
        with self._database.transaction() as cursor:
            cursor.execute(ADVANCE, moved)
            if not cursor.rowcount:
                raise LoadMoved(run.topic, run.partition, run.base_offset)
            if len(batch):
                copy_rows(cursor, packed)
                where = run.topic_id, run.partition
                change_days(cursor, batch.source.name, "load", *where, batch.event_time)
            if batch.rejected:
                cursor.execute(STORE_REJECTED, {**moved, **rejected_columns(batch.rejected)})
                cursor.execute(NEVER_PUBLISHED, moved)
        return len(packed)

    def _settle(self, moved: dict[str, Any], names: frozenset[str]) -> None:
        unknown = names - self._known
        if unknown:
            with self._database.transaction() as cursor:
                cursor.execute(SETTLE, {**moved, "entities": sorted(unknown)})
        self._known = names

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


class CountingSink:
    """Stores nothing: what a dry run has in place of a sink."""

    def store(self, batch: Batch, passed_over: int) -> int:
        """Returns the bytes that the rows of a batch would take."""
        return len(copy_bytes(batch))

    def close(self) -> None:
        """Nothing is open."""
