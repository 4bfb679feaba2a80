"""`tickwell env`"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tickwell.settings import Settings


def env(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
) -> None:
    """Print where everything is, for `eval "$(tickwell env)"`."""
    from tickwell.up import state

    data_directory = Path(Settings.load(data=data).data)
    for name, value in state.addresses(data_directory).items():
        typer.echo(f"export {name}={shlex.quote(value)}")
