"""Threads that nobody waits for.

What a store or a broker that hangs holds up must not hold up the end of the process. Python joins
the threads of a `ThreadPoolExecutor` before it exits, so one blocked call would keep it for ever.
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

AFTER_ERROR_SECONDS = 5.0


class DaemonExecutor(Executor):
    """Calls one after the other in a daemon thread of its own, for `loop.run_in_executor`."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` after what was submitted before it."""
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
            del future, call  # not kept alive by a thread that waits for the next one


def keep_running(name: str, work: Callable[[], None], stop: Event) -> None:
    """Run `work` in a daemon thread; if it fails it is told, and it begins again, until `stop`."""

    def run() -> None:
        while not stop.is_set():
            try:
                work()
            except Exception:
                logger.exception("%s failed and begins again in %g s", name, AFTER_ERROR_SECONDS)
                stop.wait(AFTER_ERROR_SECONDS)

    Thread(target=run, name=name, daemon=True).start()
