"""`tickwell env`"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tickwell.settings import PREFIX, Settings

SECRETS = tuple(f"{PREFIX}{name}_PASSWORD" for name in ("KAFKA", "KAFKA_KEY", "SCHEMA_REGISTRY"))
"""Variables that hold nothing but a secret."""


def env(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
    secrets: Annotated[
        bool,
        typer.Option(
            "--secrets", help="Print the passwords of Kafka and the schema registry as well."
        ),
    ] = False,
) -> None:
    """Print where everything is, for `eval "$(tickwell env)"`."""
    from tickwell.up import state

    data_directory = Path(Settings.load(data=data).data)
    found = state.addresses(data_directory)
    if not found.get(f"{PREFIX}KAFKA_USERNAME"):
        found.pop(f"{PREFIX}KAFKA_MECHANISM", None)
    for name, value in found.items():
        if not value:
            continue
        if name in SECRETS and not secrets:
            typer.echo(f"{name} is left out; --secrets prints it", err=True)
            continue
        typer.echo(f"export {name}={shlex.quote(value)}")
