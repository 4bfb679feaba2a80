"""What earlier builds have left in a Redis, in a layout that this one does not read.

A worker that finds no watermark of this layout fills Redis from Postgres, whatever else is there.
What is left then only takes memory. It lets the earlier build continue where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Event

from pipelines.errors import Stopped
from pipelines.kafka.topics import Topic
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis

OF_ENTITIES = re.compile(rb"tw:\{b\d+\}:(row|state|members|closed):.*", re.DOTALL)
OF_PARTITIONS = re.compile(rb"tw:(watermark|filled|begun|rules):.*", re.DOTALL)
KEYS_AT_ONCE = 1_000


def is_left(redis: WarmRedis, topics: Iterable[Topic]) -> bool:
    """Whether an earlier build has stored anything of topics. Raises `StoreUnavailable`."""
    return any(
        redis.get(f"tw:watermark:{topic.topic_id.hex()}:{partition}") is not None
        for topic in topics
        for partition in range(topic.partitions)
    )


def remove(redis: WarmRedis, stop: Event) -> int:
    """Remove what is left; returns how many keys that were.

    Raises `StoreUnavailable`, and `Stopped` once `stop` is set.
    """
    client, removed = redis.connect(), 0
    with answers():
        found = client.scan_iter(match="tw:*", count=KEYS_AT_ONCE)
        keys = (key for key in _until(stop, found) if _is_earlier(key))
        while some := list(islice(keys, KEYS_AT_ONCE)):
            # on a cluster no call spans hash slots
            calls = [[key] for key in some] if redis.cluster else [some]
            removed += sum(client.unlink(*call) for call in calls)  # a scan may name a key twice
    return removed


def _is_earlier(key: bytes) -> bool:
    return bool(OF_ENTITIES.fullmatch(key) or OF_PARTITIONS.fullmatch(key))


def _until(stop: Event, keys: Iterable[bytes]) -> Iterator[bytes]:
    for key in keys:
        if stop.is_set():
            raise Stopped("not all keys of an earlier version are removed; start it again")
        yield key
