"""A repair of a source: who began it, which rejected ticks it takes, and how it is carried out.

    begin ─► the repair and its edits are on record, and what is asked as of now is refused
          ─► entity by entity: lock, edits in the order in which they came, commit
    finish ─► what is asked as of now has the repair in it

Killed at any instant, the next process goes on with the edits that were not made. Whoever settles,
the command or an offline worker, holds the lock of the entity, so each edit is made once; and knows
the newest row schema, else it would not see the rows and revisions that are in that one alone.
Repairs of a source become known one after the other, and are made in that order.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event
from typing import Any, NamedTuple

from psycopg2.extras import execute_values

from pipelines.errors import PipelineError
from pipelines.repair.edits import REASONS, Edit, NoEdit, RejectedTick, TickOrigin, edit_of
from pipelines.repair.revising import MADE, Revising, Settled
from pipelines.repair.ticks import FIRST_ROWS
from pipelines.stores.postgres.connection import Database
from pipelines.ticks.source_reading import Reading
from registry.definitions import Catalog
from registry.resources import sql
from registry.source_rules import SourceRules

CANDIDATES, PENDING = sql(__package__, "candidates"), sql(__package__, "pending")
OPEN_EDITS, MOMENTS = sql(__package__, "open_edits"), sql(__package__, "moments")
SETTLED = sql(__package__, "settled")
APPLICATION = "tickwell repair"

SETTLE_SECONDS = 1.0
"""Seconds of settling after which a transaction ends, and with it the lock: an entity may have
thousands of edits that a newer row schema lacks. What was settled is kept when one is killed."""

MOST_EDITS = 200_000
"""Rejected ticks that one repair takes, or a few more; the next one takes others."""

NOTHING_SETTLED: tuple[Any, ...] = ()
"""The place of an edit before the first one."""

CANDIDATES_A_PAGE, EDITS_A_STATEMENT = 5_000, 1_000

BEFORE_ALL: dict[str, Any] = {
    "after_known_at": -1,
    "after_partition": -1,
    "after_offset": -1,
    "after_index": -1,
    "after_topic_id": "00000000-0000-0000-0000-000000000000",
}
"""The place of a candidate before the first one."""

ENTITY_LOCK = "SELECT true FROM pg_advisory_xact_lock(hashtextextended(%s, 7242019009))"
"""Of two that change the revisions of an entity, the second sees what the first has done."""

TRY_ENTITY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 7242019009))"
"""A worker waits for none, and comes again in a moment. The command tries until it has the lock:
one that was stopped in its transaction has it until Postgres ends that, and one on a busy machine
for as long as it takes."""

TRY_SECONDS = 0.1
"""Seconds between two tries."""

SOURCE_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 7242019010))"
"""Two repairs of a source do not become known at the same time."""

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


class UnreadableFormat(PipelineError):
    """The rejected ticks of a source cannot be read by themselves."""

    def __init__(self, source: str, format_: str) -> None:
        super().__init__(
            f"{source} is in {format_}: only rejected ticks in JSON can be let in. Send them once "
            "more to a topic of their own, in JSON, or declare the source anew"
        )


class DefinitionsChanged(PipelineError):
    """A version was recorded since the definitions were read that a repair is carried out by."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"a version of a feature of {source} was recorded meanwhile: the same command goes on "
            "from here, and so does the offline worker"
        )


class Chosen(NamedTuple):
    """Which rejected ticks a repair takes; the moments are nanoseconds UTC, of their records."""

    entities: frozenset[str] = frozenset()
    """All, where there is none."""
    kinds: frozenset[str] = frozenset({"insert", "cancel", "correct"})
    since: int = 0
    until: int = 2**63 - 1


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
"""Takes what is done, after each entity."""


