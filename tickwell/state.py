"""What an `up` leaves in its data directory for `status`, `env` and `down`."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from tickwell.errors import AlreadyRunning, NotRunning


class ProcessView(Struct, frozen=True):
    """A process as it is shown. `state` is starting, running, restarting or stopped."""

    name: str
    pid: int | None
    address: str
    state: str
    restarts: int = 0
    detail: str = ""


class State(Struct, frozen=True):
    """An `up`: its own pid, `phase` (starting, running, stopping), processes, addresses."""

    pid: int
    phase: str
    processes: tuple[ProcessView, ...]
    environment: dict[str, str]


def state_file(data: Path) -> Path:
    return data / "run" / "state.json"


def write(data: Path, state: State) -> None:
    """Put the state in place of the one before; only its owner may read it, it holds passwords."""
    file = state_file(data)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(msgspec.json.encode(state))
    unfinished.replace(file)


def read(data: Path) -> State:
    """The state of a running `up`. Raises `NotRunning`."""
    state = last(data)
    if state is None or not is_running(data):
        raise NotRunning(data)
    return state


def last(data: Path) -> State | None:
    """What the last `up` left, running or not."""
    try:
        return msgspec.json.decode(state_file(data).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the directory. Raises `AlreadyRunning`. The lock goes with the process that holds it."""
    file = data / "run" / "lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            running = last(data)
            raise AlreadyRunning(data, running.pid if running else None) from None
        yield


def is_running(data: Path) -> bool:
    """Whether somebody holds the directory."""
    try:
        with locked(data):
            return False
    except AlreadyRunning:
        return True
