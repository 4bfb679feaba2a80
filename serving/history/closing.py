"""Up to when history is closed: nothing more is stored that had arrived before that moment.

A training set whose rows ask for what was known later is open: the same question may have another
answer, once the workers have stored what is on its way. What is stored says how far it goes, in the
snapshot that the set is made of: of each partition the newest record's timestamp, and the newest
end of the log that is stored, which is what a partition has in which nothing arrives
(`pipelines.live.log_ends`). A partition of which neither is known leaves its source open.

Only what workers will store counts: a replay, a backfill or a load adds to history that is closed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from registry.resources import sql
from serving.errors import OpenTrainingSet
from serving.features.times import to_rfc_3339
from serving.history.entity_rows import FIRST_MOMENT, Int64s
from serving.history.snapshot import Snapshot

CLOSED_UNTIL = sql(__package__, "closed_until")

CLOCKS_NS = 10**9
"""Nanoseconds by which clocks may differ: those of the brokers, which stamp records, and those of
the workers, which note when a broker has named an end."""

MILLISECOND_NS = 10**6

NEVER = FIRST_MOMENT
"""The moment up to which history is closed of which nothing is known."""


class StoredPartition(NamedTuple):
    """What is stored of a partition: its next offset, None where nothing is, and up to when all is.

    `closed_until` is in nanoseconds UTC, `NEVER` where nothing is known.
    """

    topic: str
    partition: int
    next_offset: int | None
    closed_until: int


class Closed(NamedTuple):
    """Up to when the history of some sources is closed, and which of their partitions decides."""

    until: int
    """Nanoseconds UTC, `NEVER` where nothing is known. What was known before it is all stored."""
    partition: str
    """As `ticks.price[3]`, or a topic that no worker has read yet."""
    partitions: Sequence[StoredPartition] = ()
    """What is stored of each."""

    def open_rows(self, known: Int64s) -> int:
        """How many rows are open, of which ticks had to be known by the moments `known`."""
        return int((known >= self.until).sum())

    def check(self, known: Int64s, first: int) -> None:
        """Raises `OpenTrainingSet` where a row is open; rows are counted from `first`."""
        is_open = known >= self.until
        if not is_open.any():
            return
        row = int(is_open.argmax())
        if self.until == NEVER:
            what = f"nobody has said up to when {self.partition} is stored"
        else:
            what = (
                f"what had arrived is known to be stored before {to_rfc_3339(self.until)}, as "
                f"{self.partition} is"
            )
        raise OpenTrainingSet(
            f"{int(is_open.sum()):,} rows are open, the first is row {first + row}, of which ticks "
            f"count that were known by {to_rfc_3339(int(known[row]))}: {what}. What is stored "
            "later would change the set: let its moments lie before that, or the workers come "
            "after (`tickwell status`), or allow it (allow_open=True, --allow-open)"
        )


def closed(snapshot: Snapshot, topics: Collection[str]) -> Closed:
    """Up to when the history that some topics make is closed: by the slowest of their partitions.

    There is at least one topic.
    """
    stored = [
        StoredPartition(topic, partition, next_offset, NEVER if at is None else _settled(int(at)))
        for topic, partition, next_offset, at in snapshot.rows(
            CLOSED_UNTIL, {"topics": sorted(topics)}
        )
    ]
    unread = sorted(set(topics).difference(one.topic for one in stored))
    if unread:
        return Closed(NEVER, unread[0], stored)
    slowest = min(stored, key=lambda one: one.closed_until)
    return Closed(slowest.closed_until, f"{slowest.topic}[{slowest.partition}]", stored)


def _settled(moment: int) -> int:
    """The moment before which a partition has all: stamps are cut to milliseconds."""
    return max(NEVER, moment // MILLISECOND_NS * MILLISECOND_NS - CLOCKS_NS)