class Repair:
    """Repairs one source in the database at `postgres`, by the definitions of `catalog`."""

    def __init__(
        self,
        postgres: str,
        catalog: Catalog,
        source: str,
        page: int = CANDIDATES_A_PAGE,
        first_rows: int = FIRST_ROWS,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Rejected ticks are read so many at a time, and rows so many at first beside those that
        windows need; a transaction settles for so long. Raises `UnreadableFormat`.
        """
        definition = catalog.sources[source]
        if definition.format != "json":
            raise UnreadableFormat(source, definition.format)
        self._postgres = postgres
        self._page = page
        self._settle_seconds = settle_seconds
        self._rules = SourceRules.of(catalog, source)
        self._source = definition
        self._revising = Revising.of(catalog, source, first_rows)
        self._readings: dict[int, Reading] = {}

    def run(self, chosen: Chosen, actor: str, note: str, report: Report, stop: Event) -> Repaired:
        """Let in what is chosen, after what an earlier process has left, until `stop` is set.

        Raises `DefinitionsChanged` and `StoreUnavailable`.
        """
        done = Repaired()
        with closing(Database(self._postgres, APPLICATION)) as database:
            self._begin(database, chosen, actor, note, done)
            self._go_on(database, done, report, stop)
        return done

    def rehearse(self, chosen: Chosen, report: Report) -> Repaired:
        """What `run` would do of what is chosen; nothing is changed. Raises as `run`."""
        done = Repaired()
        with closing(Database(self._postgres, APPLICATION)) as database:
            edits = list(self._chosen(database, chosen, done))
            by_entity: dict[str, list[Edit]] = {}
            for edit in edits:
                by_entity.setdefault(edit.entity, []).append(edit)
            done.edits = len(edits)
            for entity, of_entity in by_entity.items():
                with database.transaction() as cursor:
                    self._lock(cursor, entity)
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
                revised += self._settle_in_turns(database, entity)
                if stop.wait(time.monotonic() - began):  # live comes first
                    break
        return revised

    def _begin(
        self, database: Database, chosen: Chosen, actor: str, note: str, done: Repaired
    ) -> None:
        """Put a repair on record with the edits that are chosen, if there are any.

        It is known from a moment after that on (`_become_known`): who asked as of a later one has
        seen it.
        """
        edits = [(one.origin, one.kind, one.entity) for one in self._chosen(database, chosen, done)]
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

    def _go_on(
        self,
        database: Database,
        done: Repaired,
        report: Report,
        stop: Event,
        waits: bool = True,
    ) -> None:
        """Make the edits of all repairs that are not finished, until `stop` is set."""
        self._become_known(database)
        with database.transaction() as cursor:
            cursor.execute(UNFINISHED, (self._source.name, NOT_KNOWN))
            unfinished = cursor.fetchall()
        for repair, known_at in unfinished:
            for entity in self._entities(database, repair):
                if stop.is_set():
                    return
                self._settle_in_turns(database, entity)
                while not self._is_made(database, (repair, known_at), entity, done):
                    if not waits:
                        break
                    if stop.wait(TRY_SECONDS):
                        return
                report(done)
            with database.transaction() as cursor:
                cursor.execute(FINISH, {"repair": repair})

    def _chosen(self, database: Database, chosen: Chosen, done: Repaired) -> Iterator[Edit]:
        """The edits that are asked for, read some at a time, in transactions of their own."""
        taken, after = 0, BEFORE_ALL
        while taken < MOST_EDITS:
            with database.transaction() as cursor:
                cursor.execute(CANDIDATES, {**self._asked(chosen), **after})
                rows = cursor.fetchall()
            if not rows:
                return
            for row in rows:
                edit = self._readable(row, done)
                if edit is None or edit.kind not in chosen.kinds:
                    continue
                if not chosen.entities or edit.entity in chosen.entities:
                    taken += 1
                    yield edit
            topic_id, partition, offset, element, *_, known_at = rows[-1]
            of_last = known_at, partition, offset, element, topic_id
            after = dict(zip(BEFORE_ALL, of_last, strict=True))

    def _asked(self, chosen: Chosen) -> dict[str, Any]:
        return {
            "topic": self._source.topic,
            "reasons": [r for r, kinds in REASONS.items() if chosen.kinds.intersection(kinds)],
            "since": chosen.since,
            "until": chosen.until,
            "most": self._page,
        }

    def _readable(self, row: Any, done: Repaired) -> Edit | None:
        """The edit of a row of `candidates.sql`; what cannot be read is counted."""
        try:
            return self._edit(row)
        except NoEdit as error:
            done.unreadable[str(error)] += 1
            return None

    def _edit(self, row: Any) -> Edit | None:
        """The edit of a row of `candidates.sql`, if it is one. Raises `NoEdit`."""
        topic_id, partition, offset, element, reason, key, value, known_at = row
        origin = TickOrigin(topic_id, partition, offset, element)
        raw_key, raw_value = (None if one is None else bytes(one) for one in (key, value))
        rules = self._rules.at(bytes.fromhex(topic_id.replace("-", "")), partition, offset)
        if rules.id not in self._readings:
            self._readings[rules.id] = Reading.of(rules.source)
        rejected = RejectedTick(origin, reason, raw_key, raw_value, known_at)
        return edit_of(rejected, self._readings[rules.id])

    def _entities(self, database: Database, repair: int) -> list[str]:
        with database.transaction() as cursor:
            cursor.execute(ENTITIES, (repair,))
            return [entity for (entity,) in cursor.fetchall()]

    def _make(self, cursor: Any, repair: int, entity: str, known_at: int, done: Repaired) -> None:
        self._settle(cursor, entity)
        cursor.execute(PENDING, {"repair": repair, "entity": entity})
        for row in cursor.fetchall():
            edit = self._edit(row)
            assert edit is not None  # it was one when the repair began
            settled = self._revising.make(cursor, edit, known_at)
            self._note(cursor, edit.origin, settled)
            _count(done, edit, settled)

    def _is_made(
        self, database: Database, repair: tuple[int, int], entity: str, done: Repaired
    ) -> bool:
        """Make the edits of an entity, unless somebody else is at it; whether it did.

        The repair is named by its id and the moment from which it is known.
        """
        number, known_at = repair
        with database.transaction() as cursor:
            locked = self._lock(cursor, entity, TRY_ENTITY_LOCK)
            if locked:
                self._make(cursor, number, entity, known_at, done)
        return locked

    def _settle_in_turns(self, database: Database, entity: str) -> int:
        """Settle what is open of an entity; how many rows have a revision now."""
        revised, after = 0, NOTHING_SETTLED
        while True:
            with database.transaction() as cursor:
                if not self._lock(cursor, entity, TRY_ENTITY_LOCK):
                    return revised
                more, then = self._settle(cursor, entity, after, self._settle_seconds)
            revised += more
            if then is None:
                return revised
            after = then

    def _settle(
        self,
        cursor: Any,
        entity: str,
        after: tuple[Any, ...] = NOTHING_SETTLED,
        seconds: float = math.inf,
    ) -> tuple[int, tuple[Any, ...] | None]:
        """Settle edits behind one of them, for so long.

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
            if time.monotonic() - began >= seconds:
                return revised, place
        return revised, None

    def _lock(self, cursor: Any, entity: str, lock: str = ENTITY_LOCK) -> bool:
        """Whether it is locked now, for this transaction. Raises `DefinitionsChanged`."""
        cursor.execute(lock, (f"{self._source.name}\x1f{entity}",))
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
