"""What a store must offer to be a sink. Everything here blocks; the worker calls it in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.kafka.topics import Topic
from registry.definitions import Source
from registry.formats.origin import Origin

Store = Callable[[], Sequence[str]]
"""Stores a batch, as `Sink.store` does."""


class Sink(Protocol):
    """A store of rows, window states and origins that changes them together.

    Methods raise `pipelines.errors.StoreUnavailable` while the store is unavailable (the caller
    waits and tries again) and other errors of `pipelines.errors` where only a person can help.
    """

    name: str
    pace: float
    """Seconds from one fetch to the next while little arrives: how often a run pays for itself."""
    keeps_states: bool
    """Whether it keeps the newest ticks of entities as states, which batches give it then. A store
    that has every row makes states of these."""

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of each of a topic incarnation's partitions that it knows."""
        ...

    def settle(self, topic: Topic) -> int:
        """Record a topic's number of partitions; returns the number that was recorded first."""
        ...

    def load(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        """The states of those of `entities` that it knows, with their `depth` newest ticks.

        `before` is the origin at which the run begins. A store that keeps history gives the states
        as they were then, because a replay may have written later ones. A store that keeps only the
        newest states gives those, and the kernel passes over the ticks that they contain already.
        """
        ...

    def begin(self, topic_id: bytes, partition: int) -> bool:
        """Make sure that this sink may write a partition, before states for it are loaded.

        Returns whether another one may have written it since this was asked last, so that states
        of before must be forgotten.
        """
        ...

    def prepare(self, batch: Batch) -> Store:
        """Pack a batch for the store, while that may still take the batch before.

        Returns what stores it. The store is not asked, so it is never unavailable here.
        """
        ...

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch and advance its partition's watermark to `batch.run.next_offset`.

        Returns the entities whose stored origin is not the expected one: nothing of theirs was
        stored, the watermark did not move, and the caller reloads everything and computes the run
        again. Raises `WatermarkMoved`, with nothing stored, when the partition has a watermark
        other than `batch.run.base_offset`.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
