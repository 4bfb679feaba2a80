"""The command line: commands are in `tickwell.commands`, and import late what they need."""

from __future__ import annotations

import os
import sys

import typer

from tickwell import __version__
from tickwell.commands.backfill import backfill
from tickwell.commands.bench import bench
from tickwell.commands.demo import demo
from tickwell.commands.down import down
from tickwell.commands.drift import drift
from tickwell.commands.env import env
from tickwell.commands.experiment import experiment
from tickwell.commands.explain import explain
from tickwell.commands.feast import feast
from tickwell.commands.feature_changes import features
from tickwell.commands.get import get
from tickwell.commands.keys import keys
from tickwell.commands.lake import lake
from tickwell.commands.migrate import migrate
from tickwell.commands.produce import produce
from tickwell.commands.rebuild_online import rebuild_online
from tickwell.commands.repair import repair
from tickwell.commands.replay import replay
from tickwell.commands.serve import serve
from tickwell.commands.status import status
from tickwell.commands.training_set import training_set
from tickwell.commands.up import up
from tickwell.commands.verify import verify
from tickwell.commands.warm import warm
from tickwell.commands.worker import worker
from tickwell.settings import moved

CONNECT_SECONDS = "10"

app = typer.Typer(
    name="tickwell",
    help="A feature store for market ticks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, help="Print the version."),
) -> None:
    """A feature store for market ticks: the value served and the value trained on are one."""


COMMANDS = (
    *(up, down, status, env, get, bench, produce, replay, backfill, repair, rebuild_online),
    *(migrate, worker, serve, warm, demo, drift, explain, verify),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(feast, name="feast")
app.add_typer(keys)
app.add_typer(features)
app.add_typer(experiment)
app.add_typer(training_set)
app.add_typer(lake)


def main() -> None:
    """Run a command; what the user can correct is one line without a traceback."""
    # without it libpq waits for ever for a server that accepts and is silent; a URL may override it
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
    for line in moved():
        typer.echo(f"tickwell: {line}", err=True)
    try:
        app()
    except Exception as error:
        message = message_for(error)
        if message is None:
            raise
        typer.echo(f"tickwell: {message}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def message_for(error: Exception) -> str | None:
    """The line that a user sees of an error; None for a defect of ours, which has a traceback."""
    from pipelines.errors import PipelineError
    from registry.errors import RegistryError
    from serving.errors import ServingError
    from tickwell.errors import TickwellError, one_line

    if isinstance(error, TickwellError | PipelineError | RegistryError | ServingError):
        return str(error)
    from psycopg2.errors import InsufficientPrivilege
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    if isinstance(error, DBAPIError) and (
        isinstance(error, OperationalError | InterfaceError)
        or error.connection_invalidated
        or isinstance(error.orig, InsufficientPrivilege)
    ):
        return f"TICKWELL_POSTGRES: {one_line(error.orig)}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None
