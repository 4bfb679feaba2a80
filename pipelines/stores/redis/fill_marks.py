"""Whether this Redis has what it should have, partition by partition.

The watermark of a partition says at which offset a worker resumes, and without one the worker would
begin at the beginning of the log. That is right for a partition that was never read, and wrong for
a Redis that was emptied: the beginning may be gone, and windows would start empty. So a mark stands
beside the watermark:

    none              nothing is known: Redis is new, or was emptied; fill it from Postgres first
    a token           a process fills it, or was killed while it did; the next process continues
    filled            read on from the watermark, without one from the beginning of the log

An emptied Redis has lost the token too, so entities that were written before that are not taken for
all of them. Mark and watermark share a hash slot and change together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import uuid4

from pipelines.errors import PipelineError
from pipelines.kafka.topics import Topic
from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from registry.formats.redis_keys import (
    FILLED_MARK,
    filled_key,
    rules_key,
    rules_value,
    watermark_key,
)


class RedisEmptied(PipelineError):
    """Redis does not know a partition that it knew before."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"Redis has lost what it knew of {topic}[{partition}]: the worker starts again, and "
            "rebuilds it from Postgres"
        )


class FillMarks:
    """The marks in one Redis. Methods raise `StoreUnavailable`."""

    def __init__(self, redis: WarmRedis) -> None:
        self._redis = redis

    def unfilled(self, topic: Topic) -> list[int]:
        """The partitions that must be filled before they are read."""
        return [
            partition
            for partition in range(topic.partitions)
            if self._redis.get(filled_key(topic.topic_id, partition)) != FILLED_MARK
            and self._redis.get(watermark_key(topic.topic_id, partition)) is None
        ]

    def check(self, topics: Iterable[Topic]) -> None:
        """Raises `RedisEmptied` where a partition that was filled no longer is."""
        for topic in topics:
            for partition in self.unfilled(topic):
                raise RedisEmptied(topic.name, partition)

    def claim(self, topic: Topic, partitions: Iterable[int]) -> dict[int, bytes]:
        """The token of each of `partitions` that is to be filled, which `finish` needs."""
        own = uuid4().hex
        claimed = {}
        for partition in partitions:
            token = self._redis.run(scripts.CLAIM, _keys(topic, partition), [own])
            if token is not None:
                claimed[partition] = token
        return claimed

    def watermark(self, topic: Topic, partition: int) -> int | None:
        """The offset before which everything is stored, None if the partition has no watermark."""
        offset = self._redis.get(watermark_key(topic.topic_id, partition))
        return None if offset is None else int(offset)

    def finish(
        self,
        topic: Topic,
        partition: int,
        token: bytes,
        watermark: int | None,
        rules: Sequence[tuple[int, int]] = (),
    ) -> bool:
        """Mark a partition as filled, up to `watermark`.

        `rules` are the ids of those that began in it, each with its first offset: a worker of
        before is refused as in the Redis that was lost. Returns False if Redis was emptied since
        `token` was claimed, or if another process finished first; `unfilled` shows which.
        """
        keys = [*_keys(topic, partition), rules_key(topic.topic_id, partition)]
        arguments = [token, "" if watermark is None else watermark, rules_value(rules)]
        return bool(self._redis.run(scripts.FINISH, keys, arguments))


def _keys(topic: Topic, partition: int) -> list[str]:
    return [filled_key(topic.topic_id, partition), watermark_key(topic.topic_id, partition)]
