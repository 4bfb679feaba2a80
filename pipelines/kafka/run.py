"""A run: consecutive records of one partition, the unit of all work in a pipeline.

    Kafka record batches ──► Run ──► Ticks ──► Batch ──► store
                          transport  decode   windows    online, offline

The transport delivers small runs of a topic together, as one Faust event, and a larger one alone; a
sink stores the batch of each at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipelines.kafka.record_headers import read_headers
from pipelines.runtime.array_types import Bytes, Int64s

SMALL_RUN = 1_000
"""Records from which a run is a large one. To pass a smaller one from one thread to another costs
more than a second thread saves."""


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one partition in the order of their offsets.

    It covers the offsets from `base_offset` up to, not including, `next_offset`; those without a
    record (control markers, aborted transactions, compacted away) hold no tick. The runs of a
    partition meet without a gap: one's `next_offset` is the next one's `base_offset`. A run may
    hold no record at all.

    Columns of length n: `timestamps` are the records' own, milliseconds UTC; `keys` and `values`
    are (n, 2), where each begins and ends in `data`, which begins below 0 for a null. `headers` is
    where the headers of each record begin in `data` (`kafka.record_headers`), which is known only
    of a record with a value; None where no record has headers.
    """

    topic: str
    topic_id: bytes
    partition: int
    base_offset: int
    next_offset: int
    data: Bytes
    offsets: Int64s
    timestamps: Int64s
    keys: Int64s
    values: Int64s
    headers: Int64s | None = None

    @classmethod
    def empty(cls, topic: str, topic_id: bytes, partition: int, offset: int) -> Run:
        """A run that covers nothing, at `offset`."""
        none, spans = np.empty(0, np.int64), np.empty((0, 2), np.int64)
        data = np.empty(0, np.uint8)
        return cls(topic, topic_id, partition, offset, offset, data, none, none, spans, spans)

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, record: int) -> bytes | None:
        """The message key of a record, by its index in the run."""
        return self._bytes(self.keys[record])

    def value(self, record: int) -> bytes | None:
        """The message of a record, by its index in the run."""
        return self._bytes(self.values[record])

    def headers_of(self, record: int) -> dict[str, bytes]:
        """The headers of a record, by its index in the run; of several of a name the last one."""
        begin = -1 if self.headers is None else int(self.headers[record])
        return {} if begin < 0 else read_headers(self.data, begin)

    def before(self, offset: int) -> Run:
        """The run up to, not including, `offset`; empty, and at its base, if none is before."""
        end = max(self.base_offset, min(offset, self.next_offset))
        return replace(self._records(slice(0, self._index(offset))), next_offset=end)

    def since(self, offset: int) -> Run:
        """The run from `offset` on; empty, and at its end, if that is not before it."""
        start = max(self.base_offset, min(offset, self.next_offset))
        return replace(self._records(slice(self._index(offset), None)), base_offset=start)

    def cut(self, records: Sequence[int]) -> list[Run]:
        """The run cut before some records, by their indexes, into runs that meet."""
        if not records:
            return [self]
        offsets = [int(self.offsets[record]) for record in records]
        bounds = [self.base_offset, *offsets, self.next_offset]
        return [self.since(start).before(end) for start, end in pairwise(bounds)]

    def only(self, keys: Collection[bytes]) -> Run:
        """The records of some message keys, over the same offsets."""
        return self._records([index for index in range(len(self)) if self.key(index) in keys])

    def _bytes(self, span: Int64s) -> bytes | None:
        start, end = span.tolist()
        return None if start < 0 else self.data[start:end].tobytes()

    def _index(self, offset: int) -> int:
        """The index of the first record at or after `offset`."""
        return int(np.searchsorted(self.offsets, offset))

    def _records(self, which: slice | list[int]) -> Run:
        return replace(
            self,
            offsets=self.offsets[which],
            timestamps=self.timestamps[which],
            keys=self.keys[which],
            values=self.values[which],
            headers=None if self.headers is None else self.headers[which],
        )


def together(runs: Iterable[Run], most: int = SMALL_RUN) -> Iterator[tuple[Run, ...]]:
    """Runs in the same order in groups of fewer than `most` records; a larger one is alone."""
    group: list[Run] = []
    records = 0
    for run in runs:
        if group and records + len(run) >= most:
            yield tuple(group)
            group, records = [], 0
        group.append(run)
        records += len(run)
    if group:
        yield tuple(group)
