"""A replay and a backfill yield to live, by the heartbeats of its workers.

They pause while a worker is behind, or waits for its store. Where only the freshness of live
suffers (the 99th percentile of the last ten seconds, against the one when they began), they rest in
proportion to their work, and go on with a tenth of it whatever happens: what slows live may be
something else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisClusterException, RedisError

from pipelines.replay.stop import Stop
from registry import redis_clients
from registry.formats.heartbeat import Heartbeat
from registry.heartbeats import read_heartbeats

BEHIND_SECONDS = 5.0
"""Seconds that live may be behind: the lag from which serving answers `lagging`."""

READ_SECONDS = 1.0
"""Seconds between two reads of the heartbeats, which workers write once a second."""

ALIVE_SECONDS = 5.0
"""Seconds after its last heartbeat from which a worker does not count as running."""


PAUSE_SECONDS = 0.5
"""Seconds between checks whether live still suffers."""

TIMES_BEFORE = 2.0
"""Freshness suffers when it is worse than so many times what it was before."""

NOTICED_SECONDS = 0.1
"""Seconds of freshness that never count as suffering: a few milliseconds double by themselves."""

MOST_RESTS = 9.0
"""Seconds of rest after a second of work at most: a tenth of the work is always done."""

WORK_SECONDS = 1.0
"""Seconds of work that are followed by a rest at most, so that one is over soon."""

Worker = tuple[str, str]
"""A sink and an instance."""


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
        self._before: dict[Worker, float] = {}
        self._suffers: Suffers | None = None
        self._went_on = time.monotonic()

    def why(self) -> str | None:
        """The reason to pause, None to continue; as read up to a second ago."""
        if self._stores and time.monotonic() - self._read >= READ_SECONDS:
            now = time.time()
            beats = [beat for beat in self._heartbeats() if beat.at > now - ALIVE_SECONDS]
            self._why = why_to_pause(beats, now)
            remember(self._before, beats)
            self._suffers = worst_freshness(self._before, beats)
            self._read = time.monotonic()
        return self._why

    def wait(self, stop: Stop, tell: Callable[[str], None]) -> None:
        """Wait while live is behind, and rest where its freshness suffers; `tell` takes the reason.

        To be called between two pieces of work, and before the first, when live does not suffer
        from it yet. Returns once `stop` is set.
        """
        began = time.monotonic()
        worked, waited = began - self._went_on, False
        while not stop.is_set():
            why, left = self.why(), PAUSE_SECONDS
            if why is None and self._suffers is not None:
                left = rest_seconds(worked, self._suffers.times) - (time.monotonic() - began)
                why = self._suffers.why if left > 0 else None
            if why is None:
                break
            tell(f"paused: {why}")
            time.sleep(min(left, PAUSE_SECONDS))
            waited = True
        if waited:
            self._went_on = time.monotonic()

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


class Suffers(NamedTuple):
    """How many times as bad as it may be the freshness of a worker is, which `why` names."""

    times: float
    why: str


def remember(before: dict[Worker, float], heartbeats: Iterable[Heartbeat]) -> None:
    """Take over the freshness of workers of which none was known: what it is when one begins.

    Of a worker that joins later it is no worse than that of those of its sink that are known: while
    it catches up it says nothing of what is usual.
    """
    least: dict[str, float] = {}
    for (sink, _), known in before.items():
        least[sink] = min(known, least.get(sink, known))
    for beat in heartbeats:
        if beat.freshness is not None:
            first = beat.freshness.p99_seconds
            before.setdefault((beat.sink, beat.instance), min(first, least.get(beat.sink, first)))


def worst_freshness(
    before: Mapping[Worker, float], heartbeats: Iterable[Heartbeat]
) -> Suffers | None:
    """The freshness of the worker that suffers most; None when none does."""
    worst: Suffers | None = None
    for beat in heartbeats:
        was = before.get((beat.sink, beat.instance))
        if beat.freshness is None or was is None:
            continue
        now = beat.freshness.p99_seconds
        times = now / max(TIMES_BEFORE * was, NOTICED_SECONDS)
        if times > 1 and (worst is None or times > worst.times):
            why = f"ticks wait {now:.2f} s for the {beat.sink} worker, {was:.2f} s before"
            worst = Suffers(times, why)
    return worst


def rest_seconds(worked: float, times: float) -> float:
    """How long to rest after seconds of work, where freshness is `times` as bad as it may be."""
    return min(worked, WORK_SECONDS) * min(max(times - 1, 0.0), MOST_RESTS)


def _behind(beat: Heartbeat) -> float:
    lags: Sequence[float] = [lag.behind_seconds for lag in beat.lag]
    return max(lags, default=0.0)
