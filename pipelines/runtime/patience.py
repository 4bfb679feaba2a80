"""Patience with a service: how a worker calls a store that may refuse, or not answer at all.

A store that was killed refuses, and that is an error. A store that is stopped, or whose disk hangs,
says nothing, and the call waits in it. From outside the two are the same: the worker makes no
progress, and has to say why.

Every call passes through `Patience.call`. A circuit breaker belongs there: it would count what the
calls raise, and raise one of the passing errors without a call while it is open.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from pipelines.errors import Stopped, StoreUnavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)

STALL_SECONDS = 3.0
"""Seconds after which a call counts as unanswered. A run is stored in milliseconds, the largest in
some hundred."""

BACKOFF = wait_random_exponential(0.05, max=5.0)
"""Seconds between attempts: random up to 0.05, doubled with each attempt, up to 5 at the most."""


class Patience:
    """Calls `service` until it answers, and knows what it is waiting for.

    `passing` are the errors that pass by themselves; a call that takes longer than `stall_seconds`
    is reported like one of them. One thread calls; any thread may read `reason` and `refusal`.
    """

    def __init__(
        self,
        service: str,
        passing: tuple[type[Exception], ...] = (StoreUnavailable,),
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._service = service
        self._passing = passing
        self._stall_seconds = stall_seconds
        self._refusal: str | None = None
        self._called_at: float | None = None

    @property
    def reason(self) -> str | None:
        """Why the caller makes no progress; None while it does."""
        return self._refusal or self._stall

    @property
    def refusal(self) -> str | None:
        """The passing error of the last attempt; None once an attempt has succeeded."""
        return self._refusal

    def retry(self, attempt: Callable[[], T], stop: Event) -> T:
        """Make attempts, with a growing pause between them, until one succeeds.

        An attempt may consist of several calls, each within `call`. Raises `Stopped` when an
        attempt fails after `stop` was set, and at once what does not pass by itself.
        """

        def one() -> T:
            with self.attempt():
                return attempt()

        def stopped(_: RetryCallState) -> Any:
            raise Stopped(f"the worker was stopped while {self._service} was unavailable")

        retrying = Retrying(
            retry=retry_if_exception_type(self._passing),
            wait=BACKOFF,
            sleep=sleep_using_event(stop),
            stop=stop_when_event_set(stop),
            retry_error_callback=stopped,
        )
        result: T = retrying(one)
        return result

    def give_up(self) -> None:
        """The caller no longer waits for the service, whether or not it answers again."""
        self._refusal = self._called_at = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one attempt; its passing error is raised, and remembered until one succeeds."""
        try:
            yield
        except self._passing as error:
            if self._refusal is None:
                logger.warning("%s is unavailable, waiting: %s", self._service, error)
            self._refusal = str(error)
            raise
        if self._refusal is not None:
            logger.info("%s answers again", self._service)
            self._refusal = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call, which is a stall while it takes too long."""
        self._called_at = time.monotonic()
        try:
            yield
        finally:
            self._called_at = None

    @property
    def _stall(self) -> str | None:
        called_at = self._called_at  # another thread may end the call meanwhile
        if called_at is None:
            return None
        seconds = time.monotonic() - called_at
        if seconds < self._stall_seconds:
            return None
        return f"{self._service} has not answered for {seconds:.0f} s"
