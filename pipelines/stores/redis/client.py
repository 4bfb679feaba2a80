"""How the warm Redis is reached, single or a cluster, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from pipelines.errors import StoreUnavailable

TIMEOUT = 5.0
"""Seconds for an answer. A script takes milliseconds; more means that the server hangs."""

CLUSTER_TIMEOUT = 1.5
"""The same for one node: a call that fails asks the other nodes, in turn, where its slot is now."""


def open_warm(url: str, cluster: bool = False, timeout: float | None = None) -> Any:
    """A client of the Redis, or of the Redis Cluster, at `url`; it does not retry.

    The caller does: it repeats the whole run, and a retry below it could store it twice. A cluster
    is asked for its nodes at once: raises `StoreUnavailable` when none answers.
    """
    seconds = timeout or (CLUSTER_TIMEOUT if cluster else TIMEOUT)
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
    }
    if not cluster:
        return redis.Redis.from_url(url, health_check_interval=15, **options)
    with answers():
        return redis.RedisCluster.from_url(url, **options)


@contextmanager
def answers() -> Iterator[None]:
    """What Redis raises while it is away, loading, full or a replica passes: wait and try again."""
    try:
        yield
    except (RedisError, RedisClusterException) as error:
        raise StoreUnavailable(f"Redis: {error}") from error
