"""Everything that runs: services, workers, servers, each kept running unless a fault says not to.

A process that ends by itself is started again after a moment, as any deployment does, and noted.
Should the run itself be killed, the reaper ends what it started.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, RLock, Thread
from typing import Literal

import psutil

from tickwell.errors import ServiceFailed
from tickwell.up.process import Process, Spec
from tickwell.up.reaper import Reaper

RESTART_SECONDS = 0.5
"""How often ended processes are looked for, and the wait before one is started again."""

START_SECONDS = 120.0
"""For a service to come back. Postgres may find its dead predecessor's memory in use at first."""

CHILDREN_SECONDS = 10.0
"""A backend whose postmaster is gone ends after its statement."""

OUR_ERROR = " ERROR pipelines."
"""Libraries log errors that end nothing."""

State = Literal["running", "down", "paused"]


@dataclass
class Kept:
    """A process, its state as it was last wished, and how often it ended by itself."""

    spec: Spec
    process: Process
    service: bool
    state: State = "running"
    lock: RLock = field(default_factory=RLock)


class Processes:
    """Named processes; every method waits for the process's own lock, so faults never mix.

    The process that a fault concerns may have ended by itself just before; then nothing is done,
    and the loop that keeps it running starts it again.
    """

    def __init__(
        self, say: Callable[[str], None], restart_seconds: float = RESTART_SECONDS
    ) -> None:
        self._restart_seconds = restart_seconds
        self._kept: dict[str, Kept] = {}
        self._say = say
        self._stop = Event()
        self._reaper = Reaper()
        self._telling = Lock()
        self.ended: Counter[str] = Counter()
        self._keeper = Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def start(self, name: str, spec: Spec, service: bool) -> None:
        """Start and, for a service, wait until it answers."""
        kept = Kept(spec, Process(spec), service)
        with kept.lock:
            self._kept[name] = kept
            self._begin(kept)
            if service:
                kept.process.wait_ready()

    def kill(self, name: str, down: float) -> bool:
        """SIGKILL, then away for `down` seconds, then started again. False if it had ended."""
        with self._down(name, down) as kept:
            if kept is None:
                return False
            first, *children = _family(kept.process.pid)
            os.kill(first, signal.SIGKILL)
            _wait(kept.process)
            _end(children)
        return True

    def terminate(self, name: str, down: float) -> bool:
        """Asked to stop, away for `down` seconds, then started again. False if it had ended."""
        with self._down(name, down) as kept:
            if kept is None:
                return False
            kept.process.stop()
        return True

    def pause(self, name: str, seconds: float) -> bool:
        """SIGSTOP for `seconds`, with a service's children. False if it had ended."""
        kept = self._kept[name]
        with kept.lock:
            if kept.process.exit_code() is not None:
                return False
            kept.state = "paused"
            pids = _family(kept.process.pid)
            _signal(pids, signal.SIGSTOP)
            try:
                self._stop.wait(seconds)
            finally:
                _signal(pids, signal.SIGCONT)
                kept.state = "running"
        return True

    def pid(self, name: str) -> int | None:
        return self._kept[name].process.pid

    def stop(self, names: list[str] | None = None) -> None:
        """Stop everything, the last one first, or some, for good."""
        chosen = list(self._kept) if names is None else names
        if names is None:
            self._stop.set()
        for name in reversed(chosen):
            kept = self._kept.pop(name)
            with kept.lock:
                _signal(_family(kept.process.pid), signal.SIGCONT)
                kept.process.stop()
                self._forget(kept)
        if names is None:
            self._reaper.close()

    @contextmanager
    def _down(self, name: str, down: float) -> Iterator[Kept | None]:
        """What takes a process down happens inside; None where none is there to take down."""
        kept = self._kept[name]
        with kept.lock:
            if kept.process.exit_code() is not None:
                yield None
                return
            kept.state = "down"
            yield kept
            self._stop.wait(down)
            self._start_again(kept)
            kept.state = "running"

    def _begin(self, kept: Kept) -> None:
        self._forget(kept)
        pid = kept.process.start()
        with self._telling:
            self._reaper.started(pid, kept.spec.stop_signal)

    def _forget(self, kept: Kept) -> None:
        """The pid is a dead process's, and may go to a stranger."""
        if kept.process.pid is not None:
            with self._telling:
                self._reaper.stopped(kept.process.pid)

    def _start_again(self, kept: Kept) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._stop.is_set():
            self._begin(kept)
            if not kept.service:
                return
            try:
                kept.process.wait_ready()
                return
            except ServiceFailed:
                if time.monotonic() > deadline:
                    raise
                self._stop.wait(self._restart_seconds)

    def _keep(self) -> None:
        while not self._stop.wait(self._restart_seconds):
            for name, kept in list(self._kept.items()):
                if not kept.lock.acquire(blocking=False):
                    continue  # a fault is at it
                try:
                    code = kept.process.exit_code()
                    if code is not None and kept.state == "running" and name in self._kept:
                        why = _last_error(kept.process.spec.log)
                        self.ended[f"{name} with {code}: {why}"] += 1
                        self._say(f"{name} ended with {code} and starts again: {why}")
                        self._start_again(kept)
                finally:
                    kept.lock.release()


def _last_error(log: Path) -> str:
    """The last error of ours in a log, without its time: why its process ended."""
    lines = reversed(log.read_text("utf-8", errors="replace").splitlines())
    found = (line.partition(OUR_ERROR)[2] for line in lines if OUR_ERROR in line)
    return next(found, "its log has no error")


def _family(pid: int | None) -> list[int]:
    """A process and its children, itself first."""
    if pid is None:
        return []
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _end(children: list[int]) -> None:
    """Wait for the children of a dead process; they notice, and end what they are at.

    A server that starts among them could write to files that they still write to.
    """
    processes = []
    for pid in children:
        with suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    for late in psutil.wait_procs(processes, timeout=CHILDREN_SECONDS)[1]:
        late.kill()


def _wait(process: Process) -> None:
    while process.exit_code() is None:
        time.sleep(0.01)
