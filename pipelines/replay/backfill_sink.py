"""The backfill sink: rows that a replay computed, in Postgres, beside those of live.

The order of a commit:

1. The rows are copied into a temporary table of the transaction, which takes no lock.
2. One message calls `tickwell.store_replayed`, which locks the replay's own progress, compares it,
   inserts and advances, and commits. It begins and ends inside the server: a replay that is stopped
   or killed at any instant blocks no other session, and its rows and its progress agree.

In a partition that live has never stored, as in an empty database, the rows are copied straight
into the table, as `stores.postgres.offline_sink` does it and with the same lock. Live can end the
session that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.errors import LetGoMeanwhile, RowsAlreadyStored, StateConflict, WatermarkMoved
from pipelines.stores.postgres.changed_days import days_of
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.let_go import OFFSET as LET_GO_TO
from pipelines.stores.postgres.offline_sink import CHECK_RULES, unsettled
from pipelines.stores.postgres.rejected_ticks import STORE_REJECTED, rejected_columns
from pipelines.stores.postgres.row_copy import copy_bytes, copy_rows, stage_rows
from pipelines.stores.postgres.states_from_rows import load_states
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.resources import sql

STORE_REPLAYED = sql(__package__, "store_replayed")
BEGIN_REPLAYED = sql(__package__, "begin_replayed")
FINISH_REPLAYED = sql(__package__, "finish_replayed")

HOLD_RULES = sql(__package__, "hold_rules")

NO_OFFSET = 2**63 - 1


class _Stored(msgspec.Struct, frozen=True):
    """What `tickwell.store_replayed` has done."""

    progress: int | None
    conflicts: tuple[str, ...]
    inserted: int


class BackfillSink:
    """Stores what the replay `replay` computes of one partition, and loads the states for it.

    `restores_since` is that of `replay.progress.Progress`: with None, the partition's own rows
    are no state. The first `unseen` entities that are loaded are known to have no earlier rows.
    Without `copies` every batch is staged, also in a partition that live has never stored. Before
    the offset `let_go_to` the lake alone has all rows, as was known when the replay was planned.
    """

    def __init__(
        self,
        url: str,
        replay: str,
        restores_since: int | None,
        unseen: int = 0,
        copies: bool = True,
        let_go_to: int = 0,
    ) -> None:
        self._database = Database(url, "tickwell replay")
        self._replay = replay
        self._unseen = unseen
        self._copies = copies
        self._let_go_to = let_go_to
        self._since = NO_OFFSET if restores_since is None else restores_since

    def load(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        """The states that those of `entities` with rows had when the partition was at `before`.

        At most `depth` ticks each. Raises `LetGoMeanwhile` and `StoreUnavailable`.
        """
        self._unseen -= len(entities)
        # a search for earlier rows would skip all later ones of an entity
        only = self._settled_elsewhere(source, entities, before) if self._unseen >= 0 else None
        found = load_states(self._database, source, entities, depth, before, self._since, only)
        self._check_let_go(before)
        return found

    def _check_let_go(self, before: Origin) -> None:
        """Raises `LetGoMeanwhile` where rows before an offset went since the replay was planned."""
        with self._database.transaction() as cursor:
            cursor.execute(LET_GO_TO, (str(UUID(bytes=before.topic_id)), before.partition))
            (let_go_to,) = cursor.fetchone()
        if before.offset < let_go_to != self._let_go_to:
            raise LetGoMeanwhile

    def _settled_elsewhere(
        self, source: Source, entities: Sequence[str], origin: Origin
    ) -> Sequence[str]:
        """Those whose home is another partition: their ticks were rejected here, and are again."""
        with self._database.transaction() as cursor:
            cursor.execute(
                "SELECT entity FROM tickwell.entities WHERE source = %s AND entity = ANY (%s)"
                " AND topic_id = %s::uuid AND partition <> %s",
                (
                    source.name,
                    list(entities),
                    str(UUID(bytes=origin.topic_id)),
                    origin.partition,
                ),
            )
            return [entity for (entity,) in cursor.fetchall()]

    def store(self, batch: Batch) -> int:
        """Store a batch and advance the replay to `batch.run.next_offset`; returns the new rows.

        Rows that are stored already are compared. Raises, with nothing stored, `ParityViolation`
        when one has other bits, `WatermarkMoved` when the replay is not at
        `batch.run.base_offset`, `StateConflict` when another partition has become the home of an
        entity meanwhile, `OtherRules`, and `StoreUnavailable`.
        """
        run = {
            "replay": self._replay,
            "source": batch.source.name,
            "topic_id": str(UUID(bytes=batch.run.topic_id)),
            "topic": batch.run.topic,
            "partition": batch.run.partition,
            "base": batch.run.base_offset,
            "following": batch.run.next_offset,
            "rules": batch.rules,
            "unsettled": unsettled(batch),
            "days": days_of(batch.event_time),
            **rejected_columns(batch.rejected),
        }
        rows = copy_bytes(batch)
        if self._copies:
            try:
                self._copies = self._copy(batch, rows, run)
            except RowsAlreadyStored:
                self._copies = False
            if self._copies:
                return len(batch)
        with self._database.transaction() as cursor:
            stage_rows(cursor, rows)
            cursor.execute(HOLD_RULES, run)
            cursor.execute(CHECK_RULES, run)
            cursor.execute(STORE_REPLAYED, run)
            stored = msgspec.json.decode(cursor.fetchone()[0], type=_Stored)
        _check(batch, stored.progress, stored.conflicts)
        return stored.inserted

    def _copy(self, batch: Batch, rows: memoryview, run: Mapping[str, Any]) -> bool:
        """Store a batch by copying; returns False, with nothing stored, where live was before."""
        with self._database.transaction() as cursor:
            cursor.execute(BEGIN_REPLAYED, run)
            without_live, progress, conflicts = cursor.fetchone()
            if not without_live:
                return False
            _check(batch, progress, conflicts)
            cursor.execute(CHECK_RULES, run)
            copy_rows(cursor, rows)
            if batch.rejected:
                cursor.execute(STORE_REJECTED, run)
            cursor.execute(FINISH_REPLAYED, run)
        return True

    def close(self) -> None:
        self._database.close()


def _check(batch: Batch, progress: int | None, conflicts: Sequence[str]) -> None:
    """Raises `WatermarkMoved` and `StateConflict`."""
    if progress != batch.run.base_offset:
        raise WatermarkMoved(progress)
    if conflicts:
        raise StateConflict(len(conflicts), batch.run.topic, batch.run.partition)
