"""`tickwell training-set`"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.commands.looking import STOPPED, looking, with_progress_bar
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on

if TYPE_CHECKING:
    from serving.history.training_set import Report
    from serving.history.verification import Verified

training_set = typer.Typer(
    name="training-set", help="Join features to entities at moments.", no_args_is_help=True
)


class StaleValues(StrEnum):
    """What to do with a value that was too old when it was served."""

    KEEP = "keep"
    NULL = "null"


@training_set.callback()
def options() -> None:
    """Join features to entities at moments."""


@training_set.command()
def build(
    entities: Annotated[
        Path, typer.Argument(help="Parquet: key fields as columns of text, and a moment a row.")
    ],
    feature: Annotated[
        list[str],
        typer.Option("--feature", "-f", help="A name, name@version or set:name@version; repeat."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The Parquet file to write.")],
    time_column: Annotated[str, typer.Option(help="The column of moments.")] = "timestamp",
    timezone: Annotated[
        str | None, typer.Option(help="Of moments without one, as UTC or America/New_York.")
    ] = None,
    as_known_at: Annotated[
        str | None,
        typer.Option(help="What was known at this moment, not at each row's own; RFC 3339."),
    ] = None,
    stale: Annotated[
        StaleValues, typer.Option(help="keep: stale values are there; null: they are not.")
    ] = StaleValues.KEEP,
    event_times: Annotated[
        bool, typer.Option("--event-times", help="Add the event time of each value.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if there is one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write each entity row with the features that were served at its moment.

    Nothing that happened, or became known, after the moment is in its row. The join reads Postgres
    by itself and needs no server.
    """
    settings = Settings.of_stack()
    settings.need("postgres")
    if out.is_dir():
        raise TickwellError(f"{out} is a folder: name a file")
    if out.exists() and not overwrite:
        raise TickwellError(f"{out} is there already: name another file, or give --overwrite")
    with late_imports():
        from serving.history.building import Stopped, Wanted
        from serving.history.building import build as build_set
        from serving.history.moments import known_by
        from serving.history.training_set import Form

    known = None if as_known_at is None else known_by("--as-known-at", as_known_at)
    form = Form(stale.value, event_times)
    wanted = Wanted(feature, time_column, timezone, known, form)
    stop = Event()
    stop_on(stop)
    began = time.monotonic()
    try:
        report = with_progress_bar(
            "training set",
            lambda show: build_set(settings.postgres, entities, out, wanted, show, stop),
        )
    except Stopped:
        typer.echo(f"stopped: {out} was not written", err=True)
        raise typer.Exit(STOPPED) from None
    if as_json:
        _print_json(report)
    else:
        _print(report)
    seconds = time.monotonic() - began
    typer.echo(f"{out}: {report.rows:,} rows in {seconds:.1f} s", err=True)


@training_set.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A file that `training-set build` has written.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Join the rows of a training set anew and compare every bit.

    Ends with 0 where nothing differs, with 1 where something does, and with 2 where it could not
    look.
    """
    with looking("it was not compared as a whole"):
        with late_imports():
            from serving.history.verification import verify as verify_set

        stop = Event()
        stop_on(stop)
        settings = Settings.of_stack()
        settings.need("postgres")
        found = with_progress_bar(
            "training set", lambda show: verify_set(settings.postgres, file, show, stop)
        )
    if as_json:
        _print_verified_json(found)
    for name, one in found.features.items():
        if one.rows:
            typer.echo(
                f"{name}: {one.rows:,} rows differ, the first is row {one.first}; of them "
                f"{one.filled:,} were missing and are not any more",
                err=True,
            )
    typer.echo(f"{found.rows:,} rows: {'the same' if found.is_same else 'not the same'}", err=True)
    if not found.is_same:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    """Of each feature how many rows have which status."""
    from rich.console import Console
    from rich.table import Table

    from registry.formats.status import Status

    seen = [s.value for s in Status if any(c[s.value] for c in report.statuses.values())]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("feature")
    table.add_column("version")
    for name in seen:
        table.add_column(name, justify="right")
    for name, counts in report.statuses.items():
        version = report.versions[name].partition("@")[2]
        table.add_row(name, version, *(f"{counts[status]:,}" for status in seen))
    console = Console()
    if not console.is_terminal:
        console.width = 1000
    console.print(table)
    for name, holes in report.holes.items():
        if holes:
            ref = report.versions[name]
            typer.echo(
                f"{name}: {holes:,} of the missing ones are of ticks of which {ref}, or a part of "
                "it, was never computed: `tickwell backfill` computes a version's",
                err=True,
            )


def _print_json(report: Report) -> None:
    import json

    features: dict[str, Any] = {
        name: {
            "version": report.versions[name].partition("@")[2],
            "statuses": dict(counts),
            "holes": report.holes[name],
        }
        for name, counts in report.statuses.items()
    }
    typer.echo(json.dumps({"rows": report.rows, "features": features}))


def _print_verified_json(found: Verified) -> None:
    import json
    from dataclasses import asdict

    features = {name: asdict(one) for name, one in found.features.items()}
    typer.echo(json.dumps({"rows": found.rows, "same": found.is_same, "features": features}))
