"""Counts who reads which version of a feature, in memory (`registry.lifecycle.usage` says what).

A request costs an addition: a question counts how often it was answered to each consumer, whatever
the number of its features. Every few seconds these counts are collected: added up by version,
consumer and day, and handed out in batches to whoever stores them. All of this is done in the
thread that serves, so nothing is locked.

What clients can make large is bounded: consumers by day, questions that are not collected yet, and
counts that wait for a store. Beyond that reads are counted under another name, and at last only
as dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from typing import NamedTuple
from uuid import UUID, uuid4

from registry.formats.consumer import OTHERS
from registry.lifecycle.usage_recording import Batch, Counted

CONSUMERS = 100
"""Consumers that a process counts by themselves on a day; those that come later are `OTHERS`."""

COUNTING = 500
"""Questions with counts that are not collected yet. Each has a count for each of its consumers."""

WAITING = 20_000
"""Counts by version, consumer and day that wait to be stored, about 5 MB. When there are so many,
new ones are those of `OTHERS`, and of these there may be as many again."""

BATCH = 2_000
"""Counts that are stored at once."""


class Reads(dict[str, int]):
    """How often a question was answered to each consumer since its counts were collected.

    `reads[consumer] += n`, with an entity as the unit, is all that a request costs. `values` says
    how many values of each version (`name@version`) there are in an answer about one entity.
    """

    __slots__ = ("_counting", "values_of")

    def __init__(self, values_of: Mapping[str, int], counting: Callable[[Reads], None]) -> None:
        super().__init__()
        self.values_of = values_of
        self._counting = counting

    def __missing__(self, consumer: str) -> int:
        if not self:
            self._counting(self)
        return 0


Read = tuple[Reads, int]
"""What an answer counts for: a question, about so many entities."""


class Key(NamedTuple):
    """What a count that waits is of."""

    ref: str
    consumer: str
    day: date


class Consumers:
    """The consumers of a day that are counted by themselves; they are the first that came."""

    def __init__(self, most: int = CONSUMERS) -> None:
        self._most = most
        self.known: dict[str | bytes, str] = {}
        """The names of those that have come, by what requests say."""

    def admit(self, said: str | bytes, name: str) -> str:
        """The name under which a consumer is counted that is not among `known`."""
        if len(self.known) >= self._most:
            return OTHERS
        self.known[said] = name
        return name


class Usage:
    """What a process has counted and what of it waits to be stored."""

    def __init__(
        self,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        consumers: Consumers | None = None,
        counting: int = COUNTING,
        waiting: int = WAITING,
    ) -> None:
        self.consumers = consumers or Consumers()
        self.waiting = 0
        """Reads that were collected, and of which nobody knows that they are stored."""
        self.dropped = 0
        """Reads that are stored nowhere, as too much waited."""
        self.failures = 0
        """How often counts could not be stored."""
        self._clock = clock
        self._day = clock().date()
        self._most_counting, self._most_waiting = counting, waiting
        self._counting: list[Reads] = []
        self._waiting: dict[Key, tuple[int, datetime]] = {}
        self._process: UUID = uuid4()
        self._number = 0
        self._sent: Batch | None = None

    def reads(self, refs: Sequence[str]) -> Reads:
        """The counts of a question whose answer has values of these versions for each entity."""
        return self.reads_of({ref: refs.count(ref) for ref in dict.fromkeys(refs)})

    def reads_of(self, values_of: Mapping[str, int]) -> Reads:
        """The same, given the number of values of each version."""
        return Reads(values_of, self._begin)

    def collect(self) -> None:
        """Take the counts of all questions; their time is now, to the pause between two calls."""
        now = self._clock()
        counting, self._counting = self._counting, []
        added: dict[tuple[str, str], int] = {}
        for reads in counting:
            for consumer, entities in reads.items():
                for ref, values in reads.values_of.items():
                    key = ref, consumer
                    added[key] = added.get(key, 0) + values * entities
            reads.clear()
        for (ref, consumer), count in added.items():
            self._wait(Key(ref, consumer, now.date()), count, now)
        if now.date() != self._day:
            self._day = now.date()
            self.consumers.known.clear()

    def batch(self, most: int = BATCH) -> Batch | None:
        """The counts to store next; the same ones again until they are `stored`."""
        if self._sent is None and self._waiting:
            taken = list(islice(self._waiting, most))
            counts = [Counted(*key, *self._waiting.pop(key)) for key in taken]
            self._number += 1
            self._sent = Batch(self._process, self._number, counts)
        return self._sent

    def stored(self) -> None:
        """Note that the batch is stored."""
        if self._sent is not None:
            self.waiting -= sum(counted.reads for counted in self._sent.counts)
            self._sent = None

    def _begin(self, reads: Reads) -> None:
        """Collect from this question, too."""
        if len(self._counting) >= self._most_counting:
            self.collect()
        self._counting.append(reads)

    def _wait(self, key: Key, reads: int, now: datetime) -> None:
        if key not in self._waiting and len(self._waiting) >= self._most_waiting:
            key = key._replace(consumer=OTHERS)
            if key not in self._waiting and len(self._waiting) >= 2 * self._most_waiting:
                self.dropped += reads
                return
        known, _ = self._waiting.get(key, (0, now))
        self._waiting[key] = known + reads, now
        self.waiting += reads
