"""What a store must offer so that entities which do not tick get their row in a new row schema.

A run stores the entities that tick. The newest row of any other one stays in the row schema in
which it was stored, and lacks what was recorded since: a position is held for a year. So its newest
row is *carried over*: what a store keeps of the entity is its windows, and of these the newest
tick's values are computed once more, in the newest row schema. Everything else of the row is as it
is stored.

A note for each partition says that it is finished: what comes after that is in the row schema, or
in a newer one.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import NamedTuple, Protocol

from pipelines.compute.run_computation import RunComputation
from registry.definitions import RowSchema


class Home(NamedTuple):
    """A partition of the current incarnation of a topic.

    Entities that have had no tick since the topic was made anew belong to its partition 0 here.
    """

    topic: str
    topic_id: bytes
    partition: int


class CarriedRows(Protocol):
    """Carries rows over in one store. Methods raise `StoreUnavailable`.

    Any number of processes may do the same at once: a row is a function of the log, and is written
    only where there is none.
    """

    def unfinished(self, schema: RowSchema, homes: Collection[Home]) -> Sequence[Home]:
        """Those of `homes` in which rows may have to be carried over into `schema`."""
        ...

    def carry(
        self, computation: RunComputation, homes: Sequence[Home]
    ) -> Generator[int, None, None]:
        """Carry the rows of entities over whose home is among `homes`, and note that it is done.

        After each piece of work, which is small, it gives how many rows that has written. Nothing
        is noted unless the iterator is taken to its end.
        """
        ...


class Homes:
    """Which of some partitions an entity belongs to."""

    def __init__(self, homes: Sequence[Home]) -> None:
        self._by_partition = {home.partition: home for home in homes}
        self._topic_ids = {home.topic_id for home in homes}

    def of(self, topic_id: bytes, partition: int) -> Home | None:
        """The one to which an entity belongs whose newest tick came from a partition."""
        return self._by_partition.get(partition if topic_id in self._topic_ids else 0)
