"""A worker's word of itself, once a second, to every Redis that answers."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pipelines.runs import Batch, Run
from registry.heartbeat import Heartbeat, PartitionLag
from registry.keys import WORKERS_KEY, worker_key

SECONDS = 1.0
EXPIRES_SECONDS = 10


class Heartbeats:
    """Counts what a worker does and tells it; safe to use from any thread.

    `urls` are Redis servers. Both tiers are told, so that an outage of the warm one is heard of.
    """

    def __init__(self, sink: str, instance: str, urls: Iterable[str]) -> None:
        self._sink = sink
        self._instance = instance
        self._stores: list[Any] = [
            redis.Redis.from_url(
                url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)
            )
            for url in dict.fromkeys(urls)
        ]
        self._state, self._error, self._since = "starting", "", time.time()
        self._rows = 0
        self._rejected: Counter[str] = Counter()
        self._known_at: dict[tuple[str, int], float] = {}

    def count(self, run: Run, batch: Batch | None) -> None:
        """A run is stored; `batch` is None when another worker had stored it."""
        if len(run.timestamps):
            self._known_at[run.topic, run.partition] = float(run.timestamps[-1]) / 1000
        if batch is not None:
            self._rows += len(batch)
            self._rejected.update(rejected.reason for rejected in batch.rejected)

    def behind_seconds(self, topic: str, partition: int, lag: int) -> float:
        """How far behind, in record time, the last stored record of a lagging partition is."""
        known_at = self._known_at.get((topic, partition))
        return max(0.0, time.time() - known_at) if lag and known_at is not None else 0.0

    def beat(self, error: str | None, lag: Sequence[PartitionLag] | None) -> Heartbeat:
        """Tell every store. `error` says why the sink's store refuses; `lag` is None at first."""
        state = "starting" if lag is None else "running"
        if error is not None:
            state = "retrying"
        if state != self._state:
            self._state, self._since = state, time.time()
        self._error = error or ""
        heartbeat = Heartbeat(
            sink=self._sink,
            instance=self._instance,
            pid=os.getpid(),
            at=time.time(),
            state=self._state,
            since=self._since,
            error=self._error,
            rows=self._rows,
            rejected=dict(self._rejected),
            lag=tuple(lag or ()),
        )
        packed = msgspec.json.encode(heartbeat)
        for store in self._stores:
            try:
                if lag is None:
                    _forget_the_dead(store)
                with store.pipeline(transaction=False) as pipeline:
                    name = worker_key(self._sink, self._instance)
                    pipeline.set(name, packed, ex=EXPIRES_SECONDS)
                    pipeline.sadd(WORKERS_KEY, f"{self._sink}:{self._instance}")
                    pipeline.execute()
            except RedisError:
                continue  # the sink, not the heartbeat, is who says that a store is away
        return heartbeat


def _forget_the_dead(store: Any) -> None:
    """Take out the names of workers whose heartbeats have ended."""
    for worker in store.smembers(WORKERS_KEY):
        if not store.exists(worker_key(*worker.decode().split(":", 1))):
            store.srem(WORKERS_KEY, worker)
