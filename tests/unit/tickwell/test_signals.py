"""A signal that comes at any instant of a wait ends it."""

from __future__ import annotations

import subprocess
import sys

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
