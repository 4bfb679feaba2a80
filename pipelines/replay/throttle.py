"""A replay yields to live: it pauses while the heartbeats of live workers report a lag."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from registry import redis_clients
from registry.formats.heartbeat import Heartbeat
from registry.heartbeats import read_heartbeats

BEHIND_SECONDS = 5.0
"""Seconds that live may be behind: the lag from which serving answers `lagging`."""

READ_SECONDS = 1.0
"""Seconds between two reads of the heartbeats, which workers write once a second."""

ALIVE_SECONDS = 5.0
"""Seconds after its last heartbeat from which a worker does not count as running."""


class Throttle:
    """Whether to pause, by the heartbeats in the Redis servers at `urls`; without any, never.

    `cluster` is the one of them that is a cluster. Both tiers are read, so that an outage of one
    does not hide a lag. Safe to use from one thread at a time; it blocks for at most about a second
    for each server, and of a cluster for each node.
    """

    def __init__(self, urls: Iterable[str], cluster: str | None = None) -> None:
        self._stores = [_Store(url, url == cluster) for url in dict.fromkeys(urls)]
        self._read = -READ_SECONDS
        self._why: str | None = None

    def why(self) -> str | None:
        """The reason to pause, None to continue; as read up to a second ago."""
        if self._stores and time.monotonic() - self._read >= READ_SECONDS:
            self._why = why_to_pause(self._heartbeats(), time.time())
            self._read = time.monotonic()
        return self._why

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _heartbeats(self) -> Iterator[Heartbeat]:
        for store in self._stores:
            try:
                yield from store.read()
            except (RedisError, RedisClusterException):
                continue  # the other tier has the same heartbeats


class _Store:
    """One Redis; a cluster is connected to when it is first read, and until it answers again."""

    def __init__(self, url: str, cluster: bool) -> None:
        self._url = url
        self._cluster = cluster
        self._client: Any = None

    def read(self) -> list[Heartbeat]:
        """Its heartbeats. Raises `RedisError` and `RedisClusterException`."""
        if self._client is None:
            self._client = redis_clients.throttle(self._url, self._cluster)
        return read_heartbeats(self._client)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def why_to_pause(heartbeats: Iterable[Heartbeat], now: float) -> str | None:
    """The worst problem of live at `now` (Unix seconds); None when there is none."""
    alive = [beat for beat in heartbeats if beat.at > now - ALIVE_SECONDS]
    for beat in alive:
        if beat.state == "retrying":
            return f"the {beat.sink} worker waits for its store"
    worst = max(alive, key=_behind, default=None)
    if worst is None or _behind(worst) <= BEHIND_SECONDS:
        return None
    return f"the {worst.sink} worker is {_behind(worst):.0f} s behind"


def _behind(beat: Heartbeat) -> float:
    lags: Sequence[float] = [lag.behind_seconds for lag in beat.lag]
    return max(lags, default=0.0)
