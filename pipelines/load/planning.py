"""The steps of a load before its first row: read, compare, attach the months, record.

1. The digest of the files and their mapping say which load it is. One that is done is done.
2. The rows of the files are written to disk, by partition.
3. What it meets of rows that are stored is compared, unless it was begun: then that is recorded.
4. The months of its ticks are attached: rows of a month that has no partition yet would fall into
   the default one, and stay there.
5. It is recorded, and its partitions can be stored in any order, by any number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.load.errors import (
    LoadForgotten,
    LoadRulesChanged,
    LoadUnfinished,
    MonthBusy,
    NotLoadable,
)
from pipelines.load.identity import FileContents, contents_of, load_id, mapping_of
from pipelines.load.load import Load, LoadPart
from pipelines.load.load_sink import APPLICATION
from pipelines.load.loads import Begun, Loads, RecordedLoad
from pipelines.load.overlaps import as_text, overlaps
from pipelines.load.sorted_runs import RUN_TICKS, Span
from pipelines.load.spill import KnownAt, Spilled, spill
from pipelines.produce.checking import TickFiles
from pipelines.produce.options import FileOptions
from pipelines.replay.stop import Stop
from pipelines.stores.postgres.connection import Database
from pipelines.stores.postgres.let_go import in_the_lake_alone, rows_since
from registry.database.month_partitions import attach, unattached
from registry.definitions import Catalog, Source
from registry.source_rules import SourceRules

ATTEMPTS = 20
"""Attempts to attach months; each waits half a second at most, and delays queries for as long."""

MOST_MONTHS = 1_200
"""Months of a load: a century. More are a mistaken unit of time."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a load is done; `file_options` and `known_at` say what its rows mean.

    `heartbeats` and `cluster` are as in `replay.replay.Replay`.
    """

    file_options: FileOptions
    known_at: KnownAt
    by: str
    heartbeats: tuple[str, ...] = ()
    cluster: str | None = None
    run_ticks: int = RUN_TICKS


@dataclass(frozen=True, slots=True)
class Plan:
    """A load that can be stored: its parts, and what was found in its files."""

    load: Load
    parts: tuple[LoadPart, ...]
    spilled: Spilled
    files: tuple[FileContents, ...]


class Planner:
    """Plans the load of `files` as ticks of `source` into the database at `postgres`."""

    def __init__(
        self,
        postgres: str,
        loads: Loads,
        catalog: Catalog,
        source: Source,
        files: Sequence[Path],
        options: LoadOptions,
    ) -> None:
        """Raises `NotLoadable` for a source whose messages have a shape of their own."""
        _check_loadable(source)
        self._postgres = postgres
        self._loads = loads
        self._catalog = catalog
        self._source = source
        self._files = tuple(files)
        self._options = options
        self._rules = SourceRules.of(catalog, source.name).newest
        self.contents = tuple(contents_of(file) for file in files)
        self.mapping = mapping_of(source, options.file_options, options.known_at.delay_ns)
        self.load_id = load_id(self.contents, self.mapping)

    def recorded(self) -> RecordedLoad | None:
        """The load as it is recorded, if it was begun.

        Raises `LoadForgotten` and `LoadRulesChanged`.
        """
        found = self._loads.find(self.load_id)
        if found is not None and found.forgotten_at is not None:
            raise LoadForgotten(found.id_shown)
        unfinished = found is not None and found.finished_at is None
        if found is not None and unfinished and found.rules != self._rules.id:
            raise LoadRulesChanged(self._source.name, found.id_shown)
        return found

    def plan(
        self,
        directory: Path,
        progress: Callable[[float, int], None],
        stop: Stop,
        dry_run: bool = False,
    ) -> Plan:
        """Take all steps; `progress` is told how much of the files is read, 0 to 1, and how many
        rows. With `dry_run` nothing in the database changes, and the parts are all of the load.

        The caller holds `loads.alone`. Raises `LoadUnfinished`, `RowsDiffer`, `MonthBusy`,
        `NotLoadable`, the errors of `spill.spill`, `StoreUnavailable` and `Stopped`.
        """
        options, begun = self._options, self.recorded()
        files = TickFiles(self._files, self._source, options.file_options)
        spilled = spill(
            files,
            options.known_at,
            directory,
            lambda rows: progress(files.done(), rows),
            stop,
        )
        _check_months(spilled)
        self._check_let_go(spilled)
        load = self._load(directory, begun)
        if begun is None:
            self._check_unfinished(spilled)
            load = replace(load, overlaps=overlaps(load, stop))
        else:
            load = replace(load, overlaps=self._loads.overlaps(self.load_id))
        if dry_run:
            whole = {n: (0, ticks) for n, ticks in enumerate(spilled.ticks) if ticks}
            load = replace(load, stores=False)
            return Plan(load, _parts(whole), spilled, self.contents)
        self._attach(spilled, stop)
        if begun is None:
            self._loads.begin(self._begun(load), spilled, load.overlaps)
            load = self._load(directory, self.recorded(), load)
        return Plan(load, _parts(self._loads.progress(self.load_id)), spilled, self.contents)

    def _load(
        self, directory: Path, begun: RecordedLoad | None, before: Load | None = None
    ) -> Load:
        options = self._options
        schema = self._catalog.writing[self._source.name] if begun is None else begun.schema_id
        began_ns = 0 if begun is None else int(begun.began_at.timestamp() * 10**6) * 1000
        return Load(
            postgres=self._postgres,
            catalog=self._catalog,
            source=self._source.name,
            load_id=self.load_id,
            schema_id=schema,
            directory=directory,
            overlaps={} if before is None else before.overlaps,
            others=tuple(sorted(self._loads.schemas(self._source.name, self.load_id))),
            earlier=tuple(self._loads.earlier(self._source.name, begun)),
            began_ns=began_ns,
            heartbeats=options.heartbeats,
            cluster=options.cluster,
            run_ticks=options.run_ticks,
        )

    def _begun(self, load: Load) -> Begun:
        return Begun(
            load_id=self.load_id,
            source=self._source.name,
            schema_id=load.schema_id,
            rules=self._rules.id,
            files=self.contents,
            mapping=self.mapping,
            by=self._options.by,
        )

    def _check_unfinished(self, spilled: Spilled) -> None:
        """What is left of another load is nowhere to be compared with."""
        if spilled.first is None or spilled.last is None:
            return
        span = Span(spilled.first, spilled.last)
        for one in self._loads.unfinished(self._source.name, self.load_id, span):
            names = [file.name for file in one.files]
            raise LoadUnfinished(self._source.name, names, one.began_by, one.id_shown)

    def _check_let_go(self, spilled: Spilled) -> None:
        """What is in the lake alone can be compared with nothing."""
        if spilled.first is None:
            return
        with (
            closing(Database(self._postgres, APPLICATION)) as database,
            database.transaction() as cursor,
        ):
            since = rows_since(cursor, self._source.name)
        if since is not None and spilled.first < since:
            raise NotLoadable(
                f"the first tick is of {as_text(spilled.first)}, and {in_the_lake_alone(since)}: "
                "neither can its ticks be compared, nor those be in the windows of these. Load "
                "the ticks from then on. Nothing was stored"
            )

    def _attach(self, spilled: Spilled, stop: Stop) -> None:
        engine: Any = self._loads.engine
        for _ in range(ATTEMPTS):
            attach(engine, sorted(spilled.months))
            missing = unattached(engine, sorted(spilled.months))
            if not missing or stop.is_set():
                return
            time.sleep(0.5)
        raise MonthBusy(missing)


def _parts(progress: dict[int, tuple[int, int]]) -> tuple[LoadPart, ...]:
    """What is left of each partition."""
    return tuple(LoadPart(number, done, ends) for number, (done, ends) in sorted(progress.items()))


def _check_loadable(source: Source) -> None:
    if source.format != "json" or source.is_mapped:
        raise NotLoadable(
            f"source {source.name}: its messages have a shape of their own (`format`, `map`, "
            "`items` or `where`), and rows of files are read as plain ones: load them into a "
            "source without these"
        )


def _check_months(spilled: Spilled) -> None:
    if len(spilled.months) > MOST_MONTHS:
        raise NotLoadable(
            f"the ticks are in {len(spilled.months):,} months, more than {MOST_MONTHS:,}: is their "
            "time of another unit (--ts-unit)? Nothing was stored"
        )
