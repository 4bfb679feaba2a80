"""At which offsets a worker resumes: the watermarks of its store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from threading import Lock

from faust.types import TP

from pipelines.kafka.topics import Topic
from pipelines.runtime.patience import Patience
from pipelines.stores.redis.fill_marks import FillMarks
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.stores.sink import Sink


class StorePositions:
    """The watermarks of `topics`, by name, in the store of their `sinks`.

    `fill_marks` are checked when Redis knows nothing of a topic: it may have been emptied. `hot` is
    told which partitions are the worker's.
    """

    def __init__(
        self,
        topics: Mapping[str, Topic],
        sinks: Mapping[str, Sink],
        fill_marks: FillMarks | None,
        patience: Patience,
        hot: HotFeed | None = None,
    ) -> None:
        self._topics = topics
        self._sinks = sinks
        self._fill_marks = fill_marks
        self._patience = patience
        self._hot = hot
        self._lock = Lock()
        self._look_ups = 0
        self._assigned: Collection[TP] = ()

    def of(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        """The next offset that the store needs of each partition, None from its beginning. Blocks.

        Without `tps` the worker waits for no position, and the store is not called. Raises
        `StoreUnavailable`, and `RedisEmptied`.
        """
        with self._lock:
            self._look_ups += 1
            look_up = self._look_ups
            self._assign(())
        if not tps:
            self._patience.give_up()
            return {}
        with self._patience.attempt(), self._patience.call():
            stored = {
                tp: self._sinks[tp.topic].watermarks(
                    self._topics[tp.topic].topic_id, [tp.partition]
                )
                for tp in tps
            }
            unknown = {tp.topic for tp, watermarks in stored.items() if not watermarks}
            if self._fill_marks is not None and unknown:
                self._fill_marks.check([self._topics[topic] for topic in sorted(unknown)])
        with self._lock:
            if look_up == self._look_ups:  # else another generation has begun meanwhile
                self._assign(tps)
        return {tp: watermarks.get(tp.partition) for tp, watermarks in stored.items()}

    def assigned(self) -> Collection[TP]:
        """The partitions that are the worker's, whose positions are known."""
        return self._assigned

    def check_filled(self) -> None:
        """Check that Redis was not emptied. Blocks.

        Its values are lost then, and no tick may come that would show it. Raises `RedisEmptied`,
        and `StoreUnavailable`.
        """
        if self._fill_marks is not None:
            self._fill_marks.check(self._topics.values())

    def _assign(self, tps: Collection[TP]) -> None:
        self._assigned = tuple(tps)
        if self._hot is not None:
            self._hot.assigned([(topic, self._topics[topic].topic_id, n) for topic, n in tps])
