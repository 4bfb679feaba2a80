"""A run of `tickwell replay --from`: files into history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import typer

from tickwell.current_user import current_user
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.load.loads import Loads, RecordedLoad
    from pipelines.load.planning import LoadOptions, Plan, Planner
    from pipelines.produce.options import FileOptions
    from pipelines.replay.replay import Done
    from registry.definitions import Catalog, Source
    from tickwell.dask_cluster import DaskCluster

STOPPED = 130
ROW_OVERHEAD = 100
"""Bytes that a row takes beside what is copied of it: its header and its place in the index."""

DIGEST = 8
"""Characters of a file's digest that are shown."""


class Wanted(NamedTuple):
    """How a load is done. `delay` is a duration as it is written, as 250ms.

    With a `table` or a `query` it is of a database. With a `scheduler`, the address of Dask's, the
    machines of its cluster do the work.
    """

    known_at: str | None
    delay: str | None
    jobs: int
    throttled: bool
    dry_run: bool
    table: str | None = None
    query: str | None = None
    scheduler: str | None = None


class Loading:
    """One run of the command."""

    def __init__(
        self, names: Sequence[str], source: str, options: FileOptions, wanted: Wanted
    ) -> None:
        """Raises `TickwellError` for flags that cannot be meant, and for a source that is none."""
        self._names = names
        self._wanted = wanted
        self._delay_ns = _delay_ns(wanted)
        self._options = options
        self._settings = Settings.of_stack()
        self._settings.need("postgres")
        self._catalog: Catalog = catalog_of(self._settings.postgres)
        if source not in self._catalog.sources:
            raise TickwellError(
                f"there is no source {source}; there are {', '.join(self._catalog.sources)}"
            )
        self._source: Source = self._catalog.sources[source]
        self._stop = Event()

    def run(self) -> None:
        """Raises `typer.Exit` with the code that says how it ended, 0 for no exception."""
        with late_imports():
            from pipelines.errors import Stopped
            from pipelines.load.loads import Loads, alone
            from pipelines.load.planning import Planner
            from pipelines.produce.memory import keep_little
        keep_little()
        stop_on(self._stop)
        postgres = self._settings.postgres
        try:
            with ExitStack() as stack:
                directory = Path(stack.enter_context(TemporaryDirectory(prefix="tickwell-load-")))
                cluster = self._cluster(stack, directory)
                loads = stack.enter_context(Loads.at(postgres))
                stack.enter_context(alone(postgres, self._source.name))
                files = self._files(directory)
                planner = Planner(
                    *(postgres, loads, self._catalog, self._source, files, self._load_options())
                )
                known = planner.recorded()
                if known is not None and known.finished_at is not None:
                    typer.echo(f"{_named(known)} is loaded already: {_counted(known)}")
                    return
                if known is not None:
                    typer.echo(f"{_named(known)} goes on: {_percent(known)} % was done")
                self._load(planner, loads, directory, cluster)
        except Stopped as stopped:
            typer.echo(f"stopped: {stopped}")
            raise typer.Exit(STOPPED) from None

    def _cluster(self, stack: ExitStack, directory: Path) -> DaskCluster | None:
        """The cluster that is to do the work, which has to see the directory."""
        if self._wanted.scheduler is None:
            return None
        from tickwell.dask_cluster import dask_cluster

        found = stack.enter_context(dask_cluster(self._wanted.scheduler))
        found.check_folder(directory)
        return found

    def _files(self, directory: Path) -> list[Path]:
        from pipelines.load.remote_files import fetch, is_remote
        from pipelines.produce.file_names import expand

        if self._wanted.table or self._wanted.query:
            return [self._copied(directory)]
        found: list[Path] = []
        for name in self._names:
            if is_remote(name):
                found += fetch(name, directory / "remote")
            else:
                found += expand([name])
        return found

    def _copied(self, directory: Path) -> Path:
        """What a database has, as a file."""
        from rich.progress import Progress, SpinnerColumn, TextColumn

        from pipelines.load import table_copy

        if len(self._names) != 1 or (self._wanted.table and self._wanted.query):
            raise TickwellError("--table, --query: one of them, of one database that --from names")
        wanted = table_copy.Wanted(self._wanted.table, self._wanted.query)
        with Progress(SpinnerColumn(), TextColumn("{task.description}")) as progress:
            task = progress.add_task("copying")

            def told(rows: int) -> None:
                progress.update(task, description=f"copying: {rows:,} rows")

            return table_copy.copy_table(self._names[0], wanted, directory, told, self._stop)

    def _load_options(self) -> LoadOptions:
        from dataclasses import replace

        from pipelines.load.planning import LoadOptions
        from pipelines.load.spill import KnownAt

        settings, throttled = self._settings, self._wanted.throttled
        urls = tuple(url for url in (settings.redis, settings.redis_hot) if url and throttled)
        return LoadOptions(
            file_options=replace(
                self._options,
                known_at=self._wanted.known_at,
                names_entities=True,
                keep_rows=True,
            ),
            known_at=KnownAt(self._delay_ns),
            by=current_user(),
            heartbeats=urls,
            cluster=settings.redis if settings.cluster else None,
        )

    def _load(
        self, planner: Planner, loads: Loads, directory: Path, cluster: DaskCluster | None
    ) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from pipelines.load.overlaps import entity_count

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
        )
        dry_run = self._wanted.dry_run
        with Progress(*columns) as progress:
            reading = progress.add_task("reading", total=1000, said="")

            def read(part: float, rows: int) -> None:
                progress.update(reading, completed=1000 * part, said=f"{rows:,} rows")

            plan = planner.plan(directory, read, self._stop, dry_run)
            offsets = sum(part.offsets for part in plan.parts)
            what = "computing" if dry_run else "loading"
            storing = progress.add_task(what, total=offsets, said="")
            began = time.monotonic()

            def store(done: Done) -> None:
                rate = done.offsets / max(time.monotonic() - began, 1e-9)
                said = done.waits or f"{rate:,.0f} rows/s"
                progress.update(storing, completed=done.offsets, said=said)

            done = self._run(plan, cluster, store)
        if dry_run:
            _tell_dry_run(plan, done, entity_count(plan.load))
        elif self._stop.is_set():
            typer.echo(f"stopped: {done.rows:,} rows are stored, {_others(done)}")
            typer.echo("the same command goes on from here")
        else:
            loads.finish(planner.load_id)
            empty = f"; {plan.spilled.empty:,} rows without a value passed over"
            typer.echo(
                f"{done.rows:,} rows are stored, {_others(done)}"
                f"{empty if plan.spilled.empty else ''}"
            )
        if self._stop.is_set():
            raise typer.Exit(STOPPED)

    def _run(self, plan: Plan, cluster: DaskCluster | None, report: _Report) -> Done:
        from pipelines.replay.jobs import run_in_jobs, run_ranges
        from pipelines.replay.replay import Done

        left = [part for part in plan.parts if part.offsets]
        if cluster is not None:
            results = cluster.run(
                plan.load.run, left, lambda told: report(Done.sum([*told.values()])), self._stop
            )
            return Done.sum([one for one in results if one is not None])
        jobs = min(self._wanted.jobs, len(left))
        if jobs < 2:
            return run_ranges(plan.load, left, report, self._stop)
        return run_in_jobs(plan.load, left, jobs, report, self._stop)


