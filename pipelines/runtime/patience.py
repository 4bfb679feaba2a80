"""Something that was asked and does not answer.

A store that is killed refuses, and that is an error; one that is stopped, or whose disk hangs, says
nothing at all, and the call waits in it. From outside the two are the same: nothing goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 3.0
"""Seconds. A run is stored in milliseconds, the largest in some hundred."""


class Stall:
    """Notes since when a call is under way; any thread may ask for the `reason`."""

    def __init__(self, who: str, patience: float = PATIENCE) -> None:
        self._who = who
        self._patience = patience
        self._since: float | None = None

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Around one call."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    @property
    def reason(self) -> str | None:
        """That there was no answer for so long; None while it is not long."""
        since = self._since  # another thread may end the call meanwhile
        if since is None:
            return None
        seconds = time.monotonic() - since
        if seconds < self._patience:
            return None
        return f"{self._who} has not answered for {seconds:.0f} s"
