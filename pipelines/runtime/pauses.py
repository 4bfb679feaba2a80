"""Whether a process was stopped for a while: by SIGSTOP, a debugger, a suspended machine."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Pauses:
    """Notices that nobody has looked for longer than `seconds`; it is looked at more often."""

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._looked_at = clock()

    def noticed(self) -> bool:
        """Whether there was a pause since the last call."""
        before, self._looked_at = self._looked_at, self._clock()
        return self._looked_at - before > self._seconds
