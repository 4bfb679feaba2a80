"""Whether this Redis has what it should have, partition by partition.

A partition's watermark says where to go on, and a partition without one would begin at the log's
beginning. That is right for one that was never read, and wrong for a Redis that was emptied: the
beginning may be gone, and values would start anew. So there is a mark beside the watermark:

    none              nothing is known: Redis is new, or was emptied; fill it from Postgres first
    a token           somebody fills it, or was killed doing so; whoever comes goes on
    filled            read from the watermark on, without one from the log's beginning

An emptied Redis has lost the token too, so what was written before that is not taken for all there
is. Mark and watermark share a hash slot and change together.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import uuid4

from pipelines.errors import PipelineError
from pipelines.kafka.topics import Topic
from pipelines.stores.redis import scripts
from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.redis_keys import FILLED_MARK, filled_key, watermark_key


class RedisEmptied(PipelineError):
    """Redis does not know a partition that it knew before."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"Redis has lost what it knew of {topic}[{partition}]: the worker starts again, and "
            "rebuilds it from Postgres"
        )


class Filling:
    """The marks in one Redis. Methods raise `StoreUnavailable`."""

    def __init__(self, sink: OnlineSink) -> None:
        self._sink = sink

    def unfilled(self, topic: Topic) -> list[int]:
        """Partitions that must be filled before they are read."""
        return [
            partition
            for partition in range(topic.partitions)
            if self._sink.get(filled_key(topic.topic_id, partition)) != FILLED_MARK
            and self._sink.get(watermark_key(topic.topic_id, partition)) is None
        ]

    def check(self, topics: Iterable[Topic]) -> None:
        """Raises `RedisEmptied` where a partition that was filled is not any more."""
        for topic in topics:
            for partition in self.unfilled(topic):
                raise RedisEmptied(topic.name, partition)

    def claim(self, topic: Topic, partitions: Iterable[int]) -> dict[int, bytes]:
        """What `finish` must be told of each partition that is to be filled."""
        mine = uuid4().hex
        claimed = {}
        for partition in partitions:
            token = self._sink.run(scripts.CLAIM, _keys(topic, partition), [mine])
            if token is not None:
                claimed[partition] = token
        return claimed

    def finish(self, topic: Topic, partition: int, token: bytes, watermark: int | None) -> bool:
        """All entities are there; False if Redis was emptied since `token` was claimed.

        It is False as well when somebody else was done first: `unfilled` tells.
        """
        arguments = [token, "" if watermark is None else watermark]
        return bool(self._sink.run(scripts.FINISH, _keys(topic, partition), arguments))


def _keys(topic: Topic, partition: int) -> list[str]:
    return [filled_key(topic.topic_id, partition), watermark_key(topic.topic_id, partition)]
