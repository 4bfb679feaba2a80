"""How the workers are: the heartbeats that they write to Redis, and what follows from them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

from redis.exceptions import RedisError

from registry import redis_clients
from registry.formats.heartbeat import Heartbeat
from registry.heartbeats import read_heartbeats_async

ALIVE_SECONDS = 5.0
"""Age of a heartbeat, in seconds, from which its worker does not count as alive."""

LAGGING_SECONDS = 5.0
"""Delay, in seconds, from which a topic is lagging."""


class WorkersWatch:
    """The latest heartbeats, read from the Redis of each tier: workers write to all of them."""

    def __init__(self, tiers: Mapping[str, str]) -> None:
        """`tiers` maps the name of each tier to its URL."""
        self._clients = {tier: redis_clients.watch(url) for tier, url in tiers.items()}
        self.heartbeats: list[Heartbeat] = []
        self.stores: dict[str, str] = {}
        """The state of each tier: "ok", or why it did not answer."""

    async def refresh(self) -> None:
        """Read the heartbeats; of one worker the newest counts, whichever tier has it."""
        newest: dict[tuple[str, str], Heartbeat] = {}
        for tier, client in self._clients.items():
            try:
                found = await read_heartbeats_async(client)
            except (RedisError, OSError) as error:
                self.stores[tier] = str(error)
                continue
            self.stores[tier] = "ok"
            for beat in found:
                known = newest.get((beat.sink, beat.instance))
                if known is None or known.at < beat.at:
                    newest[beat.sink, beat.instance] = beat
        self.heartbeats = sorted(newest.values(), key=lambda beat: (beat.sink, beat.instance))

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    def alive(self, sink: str) -> list[Heartbeat]:
        """The heartbeats of a sink's workers that are recent."""
        since = time.time() - ALIVE_SECONDS
        return [beat for beat in self.heartbeats if beat.sink == sink and beat.at > since]

    def told(self, what: Literal["strangers", "warnings"]) -> list[str]:
        """What the workers that are alive say of their broker, each sentence once."""
        beats = [*self.alive("online"), *self.alive("offline")]
        return sorted({text for beat in beats for text in getattr(beat, what)})

    def lagging(self, topic: str) -> bool:
        """Whether the online workers are behind on a topic, or none is known not to be."""
        now = time.time()
        running = [beat for beat in self.alive("online") if beat.state == "running"]
        partitions = max((beat.partitions.get(topic, 0) for beat in running), default=0)
        behind: dict[int, float] = {}
        for beat in running:
            age = max(0.0, now - beat.at)  # ticks may have come since the heartbeat
            for lag in beat.lag:
                if lag.topic == topic:
                    seconds = max(lag.behind_seconds, lag.unseen_seconds) + age
                    # Two heartbeats of a partition describe the same store: the better one knows
                    # of more that is stored.
                    behind[lag.partition] = min(seconds, behind.get(lag.partition, seconds))
        # A partition that no worker reads may be behind by any time.
        if not partitions or len(behind) < partitions:
            return True
        return max(behind.values()) > LAGGING_SECONDS
