"""What a store must offer to be a sink. Everything here blocks; the worker calls it in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.compute.state_tails import KeptStates
from pipelines.kafka.topics import Topic
from registry.definitions import Source
from registry.formats.origin import Origin


class Sink(Protocol):
    """A store of rows, window states and origins that changes them together.

    Methods raise `pipelines.errors.StoreUnavailable` while the store is unavailable (the caller
    waits and tries again) and other errors of `pipelines.errors` where only a person can help.
    """

    name: str
    pace: float
    """Seconds from one fetch to the next while little arrives: how often a run pays for itself."""

    @property
    def kept(self) -> KeptStates | None:
        """How it keeps the states that batches give it; None where it makes states of its rows."""
        ...

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

    def store(self, *batches: Batch) -> Sequence[str]:
        """Store batches in turn, and with each advance its partition's watermark to its run's end.

        A store that makes states of its rows is given one batch. Returns the entities of a batch
        whose stored origin is not the expected one: nothing of theirs was stored, the watermark did
        not move to the batch's end, and the caller reloads everything and computes what is left
        again. Raises `WatermarkMoved`, with nothing of the batch stored, when the partition has a
        watermark other than `batch.run.base_offset`.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
