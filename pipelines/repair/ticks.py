"""The ticks of an entity around one of them, as live counted them and as repairs have left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.compute.recomputation import AcceptedTicks, Recomputation
from pipelines.errors import StateOfOtherFields
from pipelines.repair.edits import TickOrigin
from pipelines.ticks.columns import NO_SEQ
from registry.database.repair_tables import CANCELLED
from registry.definitions import RowSchema
from registry.formats.row import ValueStatus
from registry.language.program import Program
from registry.resources import sql

TICKS_AROUND = sql(__package__, "ticks_around")
BEFORE = TICKS_AROUND.format(side="<", key_side="<", direction="DESC")
FROM = TICKS_AROUND.format(side=">", key_side=">=", direction="ASC")

FIRST_ROWS = 256
"""Rows of a row schema that are read at first, beside those that windows need."""

Key = tuple[int, int]
"""Event time, in nanoseconds UTC, and sequence."""


class StoredTick(NamedTuple):
    """A row without its features."""

    tick_time: int
    seq: int
    seq_text: str | None
    op: int
    fields: tuple[float, ...]
    known_at: int
    origin: TickOrigin
    closed: bool


class Values(NamedTuple):
    """The features of a row, and their statuses, to the bit."""

    features: bytes
    """float64, little-endian."""
    status: bytes


class Revision(NamedTuple):
    """A row of a tick as a repair, or live, has written it."""

    number: int
    tick: StoredTick
    """Its `known_at` is that of the revision."""
    values: Values | None
    """Those that a repair has stored in the row schema that is written."""


class Revised(NamedTuple):
    """A key of an entity's ticks, as it was known at a moment."""

    served: StoredTick | None
    """What live counted; None where only a repair has a tick."""
    newest: Revision
    """What counts after the repairs; the `op` may be `CANCELLED`."""
    numbers: int
    """The next revision's number: repairs that became known later may have numbers, too."""

    @property
    def counts(self) -> bool:
        """Whether a tick is there after the repairs."""
        return self.newest.tick.op != CANCELLED


class Around(NamedTuple):
    """The ticks of an entity around a key, in their order."""

    ticks: dict[Key, Revised]
    reaches_end: bool
    """Whether there is none behind them yet."""


class Reader:
    """Reads ticks of one source, in the transaction of `cursor`."""

    def __init__(
        self,
        cursor: Any,
        schemas: Sequence[int],
        writing: RowSchema,
        source_fields: int,
        first_rows: int = FIRST_ROWS,
    ) -> None:
        self._cursor = cursor
        self._schemas, self._writing = list(schemas), writing
        self._fields, self._first_rows = source_fields, first_rows

    def around(self, entity: str, key: Key, windows: int, known: int) -> Around:
        """The ticks of an entity from so many before a key to so many behind it, or all there are.

        They are that many at least of those that live counted, and of those that count after the
        repairs that were known at a moment. Raises `StateOfOtherFields`.
        """
        before, _ = self._side(entity, key, windows, BEFORE, known)
        behind, ended = self._side(entity, key, windows + 1, FROM, known)
        return Around(dict(sorted({**before, **behind}.items())), ended)

    def _side(
        self, entity: str, key: Key, wanted: int, statement: str, known: int
    ) -> tuple[dict[Key, Revised], bool]:
        most = 2 * wanted + self._first_rows
        while True:
            rows, whole = self._rows(entity, key, most, statement)
            found = _as_known(rows, known)
            served = sum(one.served is not None for one in found.values())
            counting = sum(one.counts for one in found.values())
            if whole or min(served, counting) >= wanted:
                return found, whole
            most *= 2

    def _rows(
        self, entity: str, key: Key, most: int, statement: str
    ) -> tuple[dict[Key, dict[int, Revision]], bool]:
        """The revisions of each tick, by their number, and whether there is no other tick."""
        asked = {
            "entity": entity,
            "time": key[0],
            "sequence": key[1],
            "schemas": self._schemas,
            "writing": self._writing.id,
            "closed": bytes([ValueStatus.CLOSED]),
            "most": most,
        }
        self._cursor.execute(statement, asked)
        rows, whole = _known(self._cursor.fetchall(), most, descends=statement is BEFORE)
        found: dict[Key, dict[int, Revision]] = {}
        for row in rows:
            at, revision = self._revision(row)
            of_key = found.setdefault(at, {})
            if revision.number not in of_key or revision.values is not None:
                of_key[revision.number] = revision
        return found, whole

    def _revision(self, row: Sequence[Any]) -> tuple[Key, Revision]:
        _, time, sequence, number, tick_time, seq, seq_text, op, fields, known_at, *rest = row
        topic_id, partition, offset, element, closed, features, status = rest
        if len(fields) != self._fields:
            raise StateOfOtherFields(
                "the source",
                f"rows in Postgres have ticks of {len(fields)} fields, and the source has "
                f"{self._fields}",
            )
        tick = StoredTick(
            tick_time,
            NO_SEQ if seq is None else seq,
            seq_text,
            op,
            tuple(fields),
            known_at,
            TickOrigin(topic_id, partition, offset, element),
            closed,
        )
        values = None if features is None else _values(np.array(features), bytes(status))
        return (time, sequence), Revision(number, tick, values)


