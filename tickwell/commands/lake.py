"""`tickwell lake`"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tickwell.commands.looking import STOPPED, looking
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on
from tickwell.tables import show

if TYPE_CHECKING:
    from pipelines.lake.export import Done
    from pipelines.lake.retention import Dropped, MonthDone
    from pipelines.lake.status import SourceStatus
    from pipelines.lake.verification import Verified

lake = typer.Typer(name="lake", help="Rows as Parquet files, a day each.", no_args_is_help=True)
T = TypeVar("T")

Lake = Annotated[
    Path | None,
    typer.Option("--lake", help="The folder of the lake; TICKWELL_LAKE, else `lake` in the data."),
]
Since = Annotated[str | None, typer.Option(help="The first day, as 2026-11-24.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@lake.callback()
def options() -> None:
    """Rows as Parquet files, a day each."""


@lake.command()
def export(
    folder: Lake = None,
    since: Since = None,
    until: Annotated[
        str | None,
        typer.Option(help="The day after the last one; today in UTC, which is not over."),
    ] = None,
    no_throttle: Annotated[
        bool, typer.Option("--no-throttle", help="Do not pause while the workers lag.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the days that the lake lacks, and those of which rows were stored since.

    One that was stopped or killed goes on where it was when it is started again.
    """
    settings = Settings.of_stack(lake=None if folder is None else str(folder))
    settings.need("postgres")
    with late_imports():
        from pipelines.lake.export import LakeExport

    urls = () if no_throttle else (settings.redis, settings.redis_hot)
    work = LakeExport(
        settings.postgres,
        settings.lake_path,
        _day("--until", until) or _today(),
        _day("--since", since) or date.min,
        tuple(url for url in urls if url),
        settings.redis if settings.cluster else None,
    )
    stop, began = Event(), time.monotonic()
    stop_on(stop)
    done = _with_progress_bar("lake", lambda tell: work.run(tell, stop), ("rows", "rows/s"))
    seconds = time.monotonic() - began
    if as_json:
        typer.echo(json.dumps(done._asdict()))
    typer.echo(
        f"{'' if done.finished else 'stopped: '}{settings.lake_path}: {done.days} of {done.of} days"
        f" written, {done.rows:,} rows, {_megabytes(done.bytes)}, in {seconds:.1f} s",
        err=True,
    )
    for name in done.refused:
        typer.echo(name, err=True)
    if not done.finished:
        typer.echo("`tickwell lake export` goes on from here", err=True)
        raise typer.Exit(STOPPED)
    if done.refused:
        raise typer.Exit(1)


@lake.command()
def verify(folder: Lake = None, since: Since = None, as_json: Json = False) -> None:
    """Compare the files with what was put on record, and each bit with Postgres.

    Ends with 0 where nothing differs, with 1 where something does, and with 2 where it could not
    look.
    """
    with looking("it was not compared as a whole"):
        settings = Settings.of_stack(lake=None if folder is None else str(folder))
        settings.need("postgres")
        with late_imports():
            from pipelines.lake.verification import LakeVerification

        first = _day("--since", since) or date.min
        work = LakeVerification(settings.postgres, settings.lake_path, first)
        stop = Event()
        stop_on(stop)
        found = _with_progress_bar(
            "lake", lambda tell: work.run(tell, stop), ("values", "values/s")
        )
        if not found.finished:
            typer.echo("stopped: it was not compared as a whole", err=True)
            raise typer.Exit(STOPPED)
    if as_json:
        different = [one._asdict() for one in found.differences]
        typer.echo(json.dumps({**found._asdict(), "differences": different}))
    _print_verified(found)
    if found.differences:
        raise typer.Exit(1)


@lake.command()
def status(folder: Lake = None, as_json: Json = False) -> None:
    """Show what the lake has, and which days the next export writes."""
    settings = Settings.of_stack(lake=None if folder is None else str(folder))
    settings.need("postgres")
    with late_imports():
        from pipelines.lake.status import lake_status

    found = lake_status(settings.postgres, settings.lake_path, _today())
    if as_json:
        typer.echo(json.dumps([_as_json(one) for one in found]))
        return
    of_files = ("source", "days", "first", "last", "files", "rows", "size")
    columns = (*of_files, "in the lake alone", "to be written")
    show(columns, [_row(one) for one in found])


