"""Writes the files of one day anew, as a whole.

Postgres has all rows of a day, unless it has let go of it (`lake_days.dropped_at`). Then the day is
what its files and Postgres have together, and the old files are read as well: so it is put on
record which file is about to take the place of which, since either may be there after a kill.

A file never gives way to one with fewer rows, but for those of a load that was given up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Engine

from pipelines.lake.backfilled import backfilled_values
from pipelines.lake.columns import LakeSchema, arrow_table
from pipelines.lake.day_rows import DayRows, Take
from pipelines.lake.days import (
    DayFile,
    LakeDay,
    day_in,
    loads_in,
    record_day,
    record_moves,
    schemas_of,
    watermarks_in,
)
from pipelines.lake.files import UnfinishedFile, WrittenFile, move_to, sha256_of
from pipelines.lake.merged_file import MergedFile
from pipelines.lake.snapshot import DaySnapshot, day_snapshot
from registry.formats.lake import day_number, file_path

logger = logging.getLogger(__name__)

Written = dict[int, tuple[LakeSchema, WrittenFile]]


class NotExported(Exception):
    """A day whose files stay as they are; says why."""


class _Writing(Protocol):
    """A file that is being written."""

    def add(self, table: pa.Table) -> None: ...

    def finish(self) -> WrittenFile: ...

    def discard(self) -> None: ...


class DayExport:
    """Writes the files of a day; `wait` is called before each row group."""

    def __init__(
        self, engine: Engine, lake: Path, reader: DayRows, wait: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._lake = lake
        self._reader = reader
        self._wait = wait
        self._open: dict[int, _Writing] = {}
        self._old: Mapping[int, Path] = {}
        self._writing: Future[None] | None = None

    def write(self, wanted: LakeDay, check_alone: Callable[[], None]) -> list[WrittenFile]:
        """The files of a day, written and put on record.

        Raises `NotExported`, what `check_alone` and `wait` raise, and as `LakeExport.run`.
        """
        try:
            with day_snapshot(self._engine) as seen:
                day = day_in(seen, wanted.source, wanted.day)
                assert day is not None, "what is counted once stays counted"
                self._old = self._files_to_keep(day)
                watermarks = watermarks_in(seen, day.source)
                schemas = schemas_of(seen.asking, seen.catalog)
                self._copy(seen, day, schemas)
                loads = loads_in(seen, day.source)
                written = {one: (schemas[one], file.finish()) for one, file in self._open.items()}
            check_alone()
            shrunk = self._check_none_lost(day, written, loads)
        except BaseException:
            self._discard()
            raise
        if day.dropped or shrunk:
            with self._engine.begin() as connection:
                record_moves(connection, day, written)
        for schema_id, (_, whole) in written.items():
            move_to(whole, self._lake / file_path(day.source, schema_id, day.day))
        with self._engine.begin() as connection:
            record_day(connection, day, watermarks, written)
        return [file for _, file in written.values()]

    def _files_to_keep(self, day: LakeDay) -> Mapping[int, Path]:
        """The files whose rows Postgres does not have any more, by row schema."""
        if not day.dropped:
            return {}
        found = {one.schema_id: self._lake / one.path for one in day.files}
        for one in day.files:
            path = found[one.schema_id]
            try:
                is_known = sha256_of(path) in (one.sha256, one.moving)
            except FileNotFoundError:
                raise NotExported(
                    f"{one.path} is gone, and Postgres does not have its rows any more: put it "
                    "back from a copy"
                ) from None
            if not is_known:
                raise NotExported(
                    f"{one.path} is not the file that is on record, and Postgres does not have its "
                    "rows any more: put it back from a copy"
                )
        return found

    def _copy(self, seen: DaySnapshot, day: LakeDay, schemas: dict[int, LakeSchema]) -> None:
        source, number = seen.catalog.sources[day.source], day_number(day.day)
        with ThreadPoolExecutor(1, "lake") as pool:
            self._reader.copy(seen, source, number, partial(self._begin, seen, schemas, pool))
            self._written()
        # of these no row of Postgres is added, or a load was given up that had all of them
        emptied = {one.schema_id for one in day.files if one.schema_id < 0}
        for schema_id in (self._old.keys() | emptied) - self._open.keys():
            self._file(seen, schemas[schema_id], schema_id)

    def _begin(
        self, seen: DaySnapshot, schemas: dict[int, LakeSchema], pool: ThreadPoolExecutor
    ) -> Take:
        """What writes rows while the next ones are copied."""
        self._written()
        self._discard()

        def take(schema_id: int, rows: Any) -> None:
            self._wait()
            self._written()
            self._writing = pool.submit(self._add, seen, schemas[schema_id], schema_id, rows)

        return take

    def _add(self, seen: DaySnapshot, wanted: LakeSchema, schema_id: int, rows: Any) -> None:
        table = arrow_table(wanted, rows, backfilled_values(seen, wanted, rows))
        self._file(seen, wanted, schema_id).add(table)

    def _file(self, seen: DaySnapshot, wanted: LakeSchema, schema_id: int) -> _Writing:
        found = self._open.get(schema_id)
        if found is None:
            old, most = self._old.get(schema_id), self._reader.rows_a_group
            found = (
                UnfinishedFile(self._lake, wanted.arrow())
                if old is None
                else MergedFile((self._lake, old), wanted, seen, most, self._wait)
            )
            self._open[schema_id] = found
        return found

    def _written(self) -> None:
        """Wait for the rows that are being written, and raise what that raised."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _check_none_lost(self, day: LakeDay, written: Written, loads: frozenset[str]) -> bool:
        """Whether a file gives way to one with fewer rows, since a load was given up.

        Raises `NotExported` where it would lack others, too.
        """
        fewer = [one for one in day.files if _rows_of(written, one.schema_id) < one.rows]
        if any(_rows_of(written, one.schema_id) < self._rows_of_loads(one, loads) for one in fewer):
            raise NotExported("Postgres has fewer rows than the lake, whose files stay as they are")
        return bool(fewer)

    def _rows_of_loads(self, file: DayFile, loads: frozenset[str]) -> int:
        """The rows of a file but for those of loads that were given up."""
        path = self._lake / file.path
        if file.schema_id > 0 or not path.is_file():
            return file.rows
        if sha256_of(path) not in (file.sha256, file.moving):
            return file.rows
        known = pa.array(sorted(loads), pa.string())
        with pq.ParquetFile(path, pre_buffer=False) as opened:
            batches = opened.iter_batches(columns=["topic_id"])
            kept = (pc.sum(pc.is_in(one["topic_id"], known)).as_py() for one in batches)
            return sum(number or 0 for number in kept)

    def _discard(self) -> None:
        for file in self._open.values():
            file.discard()
        self._open.clear()


def _rows_of(written: Written, schema_id: int) -> int:
    found = written.get(schema_id)
    return 0 if found is None else found[1].rows
