"""The heartbeats of all workers, as one Redis has them.

Every reader uses this module, with a client of its own: a client has the limits of its use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from registry.formats.heartbeat import Heartbeat
from registry.formats.redis_keys import WORKERS_KEY, worker_key

logger = logging.getLogger(__name__)


def read_heartbeats(client: Any) -> list[Heartbeat]:
    """The heartbeats that have not expired, by sink and instance. Raises what `client` raises."""
    keys = _keys(client.smembers(WORKERS_KEY))
    # the keys of a cluster are in several slots
    get = getattr(client, "mget_nonatomic", client.mget)
    return _decoded(get(keys) if keys else [])


async def read_heartbeats_async(client: Any) -> list[Heartbeat]:
    """`read_heartbeats` with a client of asyncio."""
    keys = _keys(await client.smembers(WORKERS_KEY))
    return _decoded(await client.mget(keys) if keys else [])


def _keys(workers: Iterable[bytes]) -> list[str]:
    return [worker_key(*worker.split(":", 1)) for worker in sorted(map(bytes.decode, workers))]


def _decoded(packed: Iterable[bytes | None]) -> list[Heartbeat]:
    heartbeats = []
    for text in packed:
        if text is None:  # the heartbeat of a worker that ended has expired
            continue
        try:
            heartbeats.append(msgspec.json.decode(text, type=Heartbeat))
        except msgspec.DecodeError as error:
            logger.error("a heartbeat cannot be read: %s", error)
    return heartbeats
