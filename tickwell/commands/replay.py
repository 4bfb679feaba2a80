"""`tickwell replay`"""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell.errors import TickwellError
from tickwell.settings import Settings

if TYPE_CHECKING:
    from pipelines.replay import Done, Range, Replay, Wanted

Time = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]),
]


def replay(
    source: Annotated[list[str] | None, typer.Option(help="price, volume …; all of them.")] = None,
    entity: Annotated[
        list[str] | None, typer.Option(help="Only this message key, as AAPL; may be repeated.")
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    from_offset: Annotated[int | None, typer.Option(min=0, help="First offset.")] = None,
    to_offset: Annotated[int | None, typer.Option(min=0, help="Offset to stop before.")] = None,
    from_time: Time = None,
    to_time: Time = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell the ranges.")] = False,
) -> None:
    """Compute rows anew from Kafka; rows that are there are compared. Times are UTC."""
    from pipelines.replay import Replay, Wanted
    from registry import catalog
    from registry.database import connect

    settings = Settings.load()
    settings.need("kafka", "postgres")
    recorded = catalog.load(connect(settings.postgres))
    unknown = set(source or []) - recorded.sources.keys()
    if unknown:
        raise TickwellError(
            f"there is no source {', '.join(unknown)}; there are {', '.join(recorded.sources)}"
        )
    wanted = Wanted(
        sources=source or (),
        entities=entity or (),
        partition=partition,
        from_offset=from_offset,
        to_offset=to_offset,
        from_ms=_milliseconds(from_time),
        to_ms=_milliseconds(to_time),
    )
    asyncio.run(_replay(Replay(settings.kafka, settings.postgres, recorded), wanted, dry_run))


async def _replay(work: Replay, wanted: Wanted, dry_run: bool) -> None:
    ranges = await work.ranges(wanted)
    for part in ranges:
        warm = f", state computed from {part.warm_from}" if part.warm_from < part.start else ""
        typer.echo(f"{part.topic.name}[{part.partition}]: {part.start} to {part.end - 1}{warm}")
    if dry_run or not ranges:
        typer.echo("nothing to replay" if not ranges else "dry run: nothing was read")
        return
    stop = Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    done = await _with_progress(work, ranges, wanted, stop)
    rejected = ", ".join(f"{n} {reason}" for reason, n in sorted(done.rejected.items()))
    typer.echo(
        f"{'stopped: ' if stop.is_set() else ''}{done.rows} rows computed, {done.new_rows} of them "
        f"new, the others there already and equal; rejected: {rejected or 'none'}"
    )
    if stop.is_set():
        raise typer.Exit(130)


async def _with_progress(work: Replay, ranges: list[Range], wanted: Wanted, stop: Event) -> Done:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        "replay",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} offsets/s", style="dim"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        began = time.monotonic()
        task = progress.add_task("replay", total=sum(part.offsets for part in ranges), rate=0)

        def show(done: Done) -> None:
            rate = done.offsets / (time.monotonic() - began)
            progress.update(task, completed=done.offsets, rate=rate)

        return await work.run(ranges, wanted, show, stop)


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)
