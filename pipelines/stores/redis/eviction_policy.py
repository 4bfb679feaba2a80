"""Whether the warm Redis keeps what it has: an entity that it evicts is a watermark that lies."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import NoPermissionError

from pipelines.errors import RedisEvicts
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis

logger = logging.getLogger(__name__)

KEEPS = "noeviction"


def check_keeps(redis: WarmRedis) -> None:
    """Raises `RedisEvicts` where a full Redis would remove keys, and `StoreUnavailable`.

    `INFO` has the policy, where managed servers refuse `CONFIG`. A user who may not ask for it is
    trusted, with a warning.
    """
    client = redis.connect()
    with answers():
        policies = _policies(client, redis.cluster)
    if None in policies:
        logger.warning(
            "this user of Redis cannot see its maxmemory-policy (INFO memory): it must be %s", KEEPS
        )
    for policy in sorted(filter(None, policies - {KEEPS})):
        raise RedisEvicts(policy)


def _policies(client: Any, cluster: bool) -> set[str | None]:
    """The policy of each node; None where it is not told."""
    try:
        if not cluster:
            return {client.info("memory").get("maxmemory_policy")}
        nodes = client.get_primaries()
        told = [client.info("memory", target_nodes=node) for node in nodes]
    except NoPermissionError:
        return {None}
    return {info.get("maxmemory_policy") for info in told}
