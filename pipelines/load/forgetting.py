"""Gives up a load that was not finished: what it has stored is taken away again.

    claim ─► from then on nobody goes on with the load; who gave it up is in the audit
          ─► rows, some at a time, with the days that change; then the homes of their entities
          ─► rejected rows, by partition
    end   ─► the load, its progress and what it has met are gone: the same files are a new load

Killed at any instant, the same command goes on: what is left is found by the load's own id. No load
has its rows in windows, since it was not done when they began; a backfill may, and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from sqlalchemy import and_, delete, func, select, update

from pipelines.load.errors import LoadBackfilled, LoadFinished, LoadInLakeAlone
from pipelines.load.load_sink import APPLICATION
from pipelines.load.loads import Loads, RecordedLoad
from pipelines.replay.stop import Stop
from pipelines.stores.postgres.changed_days import change_days
from pipelines.stores.postgres.connection import Database
from registry.database.backfill_tables import backfills
from registry.database.lake_tables import lake_days
from registry.database.load_tables import load_overlaps, load_partitions, loads
from registry.database.tables import audit as audit_table
from registry.database.tables import feature_versions
from registry.formats.lake import DAY_NS
from registry.formats.loaded_rows import loaded
from registry.lifecycle.audit import SOURCE_PREFIX, By, audit
from registry.lifecycle.changing import changing
from registry.resources import sql

ROWS, HOMES = sql(__package__, "forget_rows"), sql(__package__, "forget_homes")
ENTITIES = """
SELECT entity FROM tickwell.entities WHERE source = %s AND entity > %s ORDER BY entity LIMIT %s
"""
REJECTED = "DELETE FROM tickwell.rejected_ticks WHERE topic_id = %s::uuid AND partition = %s"

ACTION = "forget load"
"""What the audit says."""

ENTITIES_A_PIECE, ROWS_A_PIECE = 1_000, 20_000
"""Entities that are looked at, and rows that are taken away, by one statement."""

Report = Callable[[int], None]
"""Takes the number of rows that are gone, after each piece."""


class _Claimed(NamedTuple):
    """A load that is given up, and the ids under which its source has loaded rows."""

    load: RecordedLoad
    schemas: list[int]

    @property
    def id(self) -> str:
        return str(UUID(bytes=self.load.load_id))


class Forgetting:
    """Gives up loads in the database at `postgres`, which `loads` are of.

    The caller holds `loads.alone` for the source of the load.
    """

    def __init__(self, postgres: str, loads: Loads, rows_a_piece: int = ROWS_A_PIECE) -> None:
        """So many rows are taken away at a time."""
        self._postgres = postgres
        self._loads = loads
        self._rows_a_piece = rows_a_piece

    def forget(self, load_id: bytes, by: By, report: Report, stop: Stop) -> int | None:
        """Give up a load until `stop` is set; how many rows are gone, None for no such load.

        Raises `LoadFinished`, `LoadBackfilled`, `LoadInLakeAlone` and `StoreUnavailable`.
        """
        found = self._claim(load_id, by)
        if found is None:
            return None
        with closing(Database(self._postgres, APPLICATION)) as database:
            gone = self._take_away(database, found, report, stop)
            if not stop.is_set():
                self._forget_rejected(database, found)
        if not stop.is_set():
            self._end(load_id, by)
        return gone

    def was_forgotten(self, load: str) -> bool:
        """Whether a load was given up whose id begins so, in hex."""
        of = audit_table.c
        known = select(1).where(
            of.action == ACTION, of.before["load"].astext.startswith(load, autoescape=True)
        )
        with self._loads.connection() as connection:
            return connection.execute(known).first() is not None

    def _claim(self, load_id: bytes, by: By) -> _Claimed | None:
        """Keep whoever loads from going on. The first time it is checked, and put on record."""
        found = self._loads.find(load_id)
        if found is None:
            return None
        if found.finished_at is not None:
            raise LoadFinished(found.source, found.began_by)
        if found.forgotten_at is None:
            self._check_backfills(found)
            self._check_lake(found)
            with self._loads.connection() as connection:
                claimed = (
                    update(loads)
                    .where(
                        loads.c.id == UUID(bytes=load_id),
                        loads.c.finished_at.is_(None),
                        loads.c.forgotten_at.is_(None),
                    )
                    .values(forgotten_at=func.now())
                )
                if connection.execute(claimed).rowcount:
                    told = {
                        "load": load_id.hex(),
                        "files": [file.name for file in found.files],
                        "rows": found.rows,
                        "began_by": found.began_by,
                    }
                    audit(connection, by, ACTION, f"{SOURCE_PREFIX}{found.source}", None, told)
        others = self._loads.schemas(found.source, load_id)
        return _Claimed(found, sorted({*others, loaded(found.schema_id)}))

    def _check_backfills(self, found: RecordedLoad) -> None:
        """Raises `LoadBackfilled` where values may be stored of ticks of the load."""
        of, versions = backfills.c, feature_versions.c
        ended = func.coalesce(of.finished_at, func.now())
        wanted = (
            select(of.name, of.version)
            .join(
                feature_versions,
                and_(versions.name == of.name, versions.version == of.version),
            )
            .where(versions.definition["source"].astext == found.source, ended >= found.began_at)
            .order_by(of.name, of.version)
        )
        with self._loads.connection() as connection:
            refs = [f"{name}@{version}" for name, version in connection.execute(wanted)]
        if refs:
            raise LoadBackfilled(found.source, refs)

    def _check_lake(self, found: RecordedLoad) -> None:
        """Raises `LoadInLakeAlone` where files have rows that Postgres has let go of."""
        if found.first_time is None or found.last_time is None:
            return
        of = lake_days.c
        wanted = select(func.min(of.day), func.max(of.day)).where(
            of.source == found.source,
            of.dropped_at.is_not(None),
            of.day >= _day(found.first_time),
            of.day <= _day(found.last_time),
        )
        with self._loads.connection() as connection:
            first, last = connection.execute(wanted).one()
        if first is not None:
            raise LoadInLakeAlone(found.source, first, last)

    def _take_away(self, database: Database, found: _Claimed, report: Report, stop: Stop) -> int:
        gone, after = 0, ""
        while not stop.is_set():
            with database.transaction() as cursor:
                cursor.execute(ENTITIES, (found.load.source, after, ENTITIES_A_PIECE))
                entities = [entity for (entity,) in cursor.fetchall()]
            if not entities:
                break
            after, left = entities[-1], found.load.first_time is not None
            while left and not stop.is_set():
                rows = self._take_some(database, found, entities)
                gone, left = gone + rows, rows == self._rows_a_piece
                report(gone)
            if not stop.is_set():
                with database.transaction() as cursor:
                    cursor.execute(HOMES, self._asked(found, entities))
        return gone

    def _take_some(self, database: Database, found: _Claimed, entities: list[str]) -> int:
        """Take away rows of entities, and count their days as changed; how many there were."""
        with database.transaction() as cursor:
            cursor.execute(ROWS, self._asked(found, entities))
            times = np.array([time for (time,) in cursor.fetchall()], np.int64)
            if len(times):
                change_days(cursor, found.load.source, "load", found.load.load_id, 0, times)
        return len(times)

    def _asked(self, found: _Claimed, entities: list[str]) -> dict[str, Any]:
        load = found.load
        return {
            "load": found.id,
            "source": load.source,
            "schema": loaded(load.schema_id),
            "loaded": found.schemas,
            "entities": entities,
            "first": load.first_time,
            "last": load.last_time,
            "most": self._rows_a_piece,
        }

    def _forget_rejected(self, database: Database, found: _Claimed) -> None:
        for partition in self._loads.progress(found.load.load_id):
            with database.transaction() as cursor:
                cursor.execute(REJECTED, (found.id, partition))

    def _end(self, load_id: bytes, by: By) -> None:
        """Forget the load itself; views do not show rows of its row schema if no other load has."""
        load = UUID(bytes=load_id)
        with changing(self._loads.engine, by) as change:
            for table in (load_overlaps, load_partitions):
                change.connection.execute(delete(table).where(table.c.load == load))
            change.connection.execute(delete(loads).where(loads.c.id == load))


def _day(nanoseconds: int) -> date:
    return datetime.fromtimestamp(nanoseconds // DAY_NS * (DAY_NS // 10**9), UTC).date()
