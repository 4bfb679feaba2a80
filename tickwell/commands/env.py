"""`tickwell env`"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tickwell.errors import TickwellError
from tickwell.settings import Settings


def env(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
) -> None:
    """Print where everything is, for `eval "$(tickwell env)"`."""
    from tickwell.up import state

    place = Path(Settings.load(data=data).data)
    environment = state.read(place).environment
    if not environment:
        raise TickwellError(f"tickwell on {place} is still starting; ask again when it says ready")
    for name, value in environment.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
