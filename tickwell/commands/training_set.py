"""`tickwell training-set`"""

from __future__ import annotations

import time
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell.commands import training_set_reports as reports
from tickwell.commands.features import Json, Note, opened, print_json
from tickwell.commands.looking import STOPPED, file_of, looking, with_progress_bar
from tickwell.current_user import current_user
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on
from tickwell.tables import show

if TYPE_CHECKING:
    from serving.history.named import Proved
    from serving.history.snapshot import Elsewhere
    from serving.history.splitting import Split
    from serving.history.verification import Verified

training_set = typer.Typer(
    name="training-set", help="Join features to entities at moments.", no_args_is_help=True
)


class StaleValues(StrEnum):
    """What to do with a value that was too old when it was served."""

    KEEP = "keep"
    NULL = "null"


class Versions(StrEnum):
    """What a name without a version means."""

    ACTIVE = "active"
    AS_SERVED = "as_served"


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
    delay: Annotated[
        str | None,
        typer.Option(help="Take what was known so long before each moment, as 250ms."),
    ] = None,
    versions: Annotated[
        Versions,
        typer.Option(help="What a name without one means: active now, or served at the moment."),
    ] = Versions.ACTIVE,
    stale: Annotated[
        StaleValues, typer.Option(help="keep: stale values are there; null: they are not.")
    ] = StaleValues.KEEP,
    event_times: Annotated[
        bool, typer.Option("--event-times", help="Add the event time of each value.")
    ] = False,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Also take moments that are not all stored yet.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(help="Add a column `split`: train before this moment, RFC 3339, test after."),
    ] = None,
    purge: Annotated[
        str | None,
        typer.Option(help="The column of when labels are known: those known later are purged."),
    ] = None,
    embargo: Annotated[
        str | None, typer.Option(help="Leave out what follows the split for so long, as 1h.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Keep the set, with its rows, to prove it later."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if there is one.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="The address of a Dask scheduler, as tcp://10.0.0.5:8786: the machines of its "
            "cluster, which see the lake under the same path, sweep it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write each entity row with the features that were served at its moment.

    Nothing that happened, or became known, after the moment is in its row. The join reads Postgres
    by itself and needs no server; with a name it also writes there.
    """
    settings = Settings.of_stack()
    settings.need("postgres")
    if out.is_dir():
        raise TickwellError(f"{out} is a folder: name a file")
    if out.exists() and not overwrite:
        raise TickwellError(f"{out} is there already: name another file, or give --overwrite")
    with late_imports():
        from registry.lifecycle.audit import By
        from serving.history.building import build as build_set
        from serving.history.moments import delay_of, known_by
        from serving.history.named import Keeping
        from serving.history.snapshot import LakeReads
        from serving.history.stopped import Stopped
        from serving.history.wanted import Wanted

    wanted = Wanted(
        feature,
        time_column,
        timezone,
        None if as_known_at is None else known_by("--as-known-at", as_known_at),
        delay_of("--delay", delay),
        versions.value,
        stale.value,
        event_times,
        allow_open,
        _split(split, purge, embargo),
    )
    keeping = None if name is None else Keeping(name, By(current_user()))
    stop = Event()
    stop_on(stop)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            lake = LakeReads(settings.lake_path, elsewhere=_elsewhere(stack, scheduler, settings))
            report = with_progress_bar(
                "training set",
                lambda show: build_set(
                    (settings.postgres, lake), (entities, out), wanted, show, stop, keeping
                ),
            )
    except Stopped:
        typer.echo(f"stopped: {out} was not written", err=True)
        raise typer.Exit(STOPPED) from None
    if as_json:
        reports.built_json(report)
    else:
        reports.built(report)
    seconds = time.monotonic() - began
    typer.echo(f"{out}: {report.rows:,} rows in {seconds:.1f} s", err=True)


def _elsewhere(stack: ExitStack, scheduler: str | None, settings: Settings) -> Elsewhere | None:
    """The cluster that is to sweep the lake, which has to see it."""
    if scheduler is None:
        return None
    from serving.history.snapshot import Elsewhere
    from tickwell.dask_cluster import dask_cluster

    cluster = stack.enter_context(dask_cluster(scheduler))
    cluster.check_seen(settings.lake_path)
    return Elsewhere(cluster.run, cluster.workers)


@training_set.command()
def verify(
    training_set: Annotated[
        str, typer.Argument(help="A file of `training-set build`, or the name of a set.")
    ],
    as_json: Json = False,
) -> None:
    """Join the rows of a training set anew and compare every bit.

    Of a set that is kept by name, the rows that are kept. Ends with 0 where nothing differs, with 1
    where something does, and with 2 where it could not look.
    """
    found: Verified | Proved
    with looking("it was not compared as a whole"):
        with late_imports():
            from serving.history.named import Proved
            from serving.history.named import prove as prove_set
            from serving.history.snapshot import LakeReads
            from serving.history.verification import verify as verify_set

        stop = Event()
        stop_on(stop)
        settings = Settings.of_stack()
        settings.need("postgres")
        lake = LakeReads(settings.lake_path)
        file = file_of(training_set)
        if file is not None:
            found = with_progress_bar(
                "training set", lambda show: verify_set((settings.postgres, lake), file, show, stop)
            )
        else:
            found = with_progress_bar(
                "training set",
                lambda show: prove_set((settings.postgres, lake), training_set, show, stop),
            )
    if isinstance(found, Proved):
        reports.proved(found, as_json)
    else:
        reports.verified(found, as_json)
    typer.echo(f"{found.rows:,} rows: {'the same' if found.is_same else 'not the same'}", err=True)
    if not found.is_same:
        raise typer.Exit(1)


@training_set.command("list")
def list_(as_json: Json = False) -> None:
    """Show the training sets that are kept by name, the newest first."""
    with opened() as (_, registry):
        found = registry.training_sets()
    if as_json:
        print_json(found)
        return
    show(
        ("training set", "rows", "features", "versions", "built", "by"),
        (
            (
                one.name,
                f"{one.rows:,}",
                ", ".join(one.made["pins"]),
                one.made["versions"],
                f"{one.built_at:%Y-%m-%d %H:%M}",
                one.built_by,
            )
            for one in found
        ),
    )


@training_set.command("show")
def show_(name: Annotated[str, typer.Argument(help="The name of a set.")]) -> None:
    """Show how a set was made that is kept by name, as JSON."""
    with opened() as (_, registry):
        print_json(registry.training_set(name))


@training_set.command()
def delete(
    name: Annotated[str, typer.Argument(help="The name of a set.")], note: Note = ""
) -> None:
    """Forget a set that is kept by name, and the rows that are kept of it. Files stay."""
    with opened() as (_, registry):
        registry.delete_training_set(name, note)
    typer.echo(f"deleted the training set {name}")


def _split(at: str | None, purge: str | None, embargo: str | None) -> Split | None:
    from serving.history.moments import delay_of, moment_of
    from serving.history.splitting import Split

    if at is None:
        if purge is not None or embargo is not None:
            raise TickwellError("--purge and --embargo belong to a split: give --split MOMENT")
        return None
    if purge is None:
        raise TickwellError(
            "--split needs --purge COLUMN, the moments at which labels are known: a label that is "
            "known after the split would tell training of the test"
        )
    return Split(moment_of("--split", at), purge, delay_of("--embargo", embargo))
