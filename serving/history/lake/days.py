"""The days of a source as a snapshot has them: which of them the lake has, and in which files.

A day is read in its files where these have all that was stored of it, in Postgres where they have
not, and in both where Postgres has let go of it: then what is there of it came later, or is needed
by workers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.formats.lake import DAY_NS, day_of
from registry.resources import sql
from serving.errors import StoresUnavailable
from serving.history.snapshot import Snapshot

DAYS_OF_SOURCE, DROPPED_DAYS = sql(__package__, "days_of_source"), sql(__package__, "dropped_days")
LOADED = "SELECT DISTINCT -schema_id FROM tickwell.loads WHERE source = %(source)s ORDER BY 1 DESC"
"""The ids under which a source has loaded rows: in a database without loads nobody looks there."""

Int64s = NDArray[np.int64]


class DayFile(NamedTuple):
    """A file of a day as the manifest has it; `schema_id` is negative for loaded rows."""

    schema_id: int
    path: Path
    rows: int
    bytes: int


class Day(NamedTuple):
    """A day of a source, numbered from 1970-01-01 on: its files, and whether Postgres is read."""

    number: int
    files: tuple[DayFile, ...] = ()
    in_postgres: bool = True
    dropped: bool = False

    @property
    def rows(self) -> int:
        """Rows of its files."""
        return sum(file.rows for file in self.files)


class SourceDays(NamedTuple):
    """The days of a source, by number, in order."""

    source: str
    days: Mapping[int, Day]

    @property
    def in_lake(self) -> bool:
        """Whether any is read in files."""
        return any(day.files for day in self.days.values())

    def between(self, first: int, last: int) -> list[Day]:
        """Those from one to another, the oldest first."""
        return [day for number, day in self.days.items() if first <= number <= last]


def days_of(snapshot: Snapshot, source: str) -> SourceDays:
    """The days of a source. Raises `StoresUnavailable` for a file that is needed and not there."""
    found = snapshot.rows(DAYS_OF_SOURCE, {"source": source})
    return SourceDays(
        source, {int(row[0]): _day(snapshot.lake.folder, source, row) for row in found}
    )


def _day(lake: Path | None, source: str, row: Sequence[object]) -> Day:
    number, whole, dropped, *columns = row
    assert isinstance(number, int)
    if not (dropped or (whole and lake is not None)):
        return Day(number)
    if lake is None:
        raise no_lake(source, number)
    files = tuple(
        DayFile(schema, lake / path, int(rows), int(size))
        for schema, path, rows, size in zip(*columns, strict=True)
    )
    if dropped:
        return Day(number, files, in_postgres=True, dropped=True)
    if not files or not all(_is_there(file) for file in files):
        return Day(number)
    return Day(number, files, in_postgres=False)


def _is_there(file: DayFile) -> bool:
    """Whether a file is that of the manifest; one that took its place has more rows, or columns."""
    try:
        return os.stat(file.path).st_size == file.bytes
    except OSError:
        return False


def no_lake(source: str, day: int) -> StoresUnavailable:
    """What is said where the lake is needed and its folder is not known."""
    return StoresUnavailable(
        f"Postgres has let go of the ticks of {source} on {day_of(day)}: they are in the lake, "
        "which is not read here. `tickwell training-set` and `tickwell explain` read it, with "
        "TICKWELL_LAKE naming its folder"
    )


class Dropped:
    """The days of which Postgres has let go."""

    def __init__(self, snapshot: Snapshot, source: str) -> None:
        found = snapshot.rows(DROPPED_DAYS, {"source": source})
        self._days = np.array([number for (number,) in found], np.int64)

    def __bool__(self) -> bool:
        return bool(len(self._days))

    def between(self, since: Int64s, until: Int64s) -> NDArray[np.bool_]:
        """Whether one of them lies between two moments, or has one of these, for each two."""
        before = np.searchsorted(self._days, since // DAY_NS, "left")
        after = np.searchsorted(self._days, until // DAY_NS, "right")
        return after > before


def loaded_schemas(snapshot: Snapshot, source: str) -> list[int]:
    """The ids under which a source has loaded rows."""
    return [int(number) for (number,) in snapshot.rows(LOADED, {"source": source})]
