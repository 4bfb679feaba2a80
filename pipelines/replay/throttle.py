"""A replay gives way to live: it pauses while live's own heartbeats say that it is behind."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError

from registry import redis_clients
from registry.formats.heartbeat import Heartbeat
from registry.formats.redis_keys import WORKERS_KEY, worker_key

BEHIND_SECONDS = 5.0
"""How far behind live may be: what serving calls `lagging` begins there."""

LOOK_SECONDS = 1.0
"""Heartbeats come once a second."""

ALIVE_SECONDS = 5.0
"""A worker that has not spoken for so long is not live."""


class Throttle:
    """Whether to pause, by the heartbeats in the Redis servers at `urls`; without any, never.

    Both tiers are asked, so that an outage of one does not hide who is behind. Safe to use from
    one thread at a time; it blocks for at most about a second a server.
    """

    def __init__(self, urls: Iterable[str]) -> None:
        self._stores: list[Any] = [redis_clients.throttle(url) for url in dict.fromkeys(urls)]
        self._looked = -LOOK_SECONDS
        self._why: str | None = None

    def why(self) -> str | None:
        """Why to pause, None to go on; what was seen up to a second ago."""
        if self._stores and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._why = why_to_pause(self._heartbeats(), time.time())
            self._looked = time.monotonic()
        return self._why

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _heartbeats(self) -> Iterator[Heartbeat]:
        for store in self._stores:
            try:
                for worker in store.smembers(WORKERS_KEY):
                    packed = store.get(worker_key(*worker.decode().split(":", 1)))
                    if packed is not None:
                        yield msgspec.json.decode(packed, type=Heartbeat)
            except (RedisError, msgspec.DecodeError):
                continue  # the other tier tells the same


def why_to_pause(heartbeats: Iterable[Heartbeat], now: float) -> str | None:
    """What live suffers from at `now` (Unix seconds), the worst first; None when nothing."""
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
