"""An edit is made: its own row, and a revision of each row that it changes.

    as served      a  b  c  d  e        rows of revision 0: what live counted
    as repaired    a  b  x  d  e        what counts after all repairs
                         ▲  ▲  ▲
                      the edit, and the rows in whose windows it is

The features of both are computed by the kernel, of the ticks around the edit. A row whose features
have other bits than those that are stored, or than live computed where no repair has stored any,
gets a revision. None before the edit changes, none further behind it than the longest window, and
no row is overwritten. A revision is written in the row schema that is written now, so it has the
values of all versions, also of those that a backfill computed.

Rows that come later may have the edit in their windows, too. So an edit stays open until as many
ticks as a window has have come behind it, and is settled again now and then: the same comparison,
without an edit. That also brings the revisions to a newer row schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from psycopg2 import Binary
from psycopg2.extras import execute_values

from pipelines.repair.edits import Edit
from pipelines.repair.ticks import (
    FIRST_ROWS,
    Around,
    Features,
    Key,
    Reader,
    Revised,
    Revision,
    StoredTick,
    Values,
)
from pipelines.stores.postgres.changed_days import change_days
from pipelines.stores.postgres.let_go import in_the_lake_alone, rows_since
from pipelines.ticks.columns import NO_SEQ
from pipelines.ticks.reference_decoder import Tick
from registry.database.repair_tables import CANCELLED
from registry.definitions import Catalog, Source
from registry.formats.loaded_rows import loaded
from registry.formats.row import ValueStatus
from registry.language.program import compile_program
from registry.resources import sql

NAMED_TICK, AT_TIME = sql(__package__, "named_tick"), sql(__package__, "at_time")
INSERT = """
INSERT INTO tickwell.feature_rows (
    schema_id, entity, event_time, sequence, revision, tick_time, seq, seq_text, op, fields,
    features, status, known_at, topic_id, partition, "offset", index
) VALUES %s
"""
ROW = (
    "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::float8[], %s::float8[], %s, %s, %s::uuid, %s, %s, %s)"
)

MADE = "made"
LOADED = (
    "the tick that it names was loaded from files, and a repair changes only what came from Kafka"
)
"""Why a cancel or a correction is refused whose tick only a load has."""

OF_NO_TOPIC = bytes(16)
MOST_PARTITION = 2**31 - 1
"""By which, and not by partitions, repairs count the days that they change: they lock entities."""


class Settled(NamedTuple):
    """What came of an edit: `outcome` is `MADE`, or says why it could not be."""

    outcome: str
    key: Key | None = None
    revised: int = 0
    """Rows that have a revision now, the edit's own not counted."""
    open: bool = False
    """Whether later ticks may still have it in their windows."""
    to: Key | None = None
    """The last tick behind it that was there."""
    leaves: bool = False
    """Whether rows behind it came so late that only what is known next says what they are."""


