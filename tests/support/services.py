"""Services of our own: for as long as a test needs one, and killed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from tickwell.up.process import Process, Spec


@contextmanager
def embedded(make: Callable[[], tuple[Spec, str]]) -> Iterator[str]:
    """The address of a service that is started here and stopped at the end."""
    spec, address = make()
    process = Process(spec)
    process.start()
    try:
        process.wait_ready()
        yield address
    finally:
        process.stop()
        if spec.directory is not None:
            shutil.rmtree(spec.directory)


def kill(process: Process) -> None:
    """SIGKILL; returns once the process has ended and may be started again.

    PostgreSQL may not while any process of it has the old one's shared memory.
    """
    assert process.pid is not None
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    while process.exit_code() is None:
        time.sleep(0.01)
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left
