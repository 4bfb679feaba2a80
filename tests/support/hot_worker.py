"""A worker that feeds hot, step by step as a test says (`registry.formats.hot`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from registry.formats.hot import TOKEN_BYTES, lease_key, mark_key, row_key
from registry.formats.origin import Origin
from registry.formats.row import Row, pack
from tests.support.stored import store_row

TOPIC_ID = bytes(range(16))


def row(offset: int, partition: int = 0, topic_id: bytes = TOPIC_ID) -> bytes:
    """A row of the tick at an offset, with values that say so."""
    origin = Origin(topic_id, partition, offset, 0)
    return pack(Row(1, offset, offset, offset, origin, bytes(2), (float(offset), 0.5)))


class HotWorker:
    """The worker of one partition; `warm` and `hot` are clients of redis-py.

    What it does is what is called: a worker that is late, or dies, is one whose next step is not.
    """

    def __init__(self, warm: Any, hot: Any, partition: int = 0, topic_id: bytes = TOPIC_ID) -> None:
        self._warm = warm
        self._hot = hot
        self._partition = partition
        self._topic_id = topic_id
        self._offset = 0
        self._unfed: dict[tuple[str, str], bytes] = {}
        self.token = b""
        self.key = mark_key(topic_id, partition)

    def begin(self, ms: int = 3_600_000) -> None:
        """A new token; what waits is forgotten."""
        self._unfed.clear()
        self.token = os.urandom(TOKEN_BYTES)
        self._hot.set(self.key, self.token, px=ms)

    def drop(self) -> None:
        """End the mark: of hot it is not known whether it has everything."""
        self._unfed.clear()
        self.token = b""
        self._hot.delete(self.key)

    def store(self, entities: Sequence[str], source: str = "price") -> bytes:
        """Warm has confirmed a later row of each of these, which is returned."""
        self._offset += 1
        packed = row(self._offset, self._partition, self._topic_id)
        for entity in entities:
            store_row(self._warm, source, entity, packed)
            self._unfed[source, entity] = packed
        return packed

    def feed(self) -> None:
        """Bring hot up to date; nothing is written under another's mark."""
        for (source, entity), packed in self._unfed.items():
            if self._hot.get(self.key) != self.token:
                continue
            is_wanted = self._hot.delete(lease_key(source, entity)) == 1
            self._hot.set(row_key(source, entity), self.token + packed, xx=not is_wanted)
        self._unfed.clear()

    def write(self, entities: Sequence[str], source: str = "price") -> bytes:
        """Store and feed."""
        packed = self.store(entities, source)
        self.feed()
        return packed
