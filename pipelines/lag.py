"""How far behind a worker is in a partition, in time.

Two things bound it. The last record that was stored: what the broker appended before it is stored
too. And the last moment at which the broker told an end that is stored by now. Without either it is
as far behind as can be, since 1970: who has just taken a partition over must not seem to be at its
end.

The end is that of the log, and not of what may be read: while a transaction is open, what comes
after its first record is there, and cannot be read yet. A broker that has just recovered may tell
an end from before what it had given out already; that is no end.
"""

from __future__ import annotations

import time

from pipelines.runs import Run
from registry.heartbeat import PartitionLag


class Lags:
    """What a worker knows of its partitions; any thread may use it. Times are Unix seconds."""

    def __init__(self) -> None:
        self._stored_at: dict[tuple[str, int], float] = {}
        self._ended_at: dict[tuple[str, int], float] = {}
        self._told_at: dict[tuple[str, int], float] = {}

    def stored(self, run: Run) -> None:
        """A run is stored."""
        if len(run.timestamps):
            self._stored_at[run.topic, run.partition] = float(run.timestamps[-1]) / 1000

    def of(
        self, topic: str, partition: int, following: int, end: int, told_at: float
    ) -> PartitionLag:
        """The lag of a partition that is stored up to `following`; the broker told `end` then."""
        here, now = (topic, partition), time.time()
        if end >= following:
            self._told_at[here] = told_at
        if end == following:
            self._ended_at[here] = told_at
        lag = max(0, end - following)
        bound = max(self._stored_at.get(here, 0.0), self._ended_at.get(here, 0.0))
        return PartitionLag(
            topic=topic,
            partition=partition,
            next_offset=following,
            end_offset=end,
            lag=lag,
            behind_seconds=max(0.0, now - bound) if lag else 0.0,
            unseen_seconds=max(0.0, now - self._told_at.get(here, 0.0)),
        )
