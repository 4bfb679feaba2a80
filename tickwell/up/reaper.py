"""Stops what `up` started when `up` itself was killed.

It runs beside `up`, in a session of its own, and reads from a pipe what is started and stopped. The
pipe ends when `up` does, however it ends; what is left then is stopped, the last one first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 10.0


class Reaper:
    """The end of the pipe that `up` holds."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
            bufsize=1,
        )

    def started(self, pid: int, stop_signal: int) -> None:
        self._tell(f"+ {pid} {int(stop_signal)}")

    def stopped(self, pid: int) -> None:
        self._tell(f"- {pid} 0")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # the reaper was killed; `up` still stops what it started


def stop(pid: int, number: int, grace: float = GRACE_SECONDS) -> None:
    """Stop a process that need not be a child, and kill it when it does not end in time."""
    deadline = time.monotonic() + grace
    try:
        os.kill(pid, number)
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # it ends when `up` does, and not before
    running: dict[int, int] = {}
    for line in sys.stdin:
        change, pid, number = line.split()
        if change == "+":
            running[int(pid)] = int(number)
        else:
            running.pop(int(pid), None)
    for left, how in reversed(running.items()):
        stop(left, how)


if __name__ == "__main__":
    main()
