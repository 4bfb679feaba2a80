"""A worker that feeds hot, step by step: its thread does nothing that a test does not ask for."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from pipelines.kafka.run import Run
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.stores.redis.hot_redis import HotRedis, Rows
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.redis.warm_look import WarmLook
from registry.formats.hot import mark_key
from tests.support.logs import TOPIC_ID, runs
from tests.support.sinks import GO_ON, Opened, ticks, worker

TOPIC = "ticks.price"
SYMBOLS = ["A", "B", "C", "D", "E"]
MARK = mark_key(TOPIC_ID, 0)
OTHER_TOPIC = bytes(range(16, 32))


class Noting(HotFeed):
    """Remembers what it is to feed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noted: list[Rows] = []

    def stored(self, run: Run, rows: Rows) -> None:
        self.noted.append(rows)
        super().stored(run, rows)


class FeedingWorker:
    """A worker of partitions of one topic, on the Redis servers at these URLs.

    Every turn of its feed renews the marks. Of more than `few` rows it is asked which hot has.
    """

    def __init__(
        self,
        opened: Opened,
        warm: str,
        hot: str,
        cluster: bool = False,
        clock: Callable[[], float] = monotonic,
        few: int = 4,
    ) -> None:
        self.now = 0.0
        """The time of day, in Unix seconds: before every run, so that none is old."""
        self.hot = opened(HotRedis(hot, clock, entities_a_command=2, few_entities=few))
        self.feed = Noting(
            self.hot,
            opened(WarmLook(warm, cluster)),
            clock,
            renew_seconds=0.0,
            wall_clock=lambda: self.now,
        )
        self.sink: OnlineSink = opened(
            OnlineSink(warm, cluster=cluster, entities_a_call=2, hot=self.feed)
        )
        self.work = worker(self.sink)

    @property
    def hot_rows(self) -> list[Rows]:
        """What was to be fed of each run that was stored."""
        return self.feed.noted

    def take(self, *partitions: int, topic_id: bytes = TOPIC_ID) -> FeedingWorker:
        """Partitions are assigned, by default the first one."""
        self.feed.assigned([(TOPIC, topic_id, number) for number in partitions or (0,)])
        return self

    def store(self, run: Run) -> None:
        """Store a run in warm. It waits to be fed."""
        self.work.materialize(run, GO_ON)


def run_at(first: int, n: int = 10) -> Run:
    """Ticks of all symbols at the offsets from `first` on."""
    (run,) = runs(ticks(SYMBOLS, n, first), (), first)
    return run


class Ahead:
    """A clock that is ahead by some seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return monotonic() + self.seconds
