"""`tickwell status`"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tickwell.settings import Settings


def status(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every process, how far the workers are behind, and what was rejected."""
    import msgspec

    from tickwell import state
    from tickwell.client import Client
    from tickwell.errors import TickwellError

    current = state.read(Path(Settings.load(data=data).data))
    try:
        health = Client(current.environment.get("TICKWELL_URL", "")).health()
    except TickwellError as error:
        health = {"status": "unavailable", "detail": str(error), "workers": {}}
    workers = {sink: beats for sink, beats in health.get("workers", {}).items() if beats}
    found = {
        "phase": current.phase,
        "health": health["status"],
        "processes": msgspec.to_builtins(current.processes),
        "lag": {sink: _lag(beats) for sink, beats in workers.items()},
        "rejected": {sink: _rejected(beats) for sink, beats in workers.items()},
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _show(found)


def _lag(beats: Sequence[Mapping[str, Any]]) -> int:
    """How many messages the workers of a sink are behind, together."""
    return sum(part["lag"] for beat in beats for part in beat["lag"])


def _rejected(beats: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What the workers of a sink have rejected, together, by reason."""
    counts: Counter[str] = Counter()
    for beat in beats:
        counts.update(beat["rejected"])
    return dict(counts)


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
    for sink, lag in found["lag"].items():
        rejected = found["rejected"][sink]
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
        console.print(f"{sink}: {lag} messages behind; rejected: {reasons or 'none'}")
