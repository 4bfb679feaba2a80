"""When a process that ended by itself is started again."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
STEADY_SECONDS = 30.0
"""A process that has run for so many seconds is started again without a pause."""


@dataclass(slots=True)
class Restarts:
    """The restarts of one process, with growing pauses while it ends soon after its start."""

    count: int = 0
    in_a_row: int = 0
    """How often it ended soon after its start, since it last ran steadily."""

    _pause: float = 0.0

    def after(self, ran: float) -> float:
        """The seconds to wait, where it ended after it `ran` for so many."""
        self.count += 1
        if ran > STEADY_SECONDS:
            self._pause, self.in_a_row = FIRST_PAUSE, 0
            return 0.0
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or FIRST_PAUSE)
        self.in_a_row += 1
        return self._pause
