"""How the warm Redis is reached, single or a cluster, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from pipelines.errors import StoreUnavailable
from registry import redis_clients


def open_warm(url: str, cluster: bool = False) -> Any:
    """A client of the Redis, or of the Redis Cluster, at `url`.

    The client of a cluster asks for its nodes at once: raises `StoreUnavailable` when none answers.
    """
    with answers():
        return redis_clients.warm(url, cluster)


@contextmanager
def answers() -> Iterator[None]:
    """Around calls of Redis: what it raises while it is unavailable, loading or full.

    The same for a server that has become a replica. All of it passes: raises `StoreUnavailable`.
    """
    try:
        yield
    except (RedisError, RedisClusterException) as error:
        raise StoreUnavailable(f"Redis: {error}") from error
