"""What a training set is to have, and the join that makes it, a table of rows after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np

from serving.errors import InvalidRequest
from serving.history.closing import closed
from serving.history.entity_rows import FIRST_MOMENT, EntityRows, Int64s, entity_rows, stamps
from serving.history.files import pieces, rows_a_piece
from serving.history.made import Made
from serving.history.past_columns import PastColumn
from serving.history.point_in_time import PointInTimeJoin
from serving.history.ranges import Ranges
from serving.history.snapshot import Snapshot
from serving.history.splitting import SPLIT, Split, column_of, shares
from serving.history.training_set import Form, Report, Stale, table_of

Keep = Callable[[EntityRows, Mapping[str, PastColumn]], None]
"""Takes rows, and their features by the names of columns."""

Progress = Callable[[int, int], None]
"""Takes the number of rows that are done, and of all."""

Versions = Literal["active", "as_served"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a training set is to have.

    `time_column` has the moments; naive ones are local times of `timezone`. Each row has what was
    known `delay` nanoseconds before its moment; with `as_known_at`, nanoseconds UTC, what was known
    then. A name without a version means what is active now, or in each row what was served at its
    moment. A set that is open (`serving.history.closing`) is made with `allow_open` alone. With
    `split` a column says which rows are of training and which of the test. Raises `InvalidRequest`
    for what goes not together.
    """

    features: Sequence[str]
    time_column: str = "timestamp"
    timezone: str | None = None
    as_known_at: int | None = None
    delay: int = 0
    versions: Versions = "active"
    stale: Stale = "keep"
    event_times: bool = False
    allow_open: bool = False
    split: Split | None = None

    def __post_init__(self) -> None:
        if self.delay and self.as_known_at is not None:
            raise InvalidRequest(
                "a delay is before each row's moment, and with as_known_at one moment counts for "
                "all rows: give one of them"
            )

    @property
    def added(self) -> list[str]:
        """The names of columns that are no features'."""
        return [] if self.split is None else [SPLIT]

    @property
    def form(self) -> Form:
        """The columns of the set."""
        return Form(self.stale, self.event_times, self.versions == "as_served")

    def known(self, moments: Int64s) -> Int64s:
        """By when ticks had to be known that count at the moments."""
        if self.as_known_at is not None:
            return np.full(len(moments), self.as_known_at, np.int64)
        return np.maximum(moments, FIRST_MOMENT + self.delay) - self.delay


def wanted_of(made: Made) -> Wanted:
    """What was wanted of a set, but for its features, which are pinned."""
    return Wanted(
        (),
        made.time_column,
        made.timezone,
        made.as_known_at,
        made.delay,
        made.versions,
        made.stale,
        made.event_times,
        allow_open=True,
    )


class SetJoin:
    """Joins tables of rows with the features of a training set, in one snapshot.

    `report` says what is in it so far. Without `join` it is one with the features that are wanted.
    Raises as `PointInTimeJoin.of_names`.
    """

    def __init__(
        self, snapshot: Snapshot, wanted: Wanted, join: PointInTimeJoin | None = None
    ) -> None:
        self.wanted = wanted
        self.join = join or PointInTimeJoin.of_names(
            snapshot, wanted.features, wanted.versions == "as_served"
        )
        self.closed = closed(snapshot, self.join.topics)
        self.report = Report()
        self._keep: Keep | None = None
        self._answered = 0

    def keep(self, keep: Keep, ranges: Ranges | None = None) -> None:
        """Give what is joined from now on also to `keep`, and note which entities it is about."""
        self._keep = keep
        self.join.note(ranges)

    @property
    def rows_a_piece(self) -> int:
        """How many rows are joined at a time."""
        return rows_a_piece(len(self.join.versions))

    @contextmanager
    def sweeping(
        self,
        tables: Iterable[Any],
        rows: int,
        progress: Progress = lambda done, total: None,
        stop: Event | None = None,
        folder: Path | None = None,
    ) -> Iterator[None]:
        """Answer all rows at once beforehand, where they are many and the lake has their days.

        `tables` are those that will be joined, in their order, with so many rows. Temporary files
        are in `folder`. Raises `Stopped`, `StoresUnavailable`, `InvalidRequest`, SQLAlchemy's
        `DBAPIError`, and OSError.
        """
        limits = self.join.snapshot.lake
        if limits.folder is None or rows < limits.fewest_questions:
            yield
            return

        def answered(part: float) -> None:
            self._answered = round(rows * part)
            progress(self.done, rows)

        repaired = self.wanted.as_known_at is not None
        with self.join.set_sweep(self.wanted.known, repaired, folder) as swept:
            swept.run(self._pieces(tables), stop, answered)
            yield

    @property
    def done(self) -> int:
        """How many rows are done; those that a sweep has answered are by half."""
        joined = self.report.rows
        return (joined + self._answered) // 2 if self._answered else joined

    def _pieces(self, tables: Iterable[Any]) -> Iterator[EntityRows]:
        first = 0
        for table in tables:
            rows = self._rows(table, self.join.key_fields, first)
            first += len(rows)
            yield rows

    def asked_in(self, source: Any) -> Iterator[Any]:
        """What is asked of the rows of an opened file, in the pieces in which they are joined."""
        wanted = [*self.join.key_fields, self.wanted.time_column]
        has_all = set(wanted) <= set(source.schema_arrow.names)  # else the error says what there is
        return pieces(source, self.rows_a_piece, wanted if has_all else None)

    def check(self, tables: Iterable[Any]) -> None:
        """Count the rows that are open, of tables with the column of moments.

        Raises `OpenTrainingSet` unless they are allowed, and `InvalidRequest`.
        """
        first = 0
        for table in tables:
            rows = self._rows(table, (), first)
            known = self.wanted.known(rows.moments)
            if not self.wanted.allow_open:
                self.closed.check(known, first)
            self.report.open += self.closed.open_rows(known)
            first += len(rows)

    def added(self, table: Any) -> Any:
        """The columns that are added to the next rows. Raises `InvalidRequest`."""
        first = self.report.rows
        rows = self._rows(table, self.join.key_fields, first)
        repaired = self.wanted.as_known_at is not None
        columns = self.join.columns(rows, self.wanted.known(rows.moments), first, repaired)
        self.report.count(columns)
        self.report.plans.update(self.join.plans)
        if self._keep is not None:
            self._keep(rows, columns)
        added, split = table_of(columns, self.wanted.form), self.wanted.split
        if split is None:
            return added
        ends = stamps(table, split.label_end, self.wanted.timezone, first)
        found = column_of(shares(rows.moments, ends, split.at, split.embargo, first))
        return added.append_column(SPLIT, found)

    def _rows(self, table: Any, fields: Sequence[str], first: int) -> EntityRows:
        return entity_rows(table, fields, self.wanted.time_column, self.wanted.timezone, first)

    def made(self) -> Made:
        """What the set says of how it was made, once its rows are checked."""
        return Made(
            pins=self.join.pins,
            time_column=self.wanted.time_column,
            timezone=self.wanted.timezone,
            as_known_at=self.wanted.as_known_at,
            stale=self.wanted.stale,
            event_times=self.wanted.event_times,
            made_at=time.time_ns(),
            delay=self.wanted.delay,
            versions=self.wanted.versions,
            open=self.report.open,
            closed_until=self.closed.until,
        )
