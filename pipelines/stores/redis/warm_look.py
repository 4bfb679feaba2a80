"""A look at warm: whether it is as this worker has left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.stores.redis.client import answers
from pipelines.stores.redis.fed_partition import FedPartition, Look
from registry import redis_clients
from registry.formats.redis_keys import (
    incarnations_key,
    restoring_key,
    watermark_key,
    writer_key,
)


class WarmLook:
    """Looks at the Redis, or the Redis Cluster, at `url`; one thread calls."""

    def __init__(self, url: str, cluster: bool = False) -> None:
        self._url = url
        self._cluster = cluster
        self._client: Any = None

    def of(self, partitions: Sequence[FedPartition]) -> list[Look]:
        """What warm says of each partition, all in one exchange. Raises `StoreUnavailable`."""
        topics = list(dict.fromkeys(one.topic for one in partitions))
        with answers():
            if self._client is None:
                self._client = redis_clients.feed(self._url, self._cluster)
            with self._client.pipeline(transaction=False) as pipeline:
                for one in partitions:
                    for key in (watermark_key, writer_key, restoring_key):
                        pipeline.get(key(one.topic_id, one.partition))
                for topic in topics:
                    pipeline.lindex(incarnations_key(topic), -1)
                found = pipeline.execute()
        current = dict(zip(topics, found[3 * len(partitions) :], strict=True))
        looks = []
        for place, one in enumerate(partitions):
            watermark, writer, restoring = found[3 * place : 3 * place + 3]
            looks.append(
                Look(
                    watermark=None if watermark is None else int(watermark),
                    writer=writer or b"",
                    incarnation=current[one.topic] or b"",
                    is_restored=restoring is not None,
                )
            )
        return looks

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.close()
