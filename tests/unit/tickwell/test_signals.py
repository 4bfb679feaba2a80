"""A signal that comes at any instant of a wait ends it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

SCRIPT = """
import os, signal
from threading import Event
from tickwell.signals import stop_on

stop = Event()
stop_on(stop)
with stop._cond:  # as `Event.wait` has it while it begins and ends
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(100_000))
print(stop.wait(10))
"""


def test_a_signal_inside_a_wait_does_not_hang() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == "True\n"


def test_every_command_stops_that_way() -> None:
    """A bare handler that sets an event can interrupt its `wait`, and then waits for itself."""
    handlers = [
        f"{file.relative_to(ROOT)}: {ast.unparse(node)}"
        for package in ("registry", "pipelines", "serving", "tickwell")
        for file in sorted((ROOT / package).rglob("*.py"))
        if file.name != "signals.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "signal.signal"
        and ast.unparse(node.args[1]) not in ("signal.SIG_IGN", "signal.SIG_DFL")
    ]
    assert handlers == []
