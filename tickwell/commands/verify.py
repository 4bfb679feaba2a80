"""`tickwell verify`"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.commands.features import Json, opened
from tickwell.late_imports import late_imports
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from pipelines.verify.verification import Done, Wanted
    from registry.comparisons import Difference, Place
    from tickwell.verification import Verified

SAMPLE = 200
"""Days of entities, and lines of logs, that are compared unless a command says otherwise."""

DIFFERENT, NOT_LOOKED, STOPPED = 1, 2, 130
MOST_LISTED = 20

WHAT = {
    "rows": "rows of Postgres, recomputed from raw fields",
    "blocks": "blocks of backfills, recomputed",
    "redis": "rows of Redis, against those of the same ticks",
    "served": "served values, against the rows they were made of",
    "loaded": "rows that were loaded from files",
}


def verify(
    sample: Annotated[
        int | None,
        typer.Option(min=1, help=f"Days of entities to draw, {SAMPLE} unless set.", metavar="N"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Compare everything.")] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Only ticks, and answers, from then on: RFC 3339, or 7d before now."),
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Draws the same sample again; the command prints it.")
    ] = None,
    no_throttle: Annotated[
        bool, typer.Option("--no-throttle", help="Do not pause while the workers lag.")
    ] = False,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget", help="Only forget what workers have found to differ: it is seen to."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Prove that what is stored and was served is what the ticks say.

    Rows and backfilled values are recomputed from raw fields, rows in Redis are compared with those
    of the same ticks, and logged answers with the rows that they were made of. Ends with 0 where
    all is the same, with 1 where something differs, and with 2 where it could not look, or there
    was nothing to compare.
    """
    if forget:
        if full or sample is not None or since is not None or seed is not None:
            raise typer.BadParameter("--forget compares nothing: it goes alone")
        _forget()
        return
    if full and sample is not None:
        raise typer.BadParameter("--full compares everything: give it, or --sample, not both")
    stop = Event()
    stop_on(stop)
    drawn = seed or secrets.token_hex(4)
    number = None if full else sample or SAMPLE
    try:
        began = time.monotonic()
        found = _verified(number, drawn, since, not no_throttle, stop)
        seconds = time.monotonic() - began
    except Exception as error:  # whatever it is, 1 would say that something differs
        _say(error)
        raise typer.Exit(NOT_LOOKED) from None
    if as_json:
        _print_json(found, drawn, number)
    _tell(found, drawn, number, seconds)
    if found.differences:
        raise typer.Exit(DIFFERENT)
    if found.stopped:
        raise typer.Exit(STOPPED)
    if found.away or not found.values:
        raise typer.Exit(NOT_LOOKED)


def _forget() -> None:
    """Remove what workers have put on record."""
    from contextlib import closing

    from pipelines.stores.postgres.connection import Database
    from pipelines.verify.on_record import forget
    from pipelines.verify.verification import APPLICATION
    from tickwell.settings import Settings

    settings = Settings.of_stack()
    settings.need("postgres")
    with closing(Database(settings.postgres, APPLICATION)) as database:
        removed = forget(database)
    typer.echo(f"forgotten: {removed:,} differences that workers had found", err=True)


def _verified(
    number: int | None, seed: str, since: str | None, throttled: bool, stop: Event
) -> Verified:
    with late_imports():
        from pipelines.verify.verification import Wanted
        from serving.history.moments import settled
        from serving.history.moments import since as since_of
        from tickwell.verification import Stores
        from tickwell.verification import verify as verify_stores

    begin = None if since is None else since_of("--since", since, settled())
    wanted = Wanted(number, seed, begin)
    with opened() as (settings, registry):
        stores = Stores(
            settings.postgres,
            settings.redis,
            settings.redis_hot,
            settings.cluster,
            settings.served_log_path,
            throttled,
            settings.lake_path,
        )
        catalog = registry.catalog()
        return _with_progress_bar(
            wanted, lambda show: verify_stores(stores, catalog, wanted, show, stop)
        )


def _with_progress_bar(
    wanted: Wanted, work: Callable[[Callable[[Place, Done], None]], Verified]
) -> Verified:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        "{task.description}",
        BarColumn(),
        TextColumn("{task.fields[values]:,} values", style="dim"),
        TextColumn("{task.fields[waits]}", style="yellow"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[Place, Any] = {}

        def show(place: Place, done: Done) -> None:
            if place not in tasks:
                tasks[place] = progress.add_task(place.value, total=done.of, values=0, waits="")
            progress.update(
                tasks[place], completed=done.parts, values=done.values, waits=done.waits or ""
            )

        return work(show)


def _tell(found: Verified, seed: str, number: int | None, seconds: float) -> None:
    """Say on stderr what was compared, and what differs."""
    for place, tally in found.tallies.items():
        also = [
            f"{count:,} {what}"
            for count, what in (
                (tally.differences.total(), "differ"),
                (tally.unverifiable, "unverifiable"),
                (tally.not_yet_stored, "not yet stored in Postgres"),
            )
            if count
        ]
        typer.echo(
            f"{WHAT[place.value]}: {tally.values:,} compared{''.join(f', {a}' for a in also)}",
            err=True,
        )
        for one in tally.first[:MOST_LISTED]:
            for line in lines(one):
                typer.echo(line, err=True)
    if found.loaded:
        typer.echo(f"{WHAT['loaded']}: {found.loaded:,} not looked at", err=True)
    for place, why in found.away.items():
        typer.echo(f"{WHAT[place.value]}: could not look: {why}", err=True)
    drawn = "all" if number is None else f"a sample of {number:,}, --seed {seed}"
    rate = found.values / max(seconds, 1e-9)
    verdict = "not the same" if found.differences else "the same"
    if not found.differences and not found.values:
        verdict = "nothing to compare"
    typer.echo(
        f"{'stopped: ' if found.stopped else ''}{verdict}: {found.values:,} values of {drawn}, "
        f"{rate:,.0f} a second",
        err=True,
    )


def lines(one: Difference) -> list[str]:
    """A difference as text, and the command that explains it."""
    from serving.features.times import to_rfc_3339

    who = "/".join(one.entity)
    named = f"{one.feature} of {who}" if one.feature else who
    tick = ""
    if one.event_time is not None:
        tick = f"{to_rfc_3339(one.event_time)}.{one.sequence}"
    listed = [
        f"  {one.place.value}: {one.kind.value} of {named} in {one.source}{tick and ' at '}{tick}",
        f"    found    {one.found}",
        f"    expected {one.expected}",
    ]
    if one.feature and tick:
        listed.append(f"    tickwell explain {shlex.quote(who)} {one.feature} --tick {tick}")
    return listed


def _print_json(found: Verified, seed: str, number: int | None) -> None:
    import json

    places = {
        place.value: {
            "values": tally.values,
            "unverifiable": tally.unverifiable,
            "not_yet_stored": tally.not_yet_stored,
            "differences": dict(tally.differences),
            "first": [one._asdict() for one in tally.first],
        }
        for place, tally in found.tallies.items()
    }
    answer = {
        "same": not found.differences and found.values > 0 and not found.away,
        "stopped": found.stopped,
        "sample": number,
        "seed": seed,
        "places": places,
        "loaded": found.loaded,
        "away": {place.value: why for place, why in found.away.items()},
    }
    typer.echo(json.dumps(answer))


def _say(error: Exception) -> None:
    """Print the line that a user sees of an error, or the traceback of a defect."""
    import traceback

    from tickwell.cli import message_for

    message = message_for(error)
    if message is None:
        traceback.print_exception(error)
    else:
        typer.echo(f"tickwell: {message}", err=True)
