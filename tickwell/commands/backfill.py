"""`tickwell backfill`"""

from __future__ import annotations

import time
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.commands.features import Json, Note, Ref, opened, plain, print_json
from tickwell.late_imports import late_imports
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.backfill.backfill import BackfillWork, Done
    from registry.lifecycle.backfills import Backfill
    from registry.lifecycle.registry import Registry
    from tickwell.settings import Settings

STOPPED = 130


def backfill(
    ref: Ref,
    no_throttle: Annotated[
        bool, typer.Option("--no-throttle", help="Do not pause while the workers lag.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Compute a version's values of the ticks that Postgres has without it.

    One that was stopped or killed goes on where it was when it is started again.
    """
    with opened() as (settings, registry):
        found, stopped = run_backfill(settings, registry, ref, note, not no_throttle)
    if as_json:
        print_json(_as_json(ref, found))
    if stopped:
        raise typer.Exit(STOPPED)


def run_backfill(
    settings: Settings, registry: Registry, ref: str, note: str = "", throttled: bool = True
) -> tuple[Backfill | None, bool]:
    """Begin or go on with a backfill, and tell its end on stderr; whether it was stopped by then.

    Raises as `Registry.begin_backfill`, `BackfillWork.run` and `Registry.finish_backfill`.
    """
    found = registry.begin_backfill(ref, note)
    if found is None or found.state != "running":
        registry.finish_backfill(ref)  # a view may have been too busy to show the values
        typer.echo(f"{ref} has values of all ticks that are stored: nothing to backfill", err=True)
        return found, False
    with late_imports():
        from pipelines.backfill.backfill import BackfillWork
    urls = (settings.redis, settings.redis_hot) if throttled else ()
    work = BackfillWork(
        settings.postgres,
        registry.catalog(),
        found,
        heartbeats=tuple(url for url in urls if url),
        cluster=settings.redis if settings.cluster else None,
    )
    stop = Event()
    stop_on(stop)
    done, seconds = _with_progress_bar(work, found, stop)
    if done.finished:
        found = registry.finish_backfill(ref)
    typer.echo(
        f"{'' if done.finished else 'stopped: '}{ref}: values of {done.ticks:,} ticks of "
        f"{done.entities:,} entities, {done.ticks / max(seconds, 1e-9):,.0f} a second",
        err=True,
    )
    if not done.finished:
        typer.echo(f"`tickwell backfill {ref}` goes on from here", err=True)
    return found, not done.finished


def _as_json(ref: str, found: Backfill | None) -> dict[str, Any]:
    """A backfill with the ids of topics as text; a version that needed none is complete."""
    if found is None:
        return {"ref": ref, "state": "complete", "ranges": [], "entities": 0, "ticks": 0}
    ranges = [{**plain(one), "topic_id": one.topic_id.hex()} for one in found.ranges]
    return {**plain(found), "ranges": ranges}


def _with_progress_bar(work: BackfillWork, found: Backfill, stop: Event) -> tuple[Done, float]:
    """What was done, and in how many seconds."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        found.ref,
        BarColumn(),
        MofNCompleteColumn(),
        "entities",
        TextColumn("{task.fields[rate]:,.0f} ticks/s", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[waits]}", style="yellow"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        began, before = time.monotonic(), found.entities
        task = progress.add_task(
            found.ref, total=work.entities(), completed=before, rate=0, waits=""
        )

        def show(done: Done) -> None:
            rate = done.ticks / (time.monotonic() - began)
            completed = before + done.entities
            progress.update(task, completed=completed, rate=rate, waits=done.waits or "")

        return work.run(show, stop), time.monotonic() - began
