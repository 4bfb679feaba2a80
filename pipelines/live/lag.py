"""How far behind a worker is in a partition, in time.

It is bounded by the last moment at which the broker told an end that is stored by now: what was
there then is stored. No record's timestamp is trusted for it, nor another machine's clock. Before
the first such moment it is as far behind as can be, since 1970: who has just taken a partition over
must not seem to be at its end.

The end is that of the log, and not of what may be read: while a transaction is open, what comes
after its first record is there, and cannot be read yet. A broker that has just recovered may tell
an end from before what it had given out already; that is no end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from registry.formats.heartbeat import PartitionLag


@dataclass(slots=True)
class _Ends:
    """Ends of one partition that were told, and when (Unix seconds)."""

    told_at: float = 0.0
    reached_at: float = 0.0
    """When an end was told that is stored by now."""

    target: tuple[int, float] | None = None
    """An end that is to be reached, and when it was told."""


class Lags:
    """What a worker knows of its partitions."""

    def __init__(self) -> None:
        self._ends: dict[tuple[str, int], _Ends] = {}

    def of(
        self, topic: str, partition: int, following: int, end: int, told_at: float
    ) -> PartitionLag:
        """The lag of a partition that is stored up to `following`; the broker told `end` then.

        To be asked about once a second: an end that was told is looked for in the next answers.
        """
        ends, now = self._ends.setdefault((topic, partition), _Ends()), time.time()
        if ends.target is not None and following >= ends.target[0]:
            ends.reached_at, ends.target = ends.target[1], None
        if end >= following:
            ends.told_at = told_at
            if end == following:
                ends.reached_at, ends.target = told_at, None
            elif ends.target is None:
                ends.target = (end, told_at)
        lag = max(0, end - following)
        return PartitionLag(
            topic=topic,
            partition=partition,
            next_offset=following,
            end_offset=end,
            lag=lag,
            behind_seconds=max(0.0, now - ends.reached_at) if lag else 0.0,
            unseen_seconds=max(0.0, now - ends.told_at),
        )
