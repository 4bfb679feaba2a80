"""How far behind a worker is in a partition, in time.

The delay is bounded by the latest time at which the broker reported an end that is stored by now:
what was in the log then is stored. Neither a record's timestamp nor another machine's clock is
trusted for it. Before the first such time the delay counts from 1970: a worker that has just taken
a partition over must not seem to be at its end.

The end is that of the log, and not of what may be read: while a transaction is open, the records
after its first one exist, and cannot be read yet. A broker that has just recovered may report an
end before offsets that it had delivered already; such an end is ignored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from registry.formats.heartbeat import PartitionLag


@dataclass(slots=True)
class _Ends:
    """The ends of one partition that the broker reported; times in Unix seconds."""

    reported_at: float = 0.0
    """The time of the latest report."""

    reached_at: float = 0.0
    """The time of the latest report of an end that is stored by now."""

    target: tuple[int, float] | None = None
    """An end that is not stored yet, and the time of its report."""


class Lags:
    """The lags of a worker's partitions. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ends: dict[tuple[str, int], _Ends] = {}

    def of(
        self, topic: str, partition: int, following: int, end: int, reported_at: float
    ) -> PartitionLag:
        """The lag of a partition that is stored up to `following`.

        The broker reported `end` at `reported_at`. To be called about once a second: a reported end
        is compared with what is stored at the next calls.
        """
        ends, now = self._ends.setdefault((topic, partition), _Ends()), self._clock()
        if ends.target is not None and following >= ends.target[0]:
            ends.reached_at, ends.target = ends.target[1], None
        if end >= following:
            ends.reported_at = reported_at
            if end == following:
                ends.reached_at, ends.target = reported_at, None
            elif ends.target is None:
                ends.target = (end, reported_at)
        lag = max(0, end - following)
        return PartitionLag(
            topic=topic,
            partition=partition,
            next_offset=following,
            end_offset=end,
            lag=lag,
            behind_seconds=max(0.0, now - ends.reached_at) if lag else 0.0,
            unseen_seconds=max(0.0, now - ends.reported_at),
        )