@lake.command()
def drop(
    before: Annotated[
        str, typer.Option(help="The day before which months go, as 2026-01-01: whole months only.")
    ],
    folder: Lake = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; nothing is verified or changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let Postgres drop the rows of old months that the lake has.

    A month goes when all of its days are in files that are the same as Postgres, which is verified
    before; months go from the oldest on. Postgres keeps the newest ticks of each entity, which
    workers and rebuilds need. Ends with 0 where all months went, and with 1 where one stays.
    """
    settings = Settings.of_stack(lake=None if folder is None else str(folder))
    settings.need("postgres")
    day = _day("--before", before)
    assert day is not None  # it was given
    if day > _today():
        raise TickwellError(f"--before {day} is not over yet: months that are not over stay")
    with late_imports():
        from pipelines.lake.retention import Retention

    work = Retention(settings.postgres, settings.lake_path, day, dry_run)
    stop = Event()
    stop_on(stop)
    done = _with_progress_bar("lake", lambda tell: work.run(tell, stop), ("rows", "rows/s"))
    if as_json:
        months = [{**one._asdict(), "month": str(one.month)} for one in done.months]
        typer.echo(json.dumps({**done._asdict(), "months": months}))
    for one in done.months:
        typer.echo(_of_month(one, dry_run), err=True)
    if not done.finished:
        typer.echo("stopped: the same command goes on from here", err=True)
        raise typer.Exit(STOPPED)
    if not done.months:
        typer.echo(f"Postgres has no month before {day} to let go of", err=True)
    if any(one.reason is not None for one in done.months):
        raise typer.Exit(1)


def _of_month(one: MonthDone, dry_run: bool) -> str:
    """What became of a month, as a line."""
    if one.reason is not None:
        return f"{one.month} stays, and so do later ones: {one.reason}"
    if dry_run:
        return f"{one.month} would go, {one.rows:,} rows of the lake, once they are verified"
    return f"{one.month}: {one.rows:,} rows are in the lake, and {one.kept:,} of them in Postgres"


def _print_verified(found: Verified) -> None:
    for one in found.differences:
        typer.echo(f"{one.path}: {one.what}", err=True)
    said = "not the same" if found.differences else "the same"
    typer.echo(f"{found.days:,} days, {found.rows:,} rows: {said}", err=True)
    if found.changed:
        typer.echo(
            f"{found.changed:,} days were changed since they were written, and were not compared: "
            "`tickwell lake export` writes them anew",
            err=True,
        )
    if found.unverifiable:
        typer.echo(
            f"{found.unverifiable:,} rows are unverifiable: Postgres does not have them any more",
            err=True,
        )


def _row(one: SourceStatus) -> tuple[str, ...]:
    missing = ", ".join(f"{len(days)} {state}" for state, days in one.missing.items())
    return (
        one.source,
        f"{one.days:,}",
        str(one.first or ""),
        str(one.last or ""),
        f"{one.files:,}",
        f"{one.rows:,}",
        _megabytes(one.size),
        f"{one.dropped_days:,} days, {one.dropped_rows:,} rows" if one.dropped_days else "",
        missing,
    )


def _as_json(one: SourceStatus) -> dict[str, Any]:
    missing = {state: [str(day) for day in days] for state, days in one.missing.items()}
    ends = {
        name: None if day is None else str(day)
        for name, day in (("first", one.first), ("last", one.last))
    }
    return {**one._asdict(), **ends, "missing": missing}


def _day(option: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise TickwellError(f"{option} {text!r} is not a day such as 2026-11-24") from None


def _today() -> date:
    return datetime.now(UTC).date()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


Progress = Any
"""A NamedTuple with `days` and `of`, perhaps with `waits`."""


def _with_progress_bar(
    what: str, work: Callable[[Callable[[Progress], None]], T], rate: tuple[str, str]
) -> T:
    """Do work that tells how many days are done, and of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    counted, unit = rate
    columns = (
        *(what, BarColumn(), MofNCompleteColumn(), "days"),
        TextColumn(f"{{task.fields[rate]:,.0f}} {unit}", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[waits]}", style="yellow"),
    )
    began = time.monotonic()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, rate=0, waits="")

        def tell(done: Done | Verified | Dropped) -> None:
            per_second = getattr(done, counted) / max(time.monotonic() - began, 1e-9)
            waits = getattr(done, "waits", None) or ""
            bar.update(task, completed=done.days, total=done.of, rate=per_second, waits=waits)

        return work(tell)
