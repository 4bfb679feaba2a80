"""A service that all processes of a test run use: the first starts it, the last stops it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from tickwell.up.process import Process, Spec

STARTED: list[Process] = []
"""Those that this process has started: another one may use them for longer, and stop them."""


@contextmanager
def shared(directory: Path, make: Callable[[], tuple[Spec, str]]) -> Iterator[str]:
    """The address of the service of `directory`, which is removed when nobody uses it any more.

    `make` tells what to run. Whoever uses the service holds a shared lock, which the system takes
    away from a process that is killed.
    """
    with ExitStack() as stack:
        with _alone(directory):
            users = stack.enter_context((directory / "users").open("a"))
            address = _running(directory) or _start(directory, make)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield address
        finally:
            with _alone(directory):
                if _is_last(users):
                    _stop(directory)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """While nobody else starts or stops it; makes the directory, which the last user removes."""
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            lock = (directory / "lock").open("a")
        except FileNotFoundError:  # removed in this moment
            continue
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_named(lock, directory / "lock"):  # else removed while this waited for it
                yield
                return


def _is_named(file: IO[str], path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_last(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _running(directory: Path) -> str | None:
    with suppress(FileNotFoundError):
        return str(json.loads((directory / "running.json").read_text())["address"])
    return None


def _start(directory: Path, make: Callable[[], tuple[Spec, str]]) -> str:
    spec, address = make()
    process = Process(spec)
    STARTED.append(process)
    pid = process.start()
    process.wait_ready()
    (directory / "running.json").write_text(json.dumps({"pid": pid, "address": address}))
    return address


def _stop(directory: Path) -> None:
    """Kill it, as nobody needs its data."""
    pid = json.loads((directory / "running.json").read_text())["pid"]
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.kill()
        # a zombie, until the process that has started it ends, too
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    for own in STARTED:
        own.exit_code()
    gone = directory.with_name(f"{directory.name}-{uuid.uuid4().hex}")
    directory.rename(gone)  # at once, as somebody else may begin anew
    shutil.rmtree(gone)
