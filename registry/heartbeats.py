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
    keys = worker_keys(client.smembers(WORKERS_KEY))
    # the keys of a cluster are in several slots
    get = getattr(client, "mget_nonatomic", client.mget)
    return decoded(get(keys) if keys else [])


def worker_keys(workers: Iterable[bytes]) -> list[str]:
    """The keys of the heartbeats of the workers that are named under `WORKERS_KEY`."""
    return [worker_key(*worker.split(":", 1)) for worker in sorted(map(bytes.decode, workers))]


def decoded(packed: Iterable[bytes | None]) -> list[Heartbeat]:
    """The heartbeats of what those keys hold; what cannot be read is logged."""
    heartbeats = []
    for text in packed:
        if text is None:  # the heartbeat of a worker that ended has expired
            continue
        try:
            heartbeats.append(msgspec.json.decode(text, type=Heartbeat))
        except msgspec.DecodeError as error:
            logger.error("a heartbeat cannot be read: %s", error)
    return heartbeats
