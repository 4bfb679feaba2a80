"""Rebuilding Redis from Postgres: after FLUSHALL, on a new machine, on a lost disk.

The order, for the topic of a source:

1. Claim every partition that is not filled (`pipelines.stores.redis.fill_marks`).
2. Add the members of sums over entities, so that a sum is `missing`, and not too small, while some
   of its parts are not restored yet.
3. Restore the entities whose home is an older incarnation of the topic: any partition may be the
   next to see them.
4. For each partition, in one snapshot of Postgres, restore the entities whose home it is as they
   were at Postgres' watermark; then set the watermark, and say which rules began where. Later
   ticks are read from Kafka.
5. When all are filled, and not before, any of them may be read: an entity that is not restored yet
   would settle in whichever partition sees it first.

After a kill at any moment, the partitions without a watermark are rebuilt again; entities that were
written already are found and left. Two processes at once do the same work twice, or share it where
there are many partitions, and cannot harm each other or a worker: every write is on top of exactly
what was read before it, and only where that is older. What was lost with Redis beyond Postgres'
watermark is computed again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from pipelines.errors import PartitionsChanged, PipelineError, Stopped
from pipelines.kafka.topics import Topic
from pipelines.rebuild.restore import restore
from pipelines.rebuild.snapshot import Snapshot, snapshot
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.fill_marks import FillMarks
from pipelines.stores.redis.restored_states import RestoredStates
from registry.definitions import Catalog, Source
from registry.formats.redis_keys import FILLED_MARK

T = TypeVar("T")


class PostgresBehind(PipelineError):
    """Postgres lacks what Redis has counted already."""

    def __init__(self, topic: str, partition: int, has: int | None, needed: int) -> None:
        super().__init__(
            f"{topic}[{partition}]: Postgres has everything before offset {has or 0}, and Redis is "
            f"at {needed}: what is missing in Redis would miss the ticks between. Let the offline "
            "worker catch up, then run this again; or empty Redis, and it is rebuilt by itself"
        )


@dataclass(slots=True)
class Done:
    """How far the rebuild of a source is, in entities; `written` are those that Redis lacked.

    Those `elsewhere`, of which `one_elsewhere` is the first, have another home in Redis than in
    Postgres.
    """

    source: str
    entities: int
    compared: int = 0
    written: int = 0
    elsewhere: int = 0
    one_elsewhere: str | None = None

    def __str__(self) -> str:
        return (
            f"rebuilding {self.source} from Postgres: {self.compared:,} of {self.entities:,} "
            "entities"
        )


Progress = Callable[[Done], None]


@dataclass(frozen=True, slots=True)
class RebuildLimits:
    """How much a rebuild does at once, and how long it waits."""

    entities_a_piece: int = 200
    """Entities fetched from Postgres at once; with full histories they are about 16 MB."""

    patience: float = 60.0
    """Seconds for the offline worker to store what Redis has already; it is a moment behind."""


class Rebuild:
    """Rebuilds `redis` from `postgres`, of each entity as many ticks as its source keeps.

    Methods return when it is done, and raise `Stopped` once `stop` is set, `StoreUnavailable`, and
    `PartitionsChanged`.
    """

    def __init__(
        self,
        postgres: str,
        redis: WarmRedis,
        catalog: Catalog,
        stop: Event,
        limits: RebuildLimits = RebuildLimits(),
    ) -> None:
        self._postgres = postgres
        self._marks = FillMarks(redis)
        self._target = RestoredStates(redis)
        self._catalog = catalog
        self._stop = stop
        self._limits = limits

    def fill(self, source: Source, topic: Topic, progress: Progress) -> None:
        """Fill what Redis never had, or has lost; do nothing if it has everything."""
        while unfilled := self._marks.unfilled(topic):
            tokens = self._marks.claim(topic, unfilled)
            # the older incarnations come before the first partition
            self._rebuild(source, topic, tokens, len(tokens) == topic.partitions, progress)

    def refill(self, source: Source, topic: Topic, progress: Progress) -> None:
        """Compare every entity, and restore those that Redis has lost.

        Raises `PostgresBehind` when it does not catch up with Redis in time.
        """
        while True:
            everything = range(topic.partitions)
            tokens = dict.fromkeys(everything, FILLED_MARK) | self._marks.claim(topic, everything)
            if self._rebuild(source, topic, tokens, True, progress):
                return

    def _rebuild(
        self,
        source: Source,
        topic: Topic,
        tokens: Mapping[int, bytes],
        older: bool,
        progress: Progress,
    ) -> bool:
        """Rebuild the partitions of `tokens`, and with `older` the older incarnations first.

        Returns False if Redis was emptied meanwhile, or if another process was faster.
        """
        if not tokens:
            return True
        with self._snapshot(source, topic) as now:
            recorded = now.partitions()
            if recorded not in (None, topic.partitions):
                raise PartitionsChanged(topic.name, recorded or 0, topic.partitions)
            done = Done(source.name, now.count(tokens))
            progress(done)
            if len(source.key) > 1:
                for names in now.names():
                    self._target.add_members(source, names)
            if older:
                self._restore(now, source, None, done, progress)
        # in random order, so that workers that start together share the work
        for partition in random.sample(sorted(tokens), len(tokens)):
            if not self._partition(source, topic, partition, tokens[partition], done, progress):
                return False
        return True

    def _partition(
        self,
        source: Source,
        topic: Topic,
        partition: int,
        token: bytes,
        done: Done,
        progress: Progress,
    ) -> bool:
        """Rebuild one partition; returns as `_rebuild`."""
        if token != FILLED_MARK and self._marks.claim(topic, [partition]).get(partition) != token:
            return False
        needed = self._marks.watermark(topic, partition) or 0

        def rebuild() -> tuple[int | None, list[tuple[int, int]]]:
            with self._snapshot(source, topic) as now:
                watermark = now.watermark(partition)
                if (watermark or 0) < needed:
                    raise PostgresBehind(topic.name, partition, watermark, needed)
                self._restore(now, source, partition, done, progress)
                return watermark, now.rules(partition)

        watermark, rules = self._patiently(rebuild)
        return self._marks.finish(topic, partition, token, watermark, rules)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try again while Postgres is behind, for as long as the limits say."""
        retrying = Retrying(
            retry=retry_if_exception_type(PostgresBehind),
            wait=wait_random_exponential(0.1, max=5),
            stop=stop_after_delay(self._limits.patience) | stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        result: T = retrying(attempt)
        return result

    def _restore(
        self, now: Snapshot, source: Source, partition: int | None, done: Done, progress: Progress
    ) -> None:
        for piece in now.entities(partition, source.history, self._limits.entities_a_piece):
            if self._stop.is_set():
                raise Stopped(
                    "the rebuild of Redis ended before it was done; a new start resumes it"
                )
            written, elsewhere = restore(self._target, source, piece)
            done.written += written
            done.elsewhere += len(elsewhere)
            done.one_elsewhere = done.one_elsewhere or next(iter(elsewhere), None)
            done.compared += len(piece)
            done.entities = max(done.entities, done.compared)  # some came since they were counted
            progress(done)

    def _snapshot(self, source: Source, topic: Topic) -> AbstractContextManager[Snapshot]:
        return snapshot(self._postgres, self._catalog, source, topic)
