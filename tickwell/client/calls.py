"""How long a call may take, and how often it is tried. Nothing here sends anything.

A call is tried again only where that is safe and of use: after a connection that broke (all that
this client asks is a read) and after a 503 that says when to come back (`Retry-After`). Each call
earns a part of a retry and each retry costs a whole one: a server in trouble then gets at most
that part more requests, however many clients wait for it. No pause reaches beyond the deadline.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from tickwell.client.errors import ClientError, ConnectionFailed, DeadlineExceeded, NotReady

DEADLINE_SECONDS = 2.0
"""Seconds that a call may take unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Retries:
    """What retries a client allows itself.

    A request is sent `attempts` times at most; `Retries(attempts=1)` never tries again. `share` of
    a retry is earned by each call, and `reserve` retries are saved up at most; that many are there
    at the start. The pause before the nth retry is drawn from 0 to `first_pause_seconds` × 2ⁿ⁻¹, at
    most `longest_pause_seconds`, and is no shorter than what the server asks for.
    """

    attempts: int = 4
    share: float = 0.1
    reserve: float = 10.0
    first_pause_seconds: float = 0.01
    longest_pause_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Chances:
    """What a call is subject to: the clock (monotonic, seconds), and chance."""

    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform


class Budget:
    """The retries that a client has left; threads share it."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._left = retries.reserve
        self._lock = Lock()

    def earn(self) -> None:
        """A call begins."""
        with self._lock:
            self._left = min(self._left + self._retries.share, self._retries.reserve)

    def spend(self) -> bool:
        """Whether there is a retry left, which is spent then."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Calls:
    """Begins the calls of one client to the server at `url`."""

    def __init__(self, url: str, retries: Retries, chances: Chances | None = None) -> None:
        self._url = url
        self._retries = retries
        self._chances = chances or Chances()
        self._budget = Budget(retries)

    def begin(self, seconds: float) -> Call:
        """A call that may take `seconds`. Raises ValueError unless they are more than 0."""
        if not seconds > 0:
            raise ValueError(f"deadline_seconds={seconds!r}: a call needs more than 0 seconds")
        self._budget.earn()
        return Call(self._url, seconds, self._retries, self._budget, self._chances)


class Call:
    """One call: several requests with one deadline, each of which may be tried again."""

    def __init__(
        self, url: str, seconds: float, retries: Retries, budget: Budget, chances: Chances
    ) -> None:
        self._url = url
        self._seconds = seconds
        self._retries = retries
        self._budget = budget
        self._chances = chances
        self._end = chances.clock() + seconds
        self._last: ClientError | None = None

    def remaining(self) -> float:
        """Seconds that are left. Raises `DeadlineExceeded` where there are none."""
        left = self._end - self._chances.clock()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self) -> DeadlineExceeded:
        """The deadline has passed; what was tried before it says why."""
        return DeadlineExceeded(self._url, self._seconds, str(self._last or ""))

    def pause(self, error: ClientError, attempt: int) -> float:
        """Seconds to wait before the request whose nth attempt ended with `error` is sent again.

        Raises `error` where it must not be sent again, or not in time.
        """
        asked_for = _retry_after(error)
        if asked_for is None or attempt >= self._retries.attempts:
            raise error
        longest = min(
            self._retries.first_pause_seconds * 2.0 ** (attempt - 1),
            self._retries.longest_pause_seconds,
        )
        seconds = max(asked_for, self._chances.uniform(0.0, longest))
        if seconds >= self.remaining() or not self._budget.spend():
            raise error
        self._last = error
        return seconds


def _retry_after(error: ClientError) -> float | None:
    """Seconds after which a request may be sent again at the earliest; None for never."""
    if isinstance(error, ConnectionFailed):
        return 0.0
    return error.retry_after_seconds if isinstance(error, NotReady) else None
