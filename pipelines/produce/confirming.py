"""What became of ticks that were sent: both stores are asked, which are the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import NamedTuple, Protocol
from uuid import UUID

from pipelines.errors import Stopped, StoreUnavailable
from pipelines.kafka.producer import DeliveredOffsets
from pipelines.kafka.topics import Topic
from pipelines.stores.postgres.connection import Database
from pipelines.stores.redis.connection import WarmRedis
from registry.formats.redis_keys import watermark_key
from registry.resources import sql

WATERMARKS = sql(__package__, "watermarks")
REJECTED = sql(__package__, "rejected")

LOOK_SECONDS = 0.1


class Rejected(NamedTuple):
    """How many ticks were rejected for a reason, and what was said of one of them."""

    reason: str
    ticks: int
    detail: str


class SinkStore(Protocol):
    """A store that the ticks must reach; `worker` names the worker that writes to it."""

    name: str
    worker: str

    def watermarks(self, topic: Topic) -> Mapping[int, int]:
        """The next offset of each partition that it knows. Raises `StoreUnavailable`."""
        ...


class OnlineStore:
    """The warm Redis."""

    name, worker = "Redis", "online"

    def __init__(self, redis: WarmRedis) -> None:
        self._redis = redis

    def watermarks(self, topic: Topic) -> Mapping[int, int]:
        found = {
            partition: self._redis.get(watermark_key(topic.topic_id, partition))
            for partition in range(topic.partitions)
        }
        return {partition: int(offset) for partition, offset in found.items() if offset}


class OfflineStore:
    """Postgres. Nothing is locked: a watermark is only looked at."""

    name, worker = "Postgres", "offline"

    def __init__(self, database: Database) -> None:
        self._database = database

    def watermarks(self, topic: Topic) -> Mapping[int, int]:
        with self._database.transaction() as cursor:
            cursor.execute(WATERMARKS, {"topic_id": _uuid(topic)})
            return dict(cursor.fetchall())

    def rejected(self, topic: Topic, sent: DeliveredOffsets) -> list[Rejected]:
        """What was rejected of delivered ticks, the most frequent reason first."""
        partitions, starts, ends = zip(*sent.ranges, strict=True) if sent.ranges else ((), (), ())
        ranges = {"partitions": list(partitions), "starts": list(starts), "ends": list(ends)}
        with self._database.transaction() as cursor:
            cursor.execute(REJECTED, {"topic_id": _uuid(topic), **ranges})
            return [Rejected(*row) for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a store lacks of what was sent, in offsets, and why it could not be asked."""

    store: str
    worker: str
    offsets: int
    error: str = ""


class NoProgress(Exception):
    """The stores did not come nearer to what was sent."""

    def __init__(self, waiting: Sequence[Waiting]) -> None:
        super().__init__("no progress")
        self.waiting = waiting


def wait_stored(
    stores: Sequence[SinkStore],
    topic: Topic,
    ends: Mapping[int, int],
    progress: Callable[[int], None],
    stop: Event,
    patience: float,
) -> None:
    """Wait until the watermarks of all stores have passed the offsets `ends`, by partition.

    `progress` is told how many offsets are missing. Raises `NoProgress` after `patience` seconds
    without any, and `Stopped`.
    """
    least, moved = None, time.monotonic()
    while True:
        waiting = [_missing(store, topic, ends) for store in stores]
        missing = sum(one.offsets for one in waiting)
        progress(missing)
        if missing == 0 and not any(one.error for one in waiting):
            return
        if least is None or missing < least:
            least, moved = missing, time.monotonic()
        elif time.monotonic() - moved > patience:
            raise NoProgress([one for one in waiting if one.offsets or one.error])
        if stop.wait(LOOK_SECONDS):
            raise Stopped("what became of the ticks was not waited for")


def _missing(store: SinkStore, topic: Topic, ends: Mapping[int, int]) -> Waiting:
    try:
        known = store.watermarks(topic)
    except StoreUnavailable as error:
        return Waiting(store.name, store.worker, sum(ends.values()), str(error))
    missing = sum(max(0, end - known.get(partition, 0)) for partition, end in ends.items())
    return Waiting(store.name, store.worker, missing)


def _uuid(topic: Topic) -> str:
    return str(UUID(bytes=topic.topic_id))
