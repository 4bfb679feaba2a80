"""Threads that no exit waits for."""

from __future__ import annotations

import subprocess
import sys
from threading import Event

import pytest

from pipelines.runtime.daemon_threads import DaemonExecutor, keep_running


def test_calls_come_one_after_the_other_with_their_results() -> None:
    executor = DaemonExecutor("test")
    order: list[int] = []
    futures = [executor.submit(order.append, number) for number in range(50)]
    failing = executor.submit(lambda: 1 // 0)
    after = executor.submit(lambda: len(order))
    assert after.result(10) == 50
    assert order == list(range(50))
    assert all(future.done() for future in futures)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)


def test_a_call_that_was_given_up_is_not_made() -> None:
    executor = DaemonExecutor("test")
    begun, go_on = Event(), Event()
    executor.submit(lambda: (begun.set(), go_on.wait(10)))
    assert begun.wait(10)
    given_up = executor.submit(pytest.fail, "it was cancelled")
    assert given_up.cancel()
    go_on.set()
    assert executor.submit(lambda: True).result(10)


def test_a_call_that_hangs_does_not_hold_up_the_end() -> None:
    program = (
        "import time; from pipelines.runtime.daemon_threads import DaemonExecutor;"
        "DaemonExecutor('hangs').submit(time.sleep, 3600)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=True).returncode == 0


def test_work_that_fails_starts_again() -> None:
    stop, again = Event(), Event()
    begun = []

    def work() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise ValueError("an unforeseen error")
        again.set()
        stop.wait(10)

    keep_running("test", work, stop, restart_seconds=0.001)
    assert again.wait(10)
    stop.set()
    assert len(begun) == 3
