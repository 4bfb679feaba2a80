"""What a load generator has seen, in numbers whose size does not grow with it."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.formats.status import Status
from tickwell.bench.histogram import Histogram

TIERS = ("hot", "warm", "cold")
KINDS_OF_FAILURE = 20
"""Different reasons that are told apart; the rest is counted as `others`."""

OTHERS = "others"
_STATUS = {status.value: b'"status":"%b"' % status.value.encode() for status in Status}
_TIER = {tier: b'"tier":"%b"' % tier.encode() for tier in TIERS}


class Seen(NamedTuple):
    """The tally of one generator, or of several."""

    counts: NDArray[np.int64]
    """The histogram of the times of what was answered well."""
    failures: Counter[str]
    statuses: Counter[str]
    """Values by status, of answers with 200."""
    tiers: Counter[str]
    """Values by the tier that they are from, where one is said."""
    drawn: NDArray[np.int64]
    """How often each entity was asked for, in the order of their ranks."""

    @property
    def answered(self) -> int:
        """Requests that were answered well."""
        return int(self.counts.sum())

    def added_to(self, other: Seen) -> Seen:
        """The tally of both."""
        return Seen(
            self.counts + other.counts,
            self.failures + other.failures,
            self.statuses + other.statuses,
            self.tiers + other.tiers,
            self.drawn + other.drawn,
        )


class Tally:
    """Counts requests about `entities` entities, with `values` values in each answer."""

    def __init__(self, entities: int, values: int) -> None:
        self._values = values
        self._times = Histogram()
        self._failures: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._tiers: Counter[str] = Counter()
        self._drawn = np.zeros(entities, np.int64)

    def answered(self, seconds: float, status: int, body: bytes) -> None:
        """Count an answer. One that lacks a value because a store is away is a failure."""
        if status != 200:
            self.failed(f"status {status}")
            return
        self._count(body, _TIER, self._tiers)
        if self._count(body, _STATUS, self._statuses) < self._values:
            self.failed("an answer without all of its values")
        elif _STATUS[Status.UNAVAILABLE] in body:
            self.failed(f"values that are {Status.UNAVAILABLE.value}")
        else:
            self._times.add(seconds)

    def failed(self, why: str) -> None:
        """Count a request that was not answered, or not well."""
        known = why in self._failures or len(self._failures) < KINDS_OF_FAILURE
        self._failures[why if known else OTHERS] += 1

    def drew(self, ranks: list[int]) -> None:
        """Count the entities of a request that was answered, or failed."""
        for rank in ranks:
            self._drawn[rank] += 1

    def seen(self) -> Seen:
        """What was counted."""
        return Seen(self._times.counts(), self._failures, self._statuses, self._tiers, self._drawn)

    def _count(self, body: bytes, texts: dict[str, bytes], counter: Counter[str]) -> int:
        """Count what stands in a body, the most likely first; mostly that is all there is."""
        total = 0
        for name, text in texts.items():
            if found := body.count(text):
                counter[name] += found
                total += found
                if total >= self._values:
                    break
        return total
