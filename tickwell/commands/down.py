"""`tickwell down`"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from tickwell.errors import TickwellError
from tickwell.settings import Settings

STOP_SECONDS = 90.0


def down(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
) -> None:
    """Stop what `tickwell up` runs on a data directory."""
    from tickwell.up import state

    directory = Path(Settings.load(data=data).data)
    pid = state.read(directory).pid
    try:
        os.kill(pid, 0)  # what another user's process has open cannot be seen
        if not state.is_held_by(directory, pid):
            raise TickwellError(
                f"pid {pid} is in {directory}/run/lock but does not hold it: nothing was stopped"
            )
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        raise TickwellError(f"pid {pid} is another user's: they, or root, can stop it") from None
    deadline = time.monotonic() + STOP_SECONDS
    while state.is_running(directory):
        if time.monotonic() > deadline:
            raise TickwellError(f"pid {pid} does not stop; its log is in {directory}/run")
        time.sleep(0.1)
    typer.echo("stopped")
