"""How far each assigned partition is delivered, stored and committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from faust.types import TP

from pipelines.errors import OffsetsWentBack
from pipelines.kafka.run import Run

logger = logging.getLogger(__name__)


class PartitionProgress:
    """The offsets of the partitions of one generation, each the next one after what is done.

    Acks are kept as one offset for each partition. Faust's list of acked numbers counts an event as
    one offset, and its arithmetic of gaps commits past the run that follows a gap.
    """

    def __init__(self) -> None:
        self.unpositioned: set[TP] = set()
        """Partitions whose positions in the store are not known yet."""

        self._delivered_to: dict[TP, int | None] = {}
        self._stored_to: dict[TP, int | None] = {}
        self._to_commit: dict[TP, int] = {}

    def begin(self, assigned: Collection[TP]) -> None:
        """A new generation: nothing that was known of positions is valid in it."""
        self.unpositioned = set(assigned)
        self._delivered_to.clear()
        self._stored_to.clear()
        self._to_commit.clear()

    def resume(self, positions: Mapping[TP, int | None]) -> None:
        """The store resumes at these positions, None where it has nothing of a partition."""
        self._delivered_to.update(positions)
        self._stored_to.update(positions)
        # A store that was filled in another way, or all of whose runs an earlier generation acked,
        # has nothing left to ack, and a lag monitor would count it as behind.
        self._to_commit.update({tp: offset for tp, offset in positions.items() if offset})
        self.unpositioned.difference_update(positions)

    def continued(self, run: Run) -> Run:
        """The run, beginning where the last one of its partition ended.

        Runs meet except where the broker has deleted records before they were read. Raises
        `OffsetsWentBack`.
        """
        tp = TP(run.topic, run.partition)
        expected = self._delivered_to.get(tp)
        self._delivered_to[tp] = run.next_offset
        if expected is None or expected == run.base_offset:
            return run
        if run.base_offset < expected:
            raise OffsetsWentBack(run.topic, run.partition, expected, run.base_offset)
        logger.error(
            "%s[%d]: offsets %d to %d were deleted by retention before they were read: "
            "their ticks are lost",
            run.topic,
            run.partition,
            expected,
            run.base_offset - 1,
        )
        return replace(run, base_offset=expected)

    def passed_over(
        self, tps: Collection[TP], topic_ids: Mapping[str, bytes], position: Callable[[TP], int]
    ) -> Iterator[Run]:
        """Empty runs of partitions whose `position` has moved past what was delivered.

        The log was truncated there and holds no record since. Without these runs a partition that
        stays quiet would count as behind forever.
        """
        for tp in tps:
            expected, offset = self._delivered_to.get(tp), position(tp)
            if expected is not None and offset > expected:
                yield Run.empty(tp.topic, topic_ids[tp.topic], tp.partition, offset)

    def store(self, tp: TP, following: int) -> None:
        """A run is stored, up to `following`."""
        self._to_commit[tp] = self._stored_to[tp] = following

    def following(self, tp: TP, position: Callable[[TP], int]) -> int:
        """The next offset to be stored; 0 before that is known.

        Where nothing was ever stored or delivered, it is the `position`, where the log begins.
        """
        stored = self._stored_to.get(tp)
        if stored is None and tp in self._stored_to and self._delivered_to.get(tp) is None:
            return position(tp)
        return stored or 0

    # -- commits

    @property
    def uncommitted(self) -> list[TP]:
        """Partitions of which more is stored than committed."""
        return list(self._to_commit)

    def to_commit(self, tp: TP) -> int | None:
        """The offset to be committed of a partition, None when nothing is."""
        return self._to_commit.get(tp)

    def committed(self, tp: TP, offset: int) -> None:
        """The offset is committed."""
        if self._to_commit.get(tp) == offset:
            del self._to_commit[tp]
