"""`tickwell backfill`"""

from __future__ import annotations

import logging
import time
from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tickwell.commands.features import Json, Note, Ref, opened, plain, print_json
from tickwell.late_imports import late_imports
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.backfill.backfill import BackfillWork
    from pipelines.backfill.computing import Done
    from pipelines.backfill.from_kafka import LogBackfillWork
    from registry.lifecycle.backfills import Backfill, TicksFrom
    from registry.lifecycle.registry import Registry
    from tickwell.settings import Settings

STOPPED = 130


class TicksSource(StrEnum):
    """Where the ticks of a backfill are read."""

    POSTGRES = "postgres"
    KAFKA = "kafka"


class Asked(NamedTuple):
    """The backfill that is asked for."""

    ref: str
    note: str = ""
    throttled: bool = True
    ticks_from: TicksFrom | None = None


class Bar(NamedTuple):
    """What a progress bar shows: `done` of `total`, in `unit`, an attribute of `Done`."""

    ref: str
    total: int
    done: int
    unit: str


def backfill(
    ref: Ref,
    ticks_from: Annotated[
        TicksSource | None,
        typer.Option(
            "--from",
            help="Read the ticks' fields in the rows of Postgres, or the ticks themselves in Kafka,"
            " where the log may be shorter; as it was begun, else postgres.",
        ),
    ] = None,
    no_throttle: Annotated[
        bool, typer.Option("--no-throttle", help="Do not pause while the workers lag.")
    ] = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Compute a version's values of the ticks that Postgres has without it.

    One that was stopped or killed goes on where it was when it is started again; with another
    --from it begins anew.
    """
    with opened() as (settings, registry):
        asked = Asked(ref, note, not no_throttle, None if ticks_from is None else ticks_from.value)
        found, stopped = run_backfill(settings, registry, asked)
    if as_json:
        print_json(_as_json(ref, found))
    if stopped:
        raise typer.Exit(STOPPED)


def run_backfill(
    settings: Settings, registry: Registry, asked: Asked
) -> tuple[Backfill | None, bool]:
    """Begin or go on with a backfill, and tell its end on stderr; whether it was stopped by then.

    Raises as `Registry.begin_backfill`, the `run` of the work and `Registry.finish_backfill`.
    """
    ref = asked.ref
    if asked.ticks_from == "kafka":
        settings.need("kafka")
    found = registry.begin_backfill(ref, asked.note, asked.ticks_from)
    if found is None or found.state != "running":
        registry.finish_backfill(ref)  # a view may have been too busy to show the values
        typer.echo(f"{ref} has values of all ticks that are stored: nothing to backfill", err=True)
        return found, False
    if found.ticks_from == "kafka":
        settings.need("kafka")
    work, bar = _work(settings, registry, found, asked.throttled)
    stop = Event()
    stop_on(stop)
    done, seconds = _with_progress_bar(work, bar, stop)
    of = f" of {done.entities:,} entities" if found.ticks_from == "postgres" else ""
    typer.echo(
        f"{'' if done.finished else 'stopped: '}{ref}: values of {done.ticks:,} ticks{of}, "
        f"{done.ticks / max(seconds, 1e-9):,.0f} a second",
        err=True,
    )
    if done.without_row:
        typer.echo(
            f"{done.without_row:,} ticks of the log have no row in Postgres without the version: "
            "they have no value",
            err=True,
        )
    if not done.finished:
        typer.echo(f"`tickwell backfill {ref}` goes on from here", err=True)
        return found, True
    ended = registry.finish_backfill(ref, found)
    if ended is not None and ended.state == "complete":
        _tell_lost(registry, found, ended)
    return ended, False


def _tell_lost(registry: Registry, found: Backfill, ended: Backfill) -> None:
    """Name the offsets that the log no longer had."""
    from registry.lifecycle.backfills import lost

    gone = lost(found, ended)
    if not gone:
        return
    catalog = registry.catalog()
    topic = catalog.sources[catalog.features[found.ref].source or ""].topic
    named = ", ".join(f"{topic}[{one.partition}] {one.begin} to {one.end - 1}" for one in gone)
    typer.echo(
        f"Kafka has lost offsets whose ticks have no value now: {named}. Postgres has their "
        f"fields: `tickwell backfill {found.ref} --from postgres` computes all anew",
        err=True,
    )


def _work(
    settings: Settings, registry: Registry, found: Backfill, throttled: bool
) -> tuple[BackfillWork | LogBackfillWork, Bar]:
    """What computes a backfill, and what its progress is shown in."""
    with late_imports():
        from pipelines.backfill.backfill import BackfillWork
        from pipelines.backfill.from_kafka import LogBackfillWork
    catalog = registry.catalog()
    urls = (settings.redis, settings.redis_hot) if throttled else ()
    heartbeats = tuple(url for url in urls if url)
    cluster = settings.redis if settings.cluster else None
    if found.ticks_from == "postgres":
        work = BackfillWork(
            settings.postgres, catalog, found, heartbeats=heartbeats, cluster=cluster
        )
        return work, Bar(found.ref, work.entities(), found.entities, "entities")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # errors are reported by the command
    of_log = LogBackfillWork(
        settings.kafka_connection,
        settings.postgres,
        catalog,
        found,
        heartbeats,
        cluster,
        settings.registry_connection,
    )
    return of_log, Bar(found.ref, of_log.offsets(), 0, "offsets")


def _as_json(ref: str, found: Backfill | None) -> dict[str, Any]:
    """A backfill with the ids of topics as text; a version that needed none is complete."""
    if found is None:
        return {"ref": ref, "state": "complete", "ranges": [], "entities": 0, "ticks": 0}
    ranges = [{**plain(one), "topic_id": one.topic_id.hex()} for one in found.ranges]
    return {**plain(found), "ranges": ranges}


def _with_progress_bar(
    work: BackfillWork | LogBackfillWork, bar: Bar, stop: Event
) -> tuple[Done, float]:
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
        bar.ref,
        BarColumn(),
        MofNCompleteColumn(),
        bar.unit,
        TextColumn("{task.fields[rate]:,.0f} ticks/s", style="dim"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[waits]}", style="yellow"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        began = time.monotonic()
        task = progress.add_task(bar.ref, total=bar.total, completed=bar.done, rate=0, waits="")

        def show(done: Done) -> None:
            rate = done.ticks / (time.monotonic() - began)
            completed = bar.done + getattr(done, bar.unit)
            progress.update(task, completed=completed, rate=rate, waits=done.waits or "")

        return work.run(show, stop), time.monotonic() - began
