"""Whether values can be stored in the warm Redis: it runs the scripts, and keeps what it has.

An entity that it evicts is a watermark that lies.
"""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import NoPermissionError

from pipelines.errors import RedisEvicts, RedisTooOld
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis

logger = logging.getLogger(__name__)

KEEPS = "noeviction"

OLDEST = 7
"""The major version from which on a script may begin with `#!lua` (`scripts.ENGINE`)."""


def check_server(redis: WarmRedis) -> None:
    """Raises `RedisTooOld`, `RedisEvicts` where a full one would remove keys, `StoreUnavailable`.

    `INFO` has the policy, where managed servers refuse `CONFIG`. A user who may not ask for it is
    trusted, with a warning.
    """
    client = redis.connect()
    with answers():
        told = _infos(client, redis.cluster)
    for info in told:
        check_version(info.get("redis_version"))
    policies = {info.get("maxmemory_policy") for info in told}
    if None in policies:
        logger.warning(
            "this user of Redis cannot see its maxmemory-policy and version (INFO): they must be "
            "%s, and %d.0 or later",
            KEEPS,
            OLDEST,
        )
    for policy in sorted(filter(None, policies - {KEEPS})):
        raise RedisEvicts(policy)


def check_version(version: object) -> None:
    """Raises `RedisTooOld`; a server that tells no version, or none that has a number, is trusted.

    redis-py gives a version with one dot as a float.
    """
    major = str(version).partition(".")[0]
    if major.isdecimal() and int(major) < OLDEST:
        raise RedisTooOld(str(version), f"{OLDEST}.0")


def _infos(client: Any, cluster: bool) -> list[dict[str, Any]]:
    """What each node says of itself, nothing where the user may not ask for it."""
    try:
        if not cluster:
            return [client.info()]
        return [client.info(target_nodes=node) for node in client.get_primaries()]
    except NoPermissionError:
        return [{}]