@dataclass(frozen=True, slots=True)
class Revising:
    """Makes edits of one source, in the row schema that it is written in."""

    catalog: Catalog
    source: Source
    features: Features
    first_rows: int

    @classmethod
    def of(cls, catalog: Catalog, source: str, first_rows: int = FIRST_ROWS) -> Revising:
        """So many rows are read at first, beside those that windows need."""
        program = compile_program(catalog, catalog.schemas[catalog.writing[source]])
        return cls(catalog, catalog.sources[source], Features(program), first_rows)

    @property
    def schema_id(self) -> int:
        """The row schema of revisions."""
        return self.catalog.writing[self.source.name]

    def make(self, cursor: Any, edit: Edit, known_at: int) -> Settled:
        """Make an edit, which is known from `known_at` on, nanoseconds UTC."""
        since = rows_since(cursor, self.source.name)
        if since is not None and _time_of(edit) < since:
            return Settled(f"it reaches too far back: {in_the_lake_alone(since)}")
        if edit.kind == "insert":
            return self._insert(cursor, edit, known_at)
        return self._change(cursor, edit, known_at)

    def settle(
        self, cursor: Any, entity: str, key: Key, known_at: int, following: int | None = None
    ) -> Settled:
        """Revise what has come since an edit was made, or what a newer row schema lacks.

        `known_at` is when edits of the entity became known, these or later ones, and `following`
        when the next ones did: ticks that came after that are left to them. Where the lake alone
        has all that an edit has changed, nothing is revised: windows there may not be whole.
        """
        around = self._reader(cursor).around(entity, key, self.features.windows, known_at)
        is_open, last = self._is_open(key, around), max(around.ticks)
        since = rows_since(cursor, self.source.name)
        reached = self._reached(key, around)
        if since is not None and not is_open and all(time < since for time, _ in reached):
            return Settled(MADE, key, to=last)
        revised, leaves = self._revise(cursor, entity, key, around, known_at, following)
        return Settled(MADE, key, revised, is_open, last, leaves)

    def _insert(self, cursor: Any, edit: Edit, known_at: int) -> Settled:
        assert edit.tick is not None
        tick, time = edit.tick, edit.tick.tick_time
        reader = self._reader(cursor)
        cursor.execute(AT_TIME, {"entity": edit.entity, "schemas": self._schemas(), "time": time})
        key = (time, int(cursor.fetchone()[0]))
        around = reader.around(edit.entity, key, self.features.windows, known_at)
        if not any(at > key and one.served for at, one in around.ticks.items()):
            return Settled("nothing is stored behind it: it may not have been late")
        named = time, tick.seq, tick.seq_text
        if any(self._keys_of(cursor, edit.entity, named, of) for of in (False, True)):
            return Settled("the same ts and seq are stored already")
        around.ticks[key] = Revised(None, Revision(0, _stored(edit, tick, known_at), None), 1)
        return self._made(cursor, edit, key, around, known_at)

    def _change(self, cursor: Any, edit: Edit, known_at: int) -> Settled:
        assert edit.of is not None
        found = self._keys_of(cursor, edit.entity, edit.of)
        if not found and self._keys_of(cursor, edit.entity, edit.of, are_loaded=True):
            return Settled(LOADED)
        if len(found) != 1:
            return Settled("no tick is stored that it names" if not found else "it names several")
        ((key, is_cancelled),) = found
        if is_cancelled:
            return Settled("the tick that it names is cancelled")
        around = self._reader(cursor).around(edit.entity, key, self.features.windows, known_at)
        known = around.ticks[key]
        tick = known.newest.tick._replace(origin=edit.origin, known_at=known_at)
        if edit.tick is None:
            tick = tick._replace(op=CANCELLED)
        else:
            tick = tick._replace(fields=edit.tick.fields)
        around.ticks[key] = known._replace(newest=known.newest._replace(tick=tick, values=None))
        return self._made(cursor, edit, key, around, known_at)

    def _keys_of(
        self,
        cursor: Any,
        entity: str,
        named: tuple[int, int, str | None],
        are_loaded: bool = False,
    ) -> list[tuple[Key, bool]]:
        """The keys of the ticks that have a time and a `seq`, and whether they are cancelled.

        They are those from Kafka, or those that were loaded from files.
        """
        time, seq, seq_text = named
        if seq == NO_SEQ:
            return []  # without a seq equal ticks are ticks
        asked = {
            "entity": entity,
            "schemas": list(map(loaded, self._schemas())) if are_loaded else self._schemas(),
            "tick_time": time,
            "latest": time + self.source.skew_ns,
            "seq": seq,
            "seq_text": seq_text,
            "cancelled": CANCELLED,
        }
        cursor.execute(NAMED_TICK, asked)
        return [((int(at), int(sequence)), gone) for at, sequence, gone in cursor.fetchall()]

    def _made(self, cursor: Any, edit: Edit, key: Key, around: Around, known_at: int) -> Settled:
        """Write the row of an edit that is in `around`, and those that it changes."""
        ticks = dict(sorted(around.ticks.items()))
        one = ticks[key]
        values = self.features.of(_repaired(ticks))[key] if one.counts else self._nothing()
        made = Revision(one.numbers, one.newest.tick, values)
        self._write(cursor, edit.entity, {key: made})
        ticks[key] = one._replace(newest=made, numbers=made.number + 1)
        around = around._replace(ticks=ticks)
        revised, _ = self._revise(cursor, edit.entity, key, around, known_at, None)
        return Settled(MADE, key, revised, self._is_open(key, around), max(ticks))

    def _revise(
        self,
        cursor: Any,
        entity: str,
        key: Key,
        around: Around,
        known_at: int,
        following: int | None,
    ) -> tuple[int, bool]:
        """Write the rows from a key on whose features are others than those that are stored.

        How many, and whether some are left to what became known later.
        """
        served = self.features.of(
            {at: one.served for at, one in around.ticks.items() if one.served is not None}
        )
        repaired = self.features.of(_repaired(around.ticks))
        changed: dict[Key, Revision] = {}
        leaves = False
        for at in self._reached(key, around):
            one, values = around.ticks[at], repaired[at]
            newest = one.newest
            known = max(known_at, 0 if one.served is None else one.served.known_at)
            if following is not None and following <= known:
                leaves = True
            elif newest.number and newest.values is None:  # it is in an older row schema alone
                changed[at] = newest._replace(values=values)
            elif values != (newest.values or served.get(at)):
                tick = newest.tick._replace(known_at=known)
                changed[at] = Revision(one.numbers, tick, values)
        self._write(cursor, entity, changed)
        return len(changed), leaves

    def _reached(self, key: Key, around: Around) -> list[Key]:
        """The ticks that count, from a key on, that may have it in their windows.

        That is as far as it is in the windows of what was served, or of what is after repairs.
        """
        found, served, counting = [], 0, 0
        for at, one in around.ticks.items():
            if at < key:
                continue
            if min(served, counting) >= self.features.windows + 2:
                break
            served += one.served is not None
            counting += one.counts
            if one.counts:
                found.append(at)
        return found

    def _is_open(self, key: Key, around: Around) -> bool:
        """Whether there are fewer ticks behind an edit than a window has."""
        behind = [one for at, one in around.ticks.items() if at > key]
        served = sum(one.served is not None for one in behind)
        return min(served, sum(one.counts for one in behind)) < self.features.windows

    def _nothing(self) -> Values:
        """The features of a tick that does not count."""
        n = self.features.n
        return Values(np.full(n, np.nan).tobytes(), bytes([ValueStatus.WARMING]) * n)

    def _write(self, cursor: Any, entity: str, rows: Mapping[Key, Revision]) -> None:
        written = [
            (
                self.schema_id,
                entity,
                *key,
                one.number,
                one.tick.tick_time,
                None if one.tick.seq == NO_SEQ else one.tick.seq,
                one.tick.seq_text,
                one.tick.op,
                list(one.tick.fields),
                np.frombuffer(one.values.features, "<f8").tolist(),
                Binary(one.values.status),
                one.tick.known_at,
                *one.tick.origin,
            )
            for key, one in rows.items()
            if one.values is not None
        ]
        if written:
            execute_values(cursor, INSERT, written, ROW)
            times = np.array([time for time, _ in rows], np.int64)
            of_entity = crc32(entity.encode()) & MOST_PARTITION
            change_days(cursor, self.source.name, "repair", OF_NO_TOPIC, of_entity, times)

    def _reader(self, cursor: Any) -> Reader:
        schema = self.catalog.schemas[self.schema_id]
        fields = len(self.source.fields)
        return Reader(cursor, self._schemas(), schema, fields, self.first_rows)

    def _schemas(self) -> list[int]:
        schemas = self.catalog.schemas.values()
        return sorted(one.id for one in schemas if one.source == self.source.name)


def _repaired(ticks: Mapping[Key, Revised]) -> dict[Key, StoredTick]:
    return {key: one.newest.tick for key, one in ticks.items() if one.counts}


def _time_of(edit: Edit) -> int:
    """The time of an edit's tick, as that says it: its event time is no earlier one."""
    if edit.kind == "insert":
        assert edit.tick is not None
        return edit.tick.tick_time
    assert edit.of is not None
    return edit.of[0]


def _stored(edit: Edit, tick: Tick, known_at: int) -> StoredTick:
    return StoredTick(
        tick.tick_time,
        tick.seq,
        tick.seq_text,
        tick.op,
        tick.fields,
        known_at,
        edit.origin,
        closed=False,
    )
