"""`tickwell status`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tickwell.settings import Settings


def status(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every process, how far the workers are behind, and what they rejected.

    What is rejected is counted since each worker's start; tickwell.rejected_ticks has all of it.
    """
    import msgspec

    from tickwell.client.health import sinks
    from tickwell.client.http import Client
    from tickwell.errors import TickwellError
    from tickwell.up import state

    current = state.read(Path(Settings.load(data=data).data))
    try:
        health = Client(current.environment.get("TICKWELL_URL", "")).health()
    except TickwellError as error:
        health = {"status": "unavailable", "detail": str(error), "workers": {}}
    workers = sinks(health)
    found = {
        "phase": current.phase,
        "health": health["status"],
        "processes": msgspec.to_builtins(current.processes),
        "elsewhere": state.kept_elsewhere(current.processes),
        "lag": {worker.sink: worker.lag for worker in workers},
        "rejected": {worker.sink: worker.rejected for worker in workers},
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{found['phase']}, health {found['health']}", title_justify="left")
    for column in ("process", "pid", "address", "state", "restarts"):
        table.add_column(column)
    for process in found["processes"]:
        table.add_row(
            process["name"],
            str(process["pid"]),
            process["address"],
            f"{process['state']} {process['detail']}".strip(),
            str(process["restarts"]),
        )
    console.print(table)
    for line in found["elsewhere"]:
        console.print(line, soft_wrap=True, highlight=False)
    for sink, lag in found["lag"].items():
        rejected = found["rejected"][sink]
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        console.print(
            f"{sink}: {lag} messages behind; rejected since it started: {reasons or 'none'}",
            soft_wrap=True,
        )