if TYPE_CHECKING:
    from collections.abc import Callable

    _Report = Callable[[Done], None]


def show_loads(postgres: str) -> None:
    """Print all loads, the newest first."""
    from pipelines.load.loads import Loads
    from tickwell.tables import show

    with Loads.at(postgres) as loads:
        found = loads.all()
    columns = ("load", "source", "state", "began", "by", "rows", "passed over", "rejected")
    rows = [
        (
            one.id_shown,
            one.source,
            _state(one),
            f"{one.began_at:%Y-%m-%d %H:%M:%S}Z",
            one.began_by,
            *(f"{many:,}" for many in (one.rows, one.passed_over, one.rejected)),
            f"{_day(one.first_time)} to {_day(one.last_time)}",
            ", ".join(f"{file.name} {file.sha256[:DIGEST]}" for file in one.files),
        )
        for one in found
    ]
    show((*columns, "ticks", "files"), rows)


def catalog_of(postgres: str) -> Catalog:
    """What is recorded in the database. Raises `TickwellError`."""
    from sqlalchemy.exc import DBAPIError, ProgrammingError

    from registry import catalog
    from registry.database.engine import connect

    engine = connect(postgres, connect_timeout=10)
    try:
        return catalog.load(engine)
    except ProgrammingError:
        raise TickwellError(
            "the database has no tables of ours yet: run `tickwell migrate`"
        ) from None
    except DBAPIError as error:
        raise TickwellError(
            f"TICKWELL_POSTGRES: {str(error.orig).strip().splitlines()[0]}"
        ) from None
    finally:
        engine.dispose()


def _delay_ns(wanted: Wanted) -> int | None:
    """The delay in nanoseconds, None where a column says when ticks became known."""
    from registry.durations import DURATION, NANOSECONDS

    if (wanted.known_at is None) == (wanted.delay is None):
        raise TickwellError(
            "--from: say when the ticks became known, by one of --known-at COLUMN and --delay "
            "250ms (after their time): a training set gives a row only what was known by then, and "
            "a file does not say it"
        )
    if wanted.delay is None:
        return None
    match = DURATION.fullmatch(wanted.delay)
    if match is None:
        raise TickwellError(f"--delay {wanted.delay}: it is a duration, as 250ms, 1s or 5m")
    return int(match[1]) * NANOSECONDS[match[2]]


def _tell_dry_run(plan: Plan, done: Done, entities: int) -> None:
    spilled = plan.spilled
    size = done.bytes + done.rows * ROW_OVERHEAD
    typer.echo(
        f"{spilled.rows:,} rows, {_day(spilled.first)} to {_day(spilled.last)}, {entities:,} "
        f"entities: {done.rows:,} would be stored, {_others(done)}; about {size / 1e6:,.0f} MB"
    )
    if plan.load.overlaps:
        typer.echo(f"{len(plan.load.overlaps):,} entities have some of these ticks already, equal")
    typer.echo("dry run: nothing was stored")


def _others(done: Done) -> str:
    """What became of the other rows."""
    rejected = ", ".join(f"{n:,} {reason}" for reason, n in sorted(done.rejected.items()))
    return (
        f"{done.passed_over:,} passed over because they are there and equal; "
        f"rejected: {rejected or 'none'}"
    )


def _named(load: RecordedLoad) -> str:
    return f"load {load.id_shown} of {load.source}"


def _counted(load: RecordedLoad) -> str:
    return (
        f"{load.rows:,} rows stored, {load.passed_over:,} passed over, {load.rejected:,} rejected, "
        f"by {load.began_by}, {load.finished_at:%Y-%m-%d %H:%M:%S}"
    )


def _state(load: RecordedLoad) -> str:
    if load.finished_at is not None:
        return "done"
    return "being forgotten" if load.forgotten_at is not None else f"{_percent(load)} %"


def _percent(load: RecordedLoad) -> int:
    return 100 * load.offsets // max(1, load.ends)


def _day(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return "–"
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    return f"{moment:%Y-%m-%d}"
