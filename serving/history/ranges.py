"""Which entities a training set is about, and from when to when."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from registry.lifecycle.training_sets import Range
from serving.errors import TooLarge
from serving.history.found_ticks import Asked

MOST_ENTITIES = 1_000_000
"""Entities of all sources whose ranges are kept of a set: 100 MB."""


class Ranges:
    """The first and the last moment of each entity that was asked for, by its source."""

    def __init__(self, most: int = MOST_ENTITIES) -> None:
        self._most = most
        self._of: dict[tuple[str, str], tuple[int, int]] = {}

    def add(self, source: str, asked: Asked) -> None:
        """Add the moments of questions. Raises `TooLarge`."""
        n = len(asked.names)
        first, last = np.full(n, np.iinfo(np.int64).max), np.full(n, np.iinfo(np.int64).min)
        np.minimum.at(first, asked.entity, asked.moments)
        np.maximum.at(last, asked.entity, asked.moments)
        for name, low, high in zip(asked.names, first.tolist(), last.tolist(), strict=True):
            if low <= high:
                known = self._of.get((source, name), (low, high))
                self._of[source, name] = min(known[0], low), max(known[1], high)
        if len(self._of) > self._most:
            raise TooLarge(
                f"the set is about more than {self._most:,} entities, which is the most of one "
                "that is kept by name: build it without a name, or in parts"
            )

    def each(self) -> Iterator[Range]:
        """The ranges, by source and entity."""
        for (source, entity), (first, last) in sorted(self._of.items()):
            yield Range(source, entity, first, last)
