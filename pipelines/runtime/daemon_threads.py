"""Threads that do not delay the end of the process.

A call of a store or broker that hangs must not keep the process. Python joins the threads of a
`ThreadPoolExecutor` before it exits, so one blocked call would keep it for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

RESTART_SECONDS = 5.0
"""Seconds from a failure of background work to its next start."""


class DaemonExecutor(Executor):
    """Makes calls one after the other in a daemon thread, for `loop.run_in_executor`."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` after the calls that were submitted before it."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del future, call  # else the waiting thread would keep them alive


def keep_running(
    name: str, work: Callable[[], None], stop: Event, restart_seconds: float = RESTART_SECONDS
) -> None:
    """Run `work` in a daemon thread until `stop`; a failure is logged, and it starts again."""

    def run() -> None:
        while not stop.is_set():
            try:
                work()
            except Exception:
                logger.exception("%s failed and starts again in %g s", name, restart_seconds)
                stop.wait(restart_seconds)

    Thread(target=run, name=name, daemon=True).start()