def _as_known(rows: Mapping[Key, Mapping[int, Revision]], known: int) -> dict[Key, Revised]:
    """The ticks as repairs had left them that were known at a moment.

    A row that came later has a revision of the repairs before it that is known as late as itself.
    The newest is the one that became known last, whatever its number: where a newer row schema has
    longer windows, an earlier repair gets to rows that a later one has revised already.
    """
    found = {}
    for key, revisions in rows.items():
        served = revisions.get(0)
        until = known if served is None else max(known, served.tick.known_at)
        seen = [number for number, one in revisions.items() if one.tick.known_at <= until]
        if seen:
            newest = revisions[max(seen, key=lambda n: (n > 0 and revisions[n].tick.known_at, n))]
            tick = None if served is None else served.tick
            found[key] = Revised(tick, newest, max(revisions) + 1)
    return found


def _known(rows: Sequence[Any], most: int, descends: bool) -> tuple[list[Any], bool]:
    """The rows of which all row schemas are known, and whether that is all there are.

    A row schema that gave `most` rows may have more behind its last one; that tick itself may have
    more revisions.
    """
    counts: dict[int, int] = {}
    last: dict[int, Key] = {}
    for number, time, sequence, *_ in rows:
        counts[number] = counts.get(number, 0) + 1
        last[number] = (time, sequence)
    ends = [last[number] for number, count in counts.items() if count == most]
    if not ends:
        return list(rows), True
    if descends:
        end = max(ends)
        return [row for row in rows if (row[1], row[2]) > end], False
    end = min(ends)
    return [row for row in rows if (row[1], row[2]) < end], False


class Features:
    """Computes the features of a program over ticks of one entity, field by field."""

    def __init__(self, program: Program) -> None:
        self.n = len(program.code)
        self.windows = max(1, program.lookback - 1)
        """Ticks that are in the window of the next one."""
        self._parts = [
            (Recomputation(part), which)
            for part, which in (_of_field(program, field) for field in _fields(program))
        ]

    def of(self, ticks: Mapping[Key, StoredTick]) -> dict[Key, Values]:
        """The features of each of the ticks, which are in their order."""
        n = len(ticks)
        features, status = np.full((n, self.n), np.nan), np.zeros((n, self.n), np.uint8)
        listed = list(ticks.values())
        closed = np.array([bool(listed) and listed[0].closed])
        for recomputation, which in self._parts:
            field = recomputation.field
            accepted = AcceptedTicks(
                np.zeros(n, np.int32),
                np.array([one.op for one in listed], np.uint8),
                np.array([one.fields[field] for one in listed], np.float64),
                closed,
            )
            found = recomputation.compute(accepted)
            features[:, which], status[:, which] = found.features, found.status
        return {key: _values(features[i], status[i].tobytes()) for i, key in enumerate(ticks)}


def _fields(program: Program) -> list[int]:
    return [int(field) for field in np.unique(program.code[:, 1])]


def _of_field(program: Program, field: int) -> tuple[Program, Any]:
    which = np.flatnonzero(program.code[:, 1] == field)
    return Program(program.source, program.code[which], program.lookback), which


def _values(features: Any, status: bytes) -> Values:
    """Of the many NaN that there are, one stands for none."""
    return Values(np.where(np.isnan(features), np.nan, features).astype("<f8").tobytes(), status)
