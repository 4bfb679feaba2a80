"""What earlier builds have left in a Redis, in a layout that this one does not read.

A worker that finds no watermark of this layout fills Redis from Postgres, whatever else is there.
What is left then only takes memory. It lets the earlier build continue where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

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


def remove(redis: WarmRedis) -> int:
    """Remove what is left; returns how many keys. Raises `StoreUnavailable`."""
    client, removed = redis.connect(), 0
    with answers():
        found = client.scan_iter(match="tw:*", count=KEYS_AT_ONCE)
        keys = (key for key in found if OF_ENTITIES.fullmatch(key) or OF_PARTITIONS.fullmatch(key))
        while some := list(islice(keys, KEYS_AT_ONCE)):
            removed += len(some)
            if redis.cluster:
                for key in some:
                    client.unlink(key)
            else:
                client.unlink(*some)
    return removed
