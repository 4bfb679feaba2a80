"""A repair of a source: who began it, which rejected ticks it takes, and how it is carried out.

    begin ─► the repair and its edits are on record, and what is asked as of now is refused
          ─► entity by entity, some edits at a time: lock, edits in the order in which they came,
             commit
    finish ─► what is asked as of now has the repair in it

Killed at any instant, the next process goes on with the edits that were not made. Whoever settles,
the command or an offline worker, holds the lock of the entity, so each edit is made once; and knows
the newest row schema, else it would not see the rows and revisions that are in that one alone.
Repairs of a source become known one after the other, and are made in that order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event
from typing import Any, NamedTuple

from psycopg2.extras import execute_values

from pipelines.errors import Stopped
from pipelines.repair.edits import Edit, TickOrigin
from pipelines.repair.errors import DefinitionsChanged, RepairElsewhere
from pipelines.repair.rejected_edits import CANDIDATES_A_PAGE, Chosen, RejectedEdits
from pipelines.repair.revising import MADE, Revising, Settled
from pipelines.repair.ticks import FIRST_ROWS
from pipelines.stores.postgres.connection import Database
from registry.definitions import Catalog
from registry.resources import sql

OPEN_EDITS, MOMENTS = sql(__package__, "open_edits"), sql(__package__, "moments")
SETTLED = sql(__package__, "settled")
APPLICATION = "tickwell repair"

EDITS_A_STATEMENT = 1_000

EDITS_A_TRANSACTION, SETTLE_SECONDS = 50, 1.0
"""Edits of an entity that are made at once, and seconds of settling after which a transaction ends
and with it the lock: an entity may have thousands of edits that a newer row schema lacks. What was
done is kept when one is killed, and another repair, or a worker, gets the entity in between."""

NOTHING_SETTLED: tuple[Any, ...] = ()
"""The place of an edit before the first one."""

ENTITY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 7242019009))"
"""Of two that change the revisions of an entity, the second sees what the first has done. A worker
waits for nobody, and comes again in a moment. The command tries for long: one that was stopped in
its transaction has the lock until Postgres ends that."""

TRY_SECONDS, PATIENCE_SECONDS = 0.1, 120.0
"""Seconds between two tries, and until the command gives up."""

SOURCE_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 7242019010))"
"""Two repairs of a source do not become known at the same time."""

NEVER = Event()
"""An event that is never set."""

NOT_KNOWN = 2**63 - 1
"""The `known_at` of a repair that is on record, of which nothing was made yet."""

BEGIN = """
INSERT INTO tickwell.repairs (source, started_by, note, known_at) VALUES (%s, %s, %s, %s)
RETURNING id
"""
NOT_KNOWN_YET = "SELECT id FROM tickwell.repairs WHERE source = %s AND known_at = %s ORDER BY id"
KNOWN = """
UPDATE tickwell.repairs SET known_at = (
    SELECT greatest(
        %(now)s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000,
        max(other.known_at) FILTER (WHERE other.known_at < %(not_known)s) + 1
    )
    FROM tickwell.repairs AS other WHERE other.source = %(source)s
)
WHERE id = %(repair)s
"""
"""Whichever clock is ahead, it is a moment after that of earlier repairs."""

NEWEST_SCHEMA = "SELECT max(id) FROM tickwell.row_schemas WHERE source = %s"
FINISH = """
UPDATE tickwell.repairs SET finished_at = clock_timestamp()
WHERE id = %(repair)s AND finished_at IS NULL AND NOT EXISTS (
    SELECT FROM tickwell.repair_edits WHERE repair = %(repair)s AND outcome IS NULL
)
"""
EDITS = """
INSERT INTO tickwell.repair_edits (topic_id, partition, "offset", index, repair, kind, entity)
VALUES %s ON CONFLICT DO NOTHING
"""
UNFINISHED = """
SELECT id, known_at FROM tickwell.repairs
WHERE source = %s AND finished_at IS NULL AND known_at < %s ORDER BY known_at
"""
ENTITIES = """
SELECT DISTINCT entity FROM tickwell.repair_edits
WHERE repair = %s AND outcome IS NULL ORDER BY entity
"""
OPEN_ENTITIES = """
SELECT DISTINCT entity FROM tickwell.repair_edits
JOIN tickwell.repairs ON repairs.id = repair_edits.repair
WHERE repairs.source = %s AND outcome = %s AND (open OR settled_in < %s) ORDER BY entity
"""


UNSETTLED = """
SELECT DISTINCT source FROM tickwell.repairs
WHERE finished_at IS NULL OR EXISTS (
    SELECT FROM tickwell.repair_edits
    WHERE repair = repairs.id AND (
        open AND outcome = %s OR settled_in < (
            SELECT max(id) FROM tickwell.row_schemas WHERE row_schemas.source = repairs.source
        )
    )
)
"""


@dataclass
class Repaired:
    """What a repair has come to."""

    edits: int = 0
    """Rejected ticks that it takes."""
    done: int = 0
    made: Counter[str] = field(default_factory=Counter)
    """By kind."""
    refused: Counter[str] = field(default_factory=Counter)
    """Of those that could not be made how many there are, by the reason."""
    unreadable: Counter[str] = field(default_factory=Counter)
    """The same of what asks for nothing, which it does not take."""
    revised: int = 0
    """Rows that have a revision now, those of edits not counted."""
    open: int = 0
    """Edits that later ticks may have in their windows."""
    since: dict[str, int] = field(default_factory=dict)
    """By entity the earliest time at which something is another one, nanoseconds UTC."""


Report = Callable[[Repaired], None]
"""Takes what is done, after each transaction."""


class Limits(NamedTuple):
    """How much a transaction does, and how long the command waits for an entity."""

    settle_seconds: float = SETTLE_SECONDS
    patience_seconds: float = PATIENCE_SECONDS
    edits: int = EDITS_A_TRANSACTION


LIMITS = Limits()


class Repair:
    """Repairs one source in the database at `postgres`, by the definitions of `catalog`."""

    def __init__(
        self,
        postgres: str,
        catalog: Catalog,
        source: str,
        page: int = CANDIDATES_A_PAGE,
        first_rows: int = FIRST_ROWS,
        limits: Limits = LIMITS,
    ) -> None:
        """Rejected ticks are read so many at a time, and rows so many at first beside those that
        windows need. Raises `UnreadableFormat`.
        """
        self._postgres = postgres
        self._source = catalog.sources[source]
        self._rejected = RejectedEdits(catalog, source, page)
        self._revising = Revising.of(catalog, source, first_rows)
        self._limits = limits

    def run(self, chosen: Chosen, actor: str, note: str, report: Report, stop: Event) -> Repaired:
        """Let in what is chosen, after what an earlier process has left, until `stop` is set.

        Raises `DefinitionsChanged`, `RepairElsewhere` and `StoreUnavailable`.
        """
        done = Repaired()
        with closing(Database(self._postgres, APPLICATION)) as database, suppress(Stopped):
            self._begin(database, chosen, actor, note, done, stop)
            self._go_on(database, done, report, stop)
        return done

    def rehearse(self, chosen: Chosen, report: Report) -> Repaired:
        """What `run` would do of what is chosen; nothing is changed. Raises as `run`."""
        done = Repaired()
        with closing(Database(self._postgres, APPLICATION)) as database:
            edits = list(self._chosen(database, chosen, done, Event()))
            by_entity: dict[str, list[Edit]] = {}
            for edit in edits:
                by_entity.setdefault(edit.entity, []).append(edit)
            done.edits = len(edits)
            for entity, of_entity in by_entity.items():
                with self._turn(database, entity, NEVER) as cursor:
                    for edit in of_entity:
                        _count(done, edit, self._revising.make(cursor, edit, time.time_ns()))
                    cursor.execute("ROLLBACK")
                report(done)
        return done

    def settle(self, stop: Event) -> int:
        """Revise what has come behind edits that are open, and make what is left of repairs.

        Entities are left out that somebody else is at. How many rows have a revision now. Raises
        `DefinitionsChanged` and `StoreUnavailable`.
        """
        revised, name = 0, self._source.name
        with closing(Database(self._postgres, APPLICATION)) as database:
            self._go_on(database, Repaired(), lambda _: None, stop, waits=False)
            asked = name, MADE, self._revising.schema_id
            with database.transaction() as cursor:
                cursor.execute(OPEN_ENTITIES, asked)
                entities = [entity for (entity,) in cursor.fetchall()]
            for entity in entities:
                began = time.monotonic()
                with suppress(RepairElsewhere):
                    revised += self._settle(database, entity, stop, waits=False)
                if stop.wait(time.monotonic() - began):  # live comes first
                    break
        return revised

    def _begin(
        self,
        database: Database,
        chosen: Chosen,
        actor: str,
        note: str,
        done: Repaired,
        stop: Event,
    ) -> None:
        """Put a repair on record with the edits that are chosen, if there are any.

        It is known from a moment after that on (`_become_known`): who asked as of a later one has
        seen it.
        """
        found = self._chosen(database, chosen, done, stop)
        edits = [(one.origin, one.kind, one.entity) for one in found]
        if not edits:
            return
        with database.transaction() as cursor:
            cursor.execute(BEGIN, (self._source.name, actor, note, NOT_KNOWN))
            (repair,) = cursor.fetchone()
            rows = [(*origin, repair, kind, entity) for origin, kind, entity in edits]
            execute_values(cursor, EDITS, rows, page_size=EDITS_A_STATEMENT)
        done.edits += len(edits)

    def _become_known(self, database: Database) -> None:
        """Say when repairs that are on record became known, before any of their edits is made.

        It is done apart from putting them there, which takes its time: the moment lies after the
        one from which they can be seen.
        """
        source = self._source.name
        with database.transaction() as cursor:
            cursor.execute(SOURCE_LOCK, (source,))
            cursor.execute(NOT_KNOWN_YET, (source, NOT_KNOWN))
            for (repair,) in cursor.fetchall():
                told = {"source": source, "repair": repair, "not_known": NOT_KNOWN}
                cursor.execute(KNOWN, {**told, "now": time.time_ns()})

    def _chosen(
        self, database: Database, chosen: Chosen, done: Repaired, stop: Event
    ) -> Iterator[Edit]:
        def unreadable(why: str) -> None:
            done.unreadable[why] += 1

        return self._rejected.chosen(database, chosen, unreadable, stop)

    def _go_on(
        self,
        database: Database,
        done: Repaired,
        report: Report,
        stop: Event,
        waits: bool = True,
    ) -> None:
        """Make the edits of all repairs that are not finished, until `stop` is set.

        Raises as `_turn`; without `waits` entities are left out that somebody else is at, in later
        repairs, too: what an earlier one asks of an entity is made first.
        """
        self._become_known(database)
        with database.transaction() as cursor:
            cursor.execute(UNFINISHED, (self._source.name, NOT_KNOWN))
            unfinished = cursor.fetchall()
        left_out: set[str] = set()
        for repair, known_at in unfinished:
            for entity in self._entities(database, repair):
                if entity in left_out:
                    continue
                try:
                    self._settle(database, entity, stop, waits)
                    left = True
                    while left and not stop.is_set():
                        with self._turn(database, entity, stop, waits) as cursor:
                            left = self._make(cursor, (repair, entity, known_at), done, stop)
                        report(done)
                except RepairElsewhere:
                    if waits:
                        raise
                    left_out.add(entity)
                if stop.is_set():
                    return
            with database.transaction() as cursor:
                cursor.execute(FINISH, {"repair": repair})

    @contextmanager
    def _turn(
        self, database: Database, entity: str, stop: Event, waits: bool = True
    ) -> Iterator[Any]:
        """A transaction that has the lock of an entity; gives its cursor.

        Raises `DefinitionsChanged`, `Stopped`, and `RepairElsewhere` where somebody else is at the
        entity: at once without `waits`, else once patience is over.
        """
        began = time.monotonic()
        while True:
            with database.transaction() as cursor:
                if self._lock(cursor, entity):
                    yield cursor
                    return
            if not waits or time.monotonic() - began > self._limits.patience_seconds:
                raise RepairElsewhere(self._source.name, entity)
            if stop.wait(TRY_SECONDS):
                raise Stopped("what was done stays")

    def _entities(self, database: Database, repair: int) -> list[str]:
        with database.transaction() as cursor:
            cursor.execute(ENTITIES, (repair,))
            return [entity for (entity,) in cursor.fetchall()]

    def _make(
        self, cursor: Any, pending: tuple[int, str, int], done: Repaired, stop: Event
    ) -> bool:
        """Make edits of a repair and an entity, until `stop` is set; whether some may be left."""
        repair, entity, known_at = pending
        edits = self._rejected.pending(cursor, repair, entity, self._limits.edits)
        for edit in edits:
            if stop.is_set():
                return True
            settled = self._revising.make(cursor, edit, known_at)
            self._note(cursor, edit.origin, settled)
            _count(done, edit, settled)
        return len(edits) == self._limits.edits

    def _settle(self, database: Database, entity: str, stop: Event, waits: bool) -> int:
        """Settle the open edits of an entity, before any that become known later are made.

        Some at a time, until `stop` is set; how many rows have a revision now. Raises as `_turn`.
        """
        revised = 0
        after: tuple[Any, ...] | None = NOTHING_SETTLED
        while after is not None and not stop.is_set():
            with self._turn(database, entity, stop, waits) as cursor:
                more, after = self._settle_some(cursor, entity, after, stop)
            revised += more
        return revised

    def _settle_some(
        self, cursor: Any, entity: str, after: tuple[Any, ...], stop: Event
    ) -> tuple[int, tuple[Any, ...] | None]:
        """Settle edits that are behind one of them, for a while.

        How many rows have a revision now, and the edit to go on behind, if there are others.
        """
        revised, began = 0, time.monotonic()
        asked = {
            "source": self._source.name,
            "entity": entity,
            "made": MADE,
            "schema": self._revising.schema_id,
        }
        cursor.execute(OPEN_EDITS, asked)
        found = cursor.fetchall()
        cursor.execute(MOMENTS, asked)
        moments = [moment for (moment,) in cursor.fetchall()]
        following = dict(pairwise(moments))
        for place, (*origin, event_time, sequence, known_at) in sorted(
            ((known_at, event_time, sequence, *origin), (*origin, event_time, sequence, known_at))
            for *origin, event_time, sequence, known_at in found
        ):
            if place <= after:
                continue
            then: int | None = known_at
            while then is not None:
                key, until = (event_time, sequence), following.get(then)
                settled = self._revising.settle(cursor, entity, key, then, until)
                revised += settled.revised
                then = until if settled.leaves else None
            self._note(cursor, TickOrigin(*origin), settled)
            if stop.is_set() or time.monotonic() - began >= self._limits.settle_seconds:
                return revised, place
        return revised, None

    def _lock(self, cursor: Any, entity: str) -> bool:
        """Whether an entity is locked now, for this transaction. Raises `DefinitionsChanged`."""
        cursor.execute(ENTITY_LOCK, (f"{self._source.name}\x1f{entity}",))
        if not cursor.fetchone()[0]:
            return False
        cursor.execute(NEWEST_SCHEMA, (self._source.name,))
        if cursor.fetchone()[0] != self._revising.schema_id:
            raise DefinitionsChanged(self._source.name)
        return True

    def _note(self, cursor: Any, origin: TickOrigin, settled: Settled) -> None:
        event_time, sequence = settled.key or (None, None)
        settled_time, settled_sequence = settled.to or (None, None)
        noted = {
            "outcome": settled.outcome,
            "event_time": event_time,
            "sequence": sequence,
            "schema": self._revising.schema_id,
            "settled_time": settled_time,
            "settled_sequence": settled_sequence,
            "open": settled.open,
            **origin._asdict(),
        }
        cursor.execute(SETTLED, noted)


def settle_all(postgres: str, load: Callable[[], Catalog], stop: Event) -> int:
    """Settle what is open of all sources; how many rows have a revision now.

    `load` gives the catalog of now. Raises `StoreUnavailable`, and what `load` raises.
    """
    with closing(Database(postgres, APPLICATION)) as database, database.transaction() as cursor:
        cursor.execute(UNSETTLED, (MADE,))
        sources = [source for (source,) in cursor.fetchall()]
    if not sources:
        return 0
    catalog, revised = load(), 0
    for source in sources:
        with suppress(DefinitionsChanged):  # the next call goes on, by the newer ones
            revised += Repair(postgres, catalog, source).settle(stop)
    return revised


def _count(done: Repaired, edit: Edit, settled: Settled) -> None:
    done.done += 1
    if settled.outcome == MADE:
        done.made[edit.kind] += 1
        done.revised += settled.revised
        done.open += settled.open
        if settled.key is not None:
            time_of = settled.key[0]
            done.since[edit.entity] = min(time_of, done.since.get(edit.entity, time_of))
    else:
        done.refused[settled.outcome] += 1
