"""Clients of the warm Redis, which is a single server or a cluster."""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import RedisClusterException, RedisError

NO_REDIS = (RedisError, RedisClusterException)
"""What its clients raise."""


def client_of(url: str, cluster: bool, **options: Any) -> Any:
    """A client; one of a cluster asks it for its nodes at once."""
    return (redis.RedisCluster if cluster else redis.Redis).from_url(url, **options)
