"""What was found of questions: ticks, and columns of what their rows say.

However the ticks were found, a feature that their rows lack has the value that a backfill computed
of this tick, or none: never that of an older one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.formats.loaded_rows import loaded, row_schema_of
from registry.formats.row import ValueStatus
from registry.resources import sql
from serving.features.columns import MISSING, NO_TIME, RANK_OF
from serving.features.lookup import Names
from serving.history.lake.day_ticks import CLOSED, LACKS, LOADED, REVISED
from serving.history.lake.questions import Answers
from serving.history.snapshot import Snapshot

BACKFILLED = sql(__package__, "backfilled_values")
HEADER_BYTES, TRAILER_BYTES = 19, 2
"""Bytes around the rows of a binary COPY."""

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Ranks = NDArray[np.uint8]

Plan = Literal["lateral", "scan", "sweep"]
"""How ticks were read: looked up one by one, in a scan of the rows of their time in Postgres, or
day by day, in the lake as far as it has the days. Of several ways the last one is told."""

PLANS: tuple[Plan, ...] = ("lateral", "scan", "sweep")


class Asked(NamedTuple):
    """n questions: an entity at a moment, by what was known at another one (or the same)."""

    names: Sequence[str]
    """The entities."""
    entity: NDArray[np.int32]
    """(n,) Which of `names` each question is about."""
    moments: Int64s
    """(n,) Nanoseconds UTC."""
    known: Int64s
    """(n,) Nanoseconds UTC."""
    repaired: bool = False
    """Whether repairs count that were known by then; else it is what was served."""
    stored_only: bool = False
    """Whether Postgres alone is asked, where it has let go of days, too."""


class About(NamedTuple):
    """What m questions are about."""

    names: Sequence[str]
    """The entities."""
    entity: NDArray[np.int32]
    """(m,) Which of them each question is about."""
    of: NDArray[np.intp] | None = None
    """(n,) The question of each row; None where each question is a row."""

    def entities(self, which: NDArray[np.intp]) -> list[str]:
        """The entities that some are about."""
        return [self.names[i] for i in self.entity[which].tolist()]

    def rows(self, column: NDArray[Any]) -> Any:
        """(n,) A column of the questions, (m,), by rows."""
        return column if self.of is None else column[self.of]


class _Column(NamedTuple):
    """What rows say of a version, of each question."""

    values: Floats
    ranks: Ranks
    lacks: NDArray[np.bool_]


class FoundTicks:
    """The ticks of m questions, and columns of what their rows say of `refs`, `name@version`.

    The columns have n rows, each with the tick of one of the questions, or one for each question.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        names: Names,
        backfills: Backfills,
        about: About,
        refs: Collection[str],
    ) -> None:
        self._snapshot = snapshot
        self._names = names
        self._backfills = backfills
        self._about = about
        m = len(about.entity)
        self._times = np.full(m, NO_TIME, np.int64)
        self._sequences = np.zeros(m, np.int64)
        self._closed = np.zeros(m, np.bool_)
        self._revised = np.zeros(m, np.bool_)
        self._loaded = np.zeros(m, np.bool_)
        self._columns = {
            ref: _Column(np.full(m, np.nan), np.full(m, MISSING, np.uint8), np.ones(m, np.bool_))
            for ref in refs
        }
        self.plan: Plan = "lateral"

    @property
    def times(self) -> Int64s:
        """(m,) The event time of each question's tick, `NO_TIME` where there is none yet."""
        return self._times

    @property
    def refs(self) -> tuple[str, ...]:
        """The versions of which there are columns."""
        return tuple(self._columns)

    def keep(self, rows: Any) -> None:
        """Keep the ticks of rows, one a row schema, which are numbered as the questions."""
        which = rows["number"]
        self._times[which] = rows["event_time"]
        self._sequences[which] = rows["sequence"]
        if "revision" in rows.dtype.names:  # a scan is of what was served
            self._revised[which] = rows["revision"] > 0
        if rows["status"].shape[1]:
            self._closed[which[rows["status"][:, 0] == ValueStatus.CLOSED]] = True
        for schema in np.unique(rows["schema_id"]):  # a tick that is in several has equal values
            of_schema = rows["schema_id"] == schema
            numbers = which[of_schema]
            self._loaded[numbers] = schema < 0
            for ref, column in self._columns.items():
                index = self._names.index(row_schema_of(int(schema)), ref)
                if index is not None:
                    column.values[numbers] = rows["values"]["value"][of_schema, index]
                    column.ranks[numbers] = RANK_OF[rows["status"][of_schema, index]]
                    column.lacks[numbers] = False

    def take(self, which: Any, answers: Answers) -> None:
        """Take the answers to some of the questions, with the versions in the order of `refs`."""
        self._times[which], self._sequences[which] = answers.times, answers.sequences
        self._closed[which] = (answers.flags & CLOSED) > 0
        self._loaded[which] = (answers.flags & LOADED) > 0
        self._revised[which] = (answers.flags & REVISED) > 0
        for column, values, statuses in zip(
            self._columns.values(), answers.values, answers.statuses, strict=True
        ):
            column.values[which] = values
            column.lacks[which] = lacks = statuses == LACKS
            column.ranks[which] = np.where(lacks, MISSING, RANK_OF[statuses])

    @property
    def event_times(self) -> Int64s:
        """(n,) Nanoseconds UTC, `NO_TIME` where there is no tick yet."""
        found: Int64s = self._about.rows(self._times)
        return found

    @property
    def sequences(self) -> Int64s:
        """(n,) The sequence of each tick, 0 where there is none yet."""
        found: Int64s = self._about.rows(self._sequences)
        return found

    @property
    def closed(self) -> NDArray[np.bool_]:
        """(n,) Whether the entity was closed."""
        found: NDArray[np.bool_] = self._about.rows(self._closed)
        return found

    @property
    def loaded(self) -> NDArray[np.bool_]:
        """(n,) Whether each tick came from files."""
        found: NDArray[np.bool_] = self._about.rows(self._loaded)
        return found

    def column(self, ref: str) -> tuple[Floats, Ranks, NDArray[np.bool_]]:
        """Values of a version, the ranks of their statuses, and where it has none of the tick.

        Each is (n,). A value is NaN where there is none. The version is one of `refs`.
        """
        values, ranks, lacks = self._columns[ref]
        lacks &= self._times != NO_TIME
        backfill = self._backfills.get(ref)
        # what a backfill computed of a tick is of what was served
        blocks = lacks & ~self._revised
        if backfill is not None and blocks.any():
            which, found, statuses = self._backfilled(backfill, np.flatnonzero(blocks))
            values[which], ranks[which] = found, RANK_OF[statuses]
            lacks[which] = False
        of = self._about.rows
        return of(values), of(ranks), of(lacks)

    def _backfilled(self, backfill: int, lacking: NDArray[np.intp]) -> tuple[Any, Any, Any]:
        """Which of the ticks a backfill has, with values and statuses."""
        parts = [
            {
                "numbers": part.tolist(),
                "backfills": np.where(self._loaded[part], loaded(backfill), backfill).tolist(),
                "entities": self._about.entities(part),
                "event_times": self._times[part].tolist(),
                "sequences": self._sequences[part].tolist(),
            }
            for part in self._snapshot.shares(lacking)
        ]
        rows = backfilled_values(self._snapshot, parts)
        return rows["number"], rows["value"], rows["status"]


def backfilled_values(snapshot: Snapshot, asked: Sequence[Mapping[str, Any]]) -> Any:
    """The rows of `backfilled_values.sql` for parameters, as many as sessions read at once."""
    found = [_rows(one, BACKFILLED_ROW) for one in snapshot.copied(BACKFILLED, asked)]
    return np.concatenate(found)


Backfills = Mapping[str, int]
"""The ids of backfills that are complete, by `name@version`."""


def backfills_of(snapshot: Snapshot) -> Backfills:
    """The complete backfills."""
    complete = "SELECT name || '@' || version, id FROM tickwell.backfills WHERE state = 'complete'"
    return {str(ref): int(number) for ref, number in snapshot.rows(complete, {})}


BACKFILLED_ROW = np.dtype(
    [
        ("columns", ">i2"),
        *(("number_size", ">i4"), ("number", ">i4")),
        *(("value_size", ">i4"), ("value", ">f8")),
        *(("status_size", ">i4"), ("status", ">i2")),
    ]
)
"""A row of `backfilled_values.sql` in PostgreSQL's binary COPY format."""


def _rows(sent: memoryview, dtype: np.dtype[np.void]) -> Any:
    return np.frombuffer(sent[HEADER_BYTES:-TRAILER_BYTES], dtype)
