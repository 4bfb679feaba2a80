"""How old ticks are when they are stored: the 99th percentile of the last ten seconds.

A tick's age is the time since its record's timestamp, which is the broker's where the topic has
LogAppendTime: by the clocks of two machines, so it is to be compared with itself, not with zero.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np

from pipelines.runtime.array_types import Int64s
from registry.formats.heartbeat import Freshness

SPAN_SECONDS = 10
"""Seconds that the percentile is of."""

SAMPLES = 32
"""Ticks of a batch whose age is taken: a batch is in the order of its log, so they tell of all."""

QUANTILE = 0.99
STEPS_A_DOUBLING = 8
LEAST_SECONDS = 0.001
BOUNDS = LEAST_SECONDS * 2.0 ** (np.arange(24 * STEPS_A_DOUBLING) / STEPS_A_DOUBLING)
"""Upper bounds of ages that are counted as one, in seconds: 9 % apart, from 1 ms to four hours."""


class Ages:
    """Counts the ages of stored ticks; one thread counts, any may ask. `clock` is in Unix seconds.

    What is asked may miss a batch that is counted meanwhile.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, Int64s]] = deque(maxlen=SPAN_SECONDS + 1)

    def count(self, known_at: Int64s) -> None:
        """Count ticks that are stored now, by the timestamps of their records in nanoseconds."""
        n = len(known_at)
        if not n:
            return
        now = self._clock()
        sampled = known_at[:: -(-n // SAMPLES)]
        numbers = np.searchsorted(BOUNDS, now - sampled / 1e9)
        counted = np.bincount(numbers, minlength=len(BOUNDS) + 1) * n // len(sampled)
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            counted = counted + self._seconds[-1][1]
            self._seconds.pop()
        self._seconds.append((second, counted))

    def freshness(self) -> Freshness | None:
        """Of the ticks that were stored in the last ten seconds, None where there are none."""
        since = self._clock() - SPAN_SECONDS
        counted = [counts for second, counts in list(self._seconds) if second >= since]
        if not counted:
            return None
        of_all = np.sum(counted, axis=0).cumsum()
        ticks = int(of_all[-1])
        number = int(np.searchsorted(of_all, QUANTILE * ticks))
        return Freshness(p99_seconds=float(BOUNDS[min(number, len(BOUNDS) - 1)]), ticks=ticks)
