"""`tickwell replay`"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell import file_flags
from tickwell.errors import TickwellError
from tickwell.forgetting import forget_load
from tickwell.late_imports import late_imports
from tickwell.loading import Loading, catalog_of, show_loads
from tickwell.loading import Wanted as WantedLoad
from tickwell.settings import Settings
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.replay.progress import ReplayProgress
    from pipelines.replay.ranges import Range
    from pipelines.replay.replay import Done, Replay
    from registry.definitions import Catalog

STOPPED = 130
LOADS = "Loads of files"


def replay(
    source: Annotated[list[str] | None, typer.Option(help="price, volume …; all of them.")] = None,
    entity: Annotated[
        list[str] | None, typer.Option(help="Only this message key, as AAPL; may be repeated.")
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    from_offset: Annotated[int | None, typer.Option(min=0, help="First offset.")] = None,
    to_offset: Annotated[int | None, typer.Option(min=0, help="Offset to stop before.")] = None,
    from_time: Annotated[
        str | None, typer.Option(help="First record time, as 2026-11-24T09:00:00Z.")
    ] = None,
    to_time: Annotated[str | None, typer.Option(help="Record time to stop before.")] = None,
    cold: Annotated[
        bool,
        typer.Option("--cold", help="Begin with empty windows where the log's beginning is gone."),
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Partitions at a time.")] = 1,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard the progress of a stopped replay.")
    ] = False,
    no_throttle: Annotated[
        bool, typer.Option("--no-throttle", help="Do not pause while the workers lag.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what there is to do.")
    ] = False,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="Load ticks of files, and not of Kafka: CSV or Parquet, a folder, a pattern, or "
            "the URL of an object store; may be repeated.",
            rich_help_panel=LOADS,
        ),
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option(help="The column of when a tick became known.", rich_help_panel=LOADS),
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(
            help="How long after its time each tick became known, as 250ms.", rich_help_panel=LOADS
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="A table of the database that --from names by a URL of SQLAlchemy.",
            rich_help_panel=LOADS,
        ),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            help="A query there; ORDER BY makes it the same load the next time.",
            rich_help_panel=LOADS,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="The address of a Dask scheduler, as tcp://10.0.0.5:8786: the machines of its "
            "cluster load the partitions. TMPDIR is a directory that all of them share.",
            rich_help_panel=LOADS,
        ),
    ] = None,
    list_loads: Annotated[
        bool, typer.Option("--list", help="Print the loads of files.", rich_help_panel=LOADS)
    ] = False,
    forget: Annotated[
        str | None,
        typer.Option(
            help="Give up a load that is not finished, by its id in --list: its rows are removed.",
            rich_help_panel=LOADS,
        ),
    ] = None,
    column: file_flags.Map = None,
    constant: file_flags.Set = None,
    columns: file_flags.Columns = None,
    header: file_flags.Header = None,
    delimiter: file_flags.Delimiter = None,
    ts_unit: file_flags.TsUnit = None,
    ts_format: file_flags.TsFormat = None,
    tz: file_flags.Zone = None,
    scale: file_flags.Scale = None,
    skip_empty: file_flags.SkipEmpty = False,
) -> None:
    """Recompute rows from Kafka and compare them with those that are stored, or load files.

    With --from, ticks of files go into history as live would have decided and computed them. They
    must be older than what Kafka has brought of their entities, or equal to it.

    What was stopped or killed goes on when it is started with the same arguments.
    """
    if list_loads:
        settings = Settings.of_stack()
        settings.need("postgres")
        show_loads(settings.postgres)
        return
    if forget is not None:
        if files or source or dry_run:
            raise TickwellError(
                "--forget removes rows at once: it goes without --from, --source and --dry-run"
            )
        forget_load(forget)
        return
    of_log = {
        "--entity": entity,
        "--partition": partition,
        "--from-offset": from_offset,
        "--to-offset": to_offset,
        "--from-time": from_time,
        "--to-time": to_time,
        "--cold": cold or None,
        "--restart": restart or None,
    }
    options = file_flags.file_options(locals())
    if files:
        given = ", ".join(flag for flag, value in of_log.items() if value not in (None, []))
        if given:
            raise TickwellError(f"{given}: a load of files has no such bounds")
        if source is None or len(source) != 1:
            raise TickwellError("--from: --source says what the rows are: price, volume, position")
        wanted_load = WantedLoad(
            known_at, delay, jobs, not no_throttle, dry_run, table, query, scheduler
        )
        Loading(files, source[0], options, wanted_load).run()
        return
    if options != type(options)() or known_at or delay or table or query or scheduler:
        raise TickwellError("flags that say how files are read need --from")
    settings = Settings.of_stack()
    settings.need("kafka", "postgres")
    from_ms, to_ms = _milliseconds("--from-time", from_time), _milliseconds("--to-time", to_time)
    with late_imports():
        from pipelines.replay.progress import ReplayProgress
        from pipelines.replay.ranges import Wanted, plan
        from pipelines.replay.replay import Replay
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # errors are reported below
    catalog = catalog_of(settings.postgres)
    wanted = Wanted(
        sources=_known(source or [], catalog),
        entities=tuple(entity or ()),
        partition=partition,
        from_offset=from_offset,
        to_offset=to_offset,
        from_ms=from_ms,
        to_ms=to_ms,
        cold=cold,
    )
    progress = ReplayProgress(settings.postgres)
    try:
        ranges = asyncio.run(plan(settings.kafka_connection, progress, catalog, wanted, restart))
        for part in ranges:
            typer.echo(_described(part))
        if dry_run or not ranges:
            typer.echo("dry run: nothing was read" if ranges else "nothing to replay")
            return
        heartbeats = () if no_throttle else _heartbeats(settings)
        work = Replay(
            settings.kafka_connection,
            settings.postgres,
            catalog,
            wanted,
            heartbeats,
            schema_registry=settings.registry_connection,
            cluster=settings.redis if settings.cluster else None,
        )
        _replay(work, ranges, jobs, progress)
    finally:
        progress.close()


def _replay(work: Replay, ranges: Sequence[Range], jobs: int, progress: ReplayProgress) -> None:
    stop = Event()
    stop_on(stop)
    done = _with_progress_bar(work, ranges, jobs, stop)
    if not stop.is_set():
        for part in ranges:
            progress.finish(part.replay, part.topic.topic_id, part.partition)
    rejected = ", ".join(f"{n} {reason}" for reason, n in sorted(done.rejected.items()))
    passed_over = f"; passed over: {done.passed_over}" if done.passed_over else ""
    typer.echo(
        f"{'stopped: ' if stop.is_set() else ''}{done.rows} rows computed, {done.new_rows} of them "
        f"new, the others stored already and equal; rejected: {rejected or 'none'}" + passed_over
    )
    if stop.is_set():
        typer.echo("the same command resumes from here")
        raise typer.Exit(STOPPED)
    unknown = progress.without_rows(set(work.wanted.entities) - done.keys)
    if unknown:
        raise TickwellError(
            f"no message in these ranges has the key {', '.join(sorted(unknown))}; --entity names "
            "a message key, as AAPL, or P1 with all its positions"
        )


def _described(part: Range) -> str:
    text = f"{part.topic.name}[{part.partition}]: {part.begin} to {part.end - 1}"
    if part.resumed:
        percent = 100 * (part.start - part.begin) // (part.end - part.begin)
        text += f", resumes at offset {part.start}, {percent} % was done"
    if part.read_from < part.start:
        text += f", state computed from {part.read_from}"
    if 0 < part.begin == part.rules.known_from(part.topic.topic_id, part.partition):
        text += "; what is before was decided by an earlier build, and stays as it is"
    return text


def _with_progress_bar(work: Replay, ranges: Sequence[Range], jobs: int, stop: Event) -> Done:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from pipelines.replay.jobs import run_in_jobs, run_ranges

    columns = (
        "replay",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} offsets/s", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[waits]}", style="yellow"),
    )
    with Progress(*columns) as progress:
        began = time.monotonic()
        total = sum(part.offsets for part in ranges)
        task = progress.add_task("replay", total=total, rate=0, waits="")

        def show(done: Done) -> None:
            rate = done.offsets / (time.monotonic() - began)
            progress.update(task, completed=done.offsets, rate=rate, waits=done.waits or "")

        left = [part for part in ranges if part.offsets]
        if jobs == 1 or len(left) < 2:
            return run_ranges(work, left, show, stop)
        return run_in_jobs(work, left, min(jobs, len(left)), show, stop)


def _known(sources: Sequence[str], catalog: Catalog) -> tuple[str, ...]:
    unknown = sorted(set(sources) - catalog.sources.keys())
    if unknown:
        raise TickwellError(
            f"there is no source {', '.join(unknown)}; there are {', '.join(catalog.sources)}"
        )
    return tuple(sources)


def _heartbeats(settings: Settings) -> tuple[str, ...]:
    urls = tuple(url for url in (settings.redis, settings.redis_hot) if url)
    if not urls:
        typer.echo("TICKWELL_REDIS is not set: the replay cannot see whether it slows the workers")
    return urls


def _milliseconds(option: str, text: str | None) -> int | None:
    """The first millisecond that is not before a time."""
    if text is None:
        return None
    from pipelines.ticks.event_time import parse_rfc_3339

    nanoseconds = parse_rfc_3339(text)
    if nanoseconds is None or nanoseconds < 0:
        raise TickwellError(
            f"{option} {text}: not a time since 1970 with its zone, as 2026-11-24T09:00:00Z or "
            "2026-11-24T10:00:00+01:00"
        )
    return -(-nanoseconds // 10**6)
