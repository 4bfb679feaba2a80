"""Processes that are measured: started with a log of their own, asked for their time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.results import Failed

ROOT = Path(__file__).parents[1]
STOP_SECONDS = 15.0
LAST_WORDS = 1500


@dataclass(frozen=True, slots=True)
class Build:
    """A checkout of Tickwell, and the Python that runs it with the libraries it wants."""

    python: str = sys.executable
    root: Path = ROOT


THIS = Build()


@dataclass(frozen=True, slots=True)
class Child:
    """A running process."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def check(self) -> None:
        """Raises `Failed`, with the end of its log, when it has ended."""
        if self.popen.poll() is not None:
            words = self.log.read_text(errors="replace")[-LAST_WORDS:]
            raise Failed(f"{self.name} ended with {self.popen.returncode}: {words}")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


def start(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    place: Path,
    build: Build = THIS,
) -> Child:
    """Start a build's Python with a command; its output replaces what `place`/`name`.log holds.

    No setting of Tickwell that the caller has reaches it: what is measured is as it ships.
    """
    log = place / f"{name}.log"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TICKWELL_")}
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [build.python, *command],
            cwd=build.root,
            env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Child(name, popen, log)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    place: Path,
    build: Build = THIS,
) -> Iterator[Child]:
    """A process that is stopped at the end."""
    child = start(name, command, environment, place, build)
    try:
        yield child
    finally:
        child.stop()


def run_to_end(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    place: Path,
    build: Build = THIS,
) -> None:
    """Run a command. Raises `Failed`, with the end of its log, where it does not end with 0."""
    child = start(name, command, environment, place, build)
    if child.popen.wait() != 0:
        child.check()


def processor_seconds(pid: int, alone: bool = False) -> float:
    """User and system time of a process and, unless `alone`, of its children, ended ones too."""
    try:
        process = psutil.Process(pid)
        if alone:
            return float(sum(process.cpu_times()[:2]))
        family = [process, *process.children(recursive=True)]
        return float(sum(sum(one.cpu_times()[:4]) for one in family))
    except psutil.NoSuchProcess:
        return 0.0


def peak_mb(pid: int) -> float:
    """The most resident memory that a process ever had, MiB, as Linux counts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise Failed(f"/proc/{pid}/status has no VmHWM")


def resident_mb(pid: int) -> float:
    """Resident memory of one process, MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20
