"""Which entities are read most, about: what a cache is filled with after a start.

A sampled and bounded count: of about one read in `EVERY` one of its rows is drawn, and counts for
as many as the read has. When there is no room left, a new entity takes the place of the least of
some that are drawn, and its count (Metwally, Agrawal, El Abbadi: Efficient computation of frequent
and top-k elements in data streams, 2005; the least of a sample for the least of all is Redis' way
to evict). With each count another entity, in turn, loses `DECAY` of its own, so that what nobody
reads any more is forgotten.

No step takes longer than another: a sketch that is merged or pruned now and then would hold up all
requests for that time.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from typing import NamedTuple

EVERY = 8
"""Reads of which about one is counted."""

MOST_ENTITIES = 100_000
"""Entities that are counted."""

DRAWN = 8
"""Entities of which the least makes room."""

DECAY = 0.1
"""The part of its count that an entity loses when it is its turn."""


class Read(NamedTuple):
    """The name of a row, and about how many reads of its entity were counted."""

    name: bytes
    reads: float


class MostRead:
    """Counts reads; `draw` decides what is drawn."""

    def __init__(
        self,
        most: int = MOST_ENTITIES,
        every: int = EVERY,
        draw: random.Random | None = None,
    ) -> None:
        self._most = most
        self._every = every
        self._draw = draw or random.Random()
        self._wait = 1
        self._index: dict[bytes, int] = {}
        self._names: list[bytes] = []
        self._counts = array("f")
        self._turn = 0

    def note(self, wanted: Sequence[tuple[str, Sequence[bytes]]]) -> None:
        """Count a read of these sources' rows, if there are any, one time in several."""
        if not wanted:
            return
        self._wait -= 1
        if self._wait > 0:
            return
        self._wait = self._draw.randrange(1, 2 * self._every)
        _, names = wanted[0]  # the other sources are of the same entities
        if names:
            self.add(names[self._draw.randrange(len(names))], float(len(names)))

    def add(self, name: bytes, reads: float) -> None:
        """Count reads of one entity."""
        counts = self._counts
        number = self._index.get(name)
        if number is not None:
            counts[number] += reads
        elif len(counts) < self._most:
            self._index[name] = len(counts)
            self._names.append(name)
            counts.append(reads)
        else:
            drawn = [self._draw.randrange(self._most) for _ in range(DRAWN)]
            number = min(drawn, key=counts.__getitem__)
            del self._index[self._names[number]]
            self._index[name] = number
            self._names[number] = name
            counts[number] += reads
        self._turn = (self._turn + 1) % len(counts)
        counts[self._turn] *= 1 - DECAY

    def reads(self) -> list[Read]:
        """What was counted, in no order."""
        return list(map(Read, self._names, self._counts))

    def names(self) -> list[bytes]:
        """The names, the most read first."""
        return [name for name, _ in sorted(self.reads(), key=lambda read: -read.reads)]

    def __len__(self) -> int:
        return len(self._counts)
