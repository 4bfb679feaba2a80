"""A run of `tickwell replay --forget`: a load that was not finished is given up."""

from __future__ import annotations

from threading import Event

import typer

from tickwell.current_user import current_user
from tickwell.errors import TickwellError
from tickwell.late_imports import late_imports
from tickwell.settings import Settings
from tickwell.signals import stop_on

STOPPED = 130
SHORTEST = 4
"""Characters of an id that name a load."""


def forget_load(name: str) -> None:
    """Give up the load whose id begins with `name`.

    Raises `TickwellError` for a name that is none, or of several, and `typer.Exit` once stopped.
    """
    load = _id_of(name)
    settings = Settings.of_stack()
    settings.need("postgres")
    with late_imports():
        from rich.progress import Progress, SpinnerColumn, TextColumn

        from pipelines.load.forgetting import Forgetting
        from pipelines.load.loads import Loads, alone
        from registry.lifecycle.audit import By
    stop = Event()
    stop_on(stop)
    with Loads.at(settings.postgres) as loads:
        forgetting = Forgetting(settings.postgres, loads)
        found = loads.named(load)
        if len(found) > 1:
            shown = ", ".join(one.load_id.hex() for one in found)
            raise TickwellError(f"--forget {name}: it may be any of {shown}")
        if not found:
            if forgetting.was_forgotten(load):
                typer.echo(f"load {name} is forgotten already")
                return
            raise TickwellError(
                f"--forget {name}: there is no such load; `tickwell replay --list` shows all"
            )
        (one,) = found
        columns = SpinnerColumn(), TextColumn("{task.description}")
        with alone(settings.postgres, one.source), Progress(*columns) as progress:
            task = progress.add_task("forgetting")

            def report(rows: int) -> None:
                progress.update(task, description=f"forgetting: {rows:,} of {one.rows:,} rows")

            by = By(current_user())
            gone = forgetting.forget(one.load_id, by, report, stop)
    shown = f"load {one.id_shown} of {one.source}"
    if stop.is_set():
        typer.echo(f"stopped: {gone or 0:,} rows of {shown} are gone")
        typer.echo("the same command goes on from here; until then nobody can load these files")
        raise typer.Exit(STOPPED)
    typer.echo(f"{shown} is forgotten: {gone or 0:,} rows are gone")


def _id_of(name: str) -> str:
    load = name.replace("-", "").lower()
    if len(load) < SHORTEST or set(load) - set("0123456789abcdef"):
        raise TickwellError(
            f"--forget {name}: it is the id of a load, or the beginning of it, as `tickwell replay "
            "--list` shows it"
        )
    return load
