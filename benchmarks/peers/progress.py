"""A peer's count of the ticks that it is done with, one line a thousand of them: `count clock`.

The clock is CLOCK_MONOTONIC, which is the same for every process of a machine, so whoever reads the
lines later knows when each was true.
"""

from __future__ import annotations

import os
import time

EVERY = 1000


class Progress:
    """Counts, and prints as it goes."""

    def __init__(self) -> None:
        self._count = 0
        self._next = EVERY

    def add(self, many: int = 1) -> None:
        """`many` more ticks are done."""
        self._count += many
        if self._count >= self._next:
            self._next = self._count + EVERY
            # Faust takes `sys.stdout` for its log
            os.write(1, f"{self._count} {time.monotonic()}\n".encode())
