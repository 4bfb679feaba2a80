"""`tickwell status`"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickwell.settings import Settings

if TYPE_CHECKING:
    from tickwell.up.state import ProcessView

HEALTH_SECONDS = 5.0
"""Seconds that a server may take to say how it is: it may be busy while it starts."""


def status(
    data: Annotated[str | None, typer.Option(help="Data directory; ./data unless set.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show every process, how far the workers are behind, and what they rejected.

    What is rejected is counted since each worker's start; tickwell.rejected_ticks has all of it.
    """
    import msgspec

    from tickwell.client.health import sinks
    from tickwell.up import state

    current = state.read(Path(Settings.load(data=data).data))
    allocators = _allocators(current.processes)
    health = _health(current.environment.get("TICKWELL_URL", ""))
    workers = sinks(health)
    found = {
        "phase": current.phase,
        "health": health["status"],
        "processes": msgspec.to_builtins(current.processes),
        "workers": {worker.sink: worker.state for worker in workers},
        "waits_for": {worker.sink: worker.waits_for for worker in workers},
        "lag": {worker.sink: worker.lag for worker in workers},
        "strangers": health.get("strangers", []),
        "warnings": health.get("warnings", []),
        "differences": health.get("differences", []),
        "rejected": {worker.sink: worker.rejected for worker in workers},
        "passed_over": {worker.sink: worker.passed_over for worker in workers},
        "allocators": allocators,
    }
    if as_json:
        typer.echo(json.dumps(found))
    else:
        places = state.kept_elsewhere(current.processes)
        memory = [_memory_from(name, allocator) for name, allocator in allocators.items()]
        ended = [
            f"{one.name} {one.detail}: {one.last_error}"
            for one in current.processes
            if one.last_error
        ]
        _show(found, [*ended, *places, *memory, *lines(health)])


def _allocators(processes: Iterable[ProcessView]) -> dict[str, str]:
    """The memory allocator of each Redis that runs and that this user may look into."""
    import psutil

    from tickwell.embedded.allocator import allocator_of

    found = {}
    for process in processes:
        if process.pid is not None and process.name.startswith("redis"):
            with suppress(psutil.Error):
                found[process.name] = allocator_of(process.pid)
    return found


def _memory_from(name: str, allocator: str) -> str:
    from tickwell.embedded.allocator import C_LIBRARY

    advice = "; it works twice as fast where jemalloc is installed (Debian: libjemalloc2)"
    return f"{name} has its memory from {allocator}{advice if allocator == C_LIBRARY else ''}"


def _health(url: str) -> dict[str, Any]:
    """The server's answer; without one, an answer of the same form that says why."""
    from tickwell import Client
    from tickwell.errors import TickwellError

    if not url:
        return {"status": "unavailable", "detail": "the server is not started yet"}
    try:
        with Client(url, deadline_seconds=HEALTH_SECONDS) as client:
            return client.health()
    except TickwellError as error:
        return {"status": "unavailable", "detail": str(error)}


def lines(health: Mapping[str, Any]) -> list[str]:
    """The lines that describe an answer of `GET /health`."""
    from tickwell.client.health import sinks

    shown = [health["detail"]] if "detail" in health else []
    for store, answer in health.get("stores", {}).items():
        if answer != "ok":
            shown.append(f"{store}: {answer}")
    for worker in sinks(health):
        parts = []
        if worker.state != "running":
            waits_for = f", waits for {worker.waits_for}" if worker.waits_for else ""
            parts.append(f"{worker.state}{waits_for}")
        behind = "not known how far" if worker.lag is None else f"{worker.lag} messages"
        reasons = [f"{count} {reason}" for reason, count in worker.rejected.items()]
        parts += [f"{behind} behind", f"rejected since it started: {', '.join(reasons) or 'none'}"]
        if worker.passed_over:
            parts.append(f"{worker.passed_over} of other kinds passed over")
        shown.append(f"{worker.sink}: {'; '.join(parts)}")
    shown += [f"DIFFERS: {text}" for text in health.get("differences", ())]
    shown += health.get("strangers", ())
    shown += [f"warning: {text}" for text in health.get("warnings", ())]
    return shown


def _show(found: Mapping[str, Any], shown: Iterable[str]) -> None:
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
    for line in shown:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
