"""How the workers are: the heartbeats that they write to Redis, and what follows from them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Literal

import msgspec

from registry import redis_clients
from registry.formats.heartbeat import Heartbeat
from registry.formats.redis_keys import WORKERS_KEY
from registry.heartbeats import decoded, worker_keys
from serving.stores.cluster_reads import PROBES, reads_of
from serving.stores.redis_reads import MakeClient, RedisReads

ALIVE_SECONDS = 5.0
"""Age of a heartbeat, in seconds, from which its worker does not count as alive."""

LAGGING_SECONDS = 5.0
"""Delay, in seconds, from which a topic is lagging."""

Sink = Literal["online", "offline"]
"""The workers that write to Redis, or those that write to Postgres."""

OpenReads = Callable[[str, bool, MakeClient], RedisReads]
"""Opens the reads of a URL, which is a cluster or not, with clients that are made so."""


class WorkersWatch:
    """The latest heartbeats, read from the Redis of each tier: workers write to all of them."""

    def __init__(
        self,
        tiers: Mapping[str, str],
        cluster: str | None = None,
        open_reads: OpenReads = reads_of,
    ) -> None:
        """`tiers` maps the name of each tier to its URL; `cluster` is the URL that is a cluster."""
        self._tiers = {
            tier: open_reads(url, url == cluster, redis_clients.watch)
            for tier, url in tiers.items()
        }
        self.heartbeats: list[Heartbeat] = []
        self.stores: dict[str, str] = {}
        """The state of each tier: "ok", or why it, or a node of it, did not answer."""
        self.answering: set[str] = set()
        """The tiers that answered; of a cluster a node is enough."""
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}
        """Of each worker the time of its latest heartbeat, and when that was seen first."""
        self._lag = Lag(self.heartbeats)

    async def refresh(self) -> None:
        """Read the heartbeats; of one worker the newest counts, whichever tier has it."""
        newest: dict[tuple[str, str], Heartbeat] = {}
        found = await asyncio.gather(*(self._read(*tier) for tier in self._tiers.items()))
        for beat in chain(*found):
            known = newest.get((beat.sink, beat.instance))
            if known is None or known.at < beat.at:
                newest[beat.sink, beat.instance] = beat
        self._seen = {key: seen for key, seen in self._seen.items() if key in newest}
        self.heartbeats = [self._by_own_clock(newest[key]) for key in sorted(newest)]

    def _by_own_clock(self, beat: Heartbeat) -> Heartbeat:
        """The same, of no later than when it was seen first: a worker's clock may be ahead.

        Else one that died would count as alive for longer.
        """
        key = beat.sink, beat.instance
        at, seen = self._seen.get(key, (0.0, 0.0))
        if at != beat.at:
            seen = time.time()
            self._seen[key] = beat.at, seen
        return msgspec.structs.replace(beat, at=seen) if seen < beat.at else beat

    async def close(self) -> None:
        for reads in self._tiers.values():
            await reads.close()

    async def _read(self, tier: str, reads: RedisReads) -> list[Heartbeat]:
        """The heartbeats that a tier has, and its state."""
        probes = {reads.server_of(key): key for key in PROBES}
        commands = [("SMEMBERS", WORKERS_KEY), *(("GET", key) for key in probes.values())]
        workers, *probed = await reads.each(commands)
        keys = [] if isinstance(workers, Exception) else worker_keys(workers)
        packed = await reads.each([("GET", key) for key in keys]) if keys else []
        errors = [a for a in (workers, *probed, *packed) if isinstance(a, Exception)]
        self.stores[tier] = "; ".join(dict.fromkeys(map(str, errors))) or "ok"
        answering = any(not isinstance(answer, Exception) for answer in probed)
        (self.answering.add if answering else self.answering.discard)(tier)
        return decoded(text for text in packed if not isinstance(text, Exception))

    def alive(self, sink: Sink) -> list[Heartbeat]:
        """The heartbeats of a sink's workers that are recent."""
        return alive(self.heartbeats, sink)

    def different(self) -> list[str]:
        """What they have found to differ, each sentence once."""
        return sorted({text for beat in self.alive("offline") for text in beat.verified.different})

    def told(self, what: Literal["strangers", "warnings"]) -> list[str]:
        """What the workers that are alive say of their broker, each sentence once."""
        beats = [*self.alive("online"), *self.alive("offline")]
        return sorted({text for beat in beats for text in getattr(beat, what)})

    @property
    def lag(self) -> Lag:
        """What the latest heartbeats say of lag."""
        if self._lag.heartbeats is not self.heartbeats:
            self._lag = Lag(self.heartbeats)
        return self._lag


class Lag:
    """What heartbeats say of how far the stores are behind; each topic is worked out once."""

    def __init__(self, heartbeats: Sequence[Heartbeat]) -> None:
        self.heartbeats = heartbeats
        self._until: dict[tuple[str, Sink], float] = {}
        self._all_until: dict[tuple[str, ...], float] = {}

    def on_time_until(self, topic: str, sink: Sink = "online") -> float:
        """Up to when a topic is not lagging in the store of a sink, Unix seconds.

        0 where the workers of the sink are behind on the topic, or none is known not to be.
        """
        asked = topic, sink
        until = self._until.get(asked)
        if until is None:
            until = self._until[asked] = self._decide(topic, sink)
        return until

    def all_on_time_until(self, topics: tuple[str, ...]) -> float:
        """Up to when none of these topics is lagging online."""
        until = self._all_until.get(topics)
        if until is None:
            until = min([self.on_time_until(topic) for topic in topics])
            self._all_until[topics] = until
        return until

    def _decide(self, topic: str, sink: Sink) -> float:
        running = [beat for beat in alive(self.heartbeats, sink) if beat.state == "running"]
        partitions = max((beat.partitions.get(topic, 0) for beat in running), default=0)
        until: dict[int, float] = {}
        for beat in running:
            for lag in beat.lag:
                if lag.topic == topic:
                    # Ticks may have come since the heartbeat: its age is added to what it says.
                    behind = max(lag.behind_seconds, lag.unseen_seconds)
                    end = beat.at + min(LAGGING_SECONDS - behind, ALIVE_SECONDS)
                    # Two heartbeats of a partition describe the same store: the better one knows
                    # of more that is stored.
                    until[lag.partition] = max(end, until.get(lag.partition, end))
        # A partition that no worker reads may be behind by any time.
        return min(until.values()) if partitions and len(until) >= partitions else 0.0


def alive(heartbeats: Iterable[Heartbeat], sink: Sink) -> list[Heartbeat]:
    """The heartbeats of a sink's workers that are recent."""
    since = time.time() - ALIVE_SECONDS
    return [beat for beat in heartbeats if beat.sink == sink and beat.at > since]
