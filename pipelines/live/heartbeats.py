"""Writes the heartbeat of a worker, once a second, to every Redis that answers."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pipelines.compute.batch import Batch
from pipelines.errors import StoreUnavailable
from pipelines.live.broker_watch import BrokerView
from pipelines.live.freshness import Ages
from pipelines.stores.redis.client import answers
from pipelines.verify.continual import Continual
from registry import redis_clients
from registry.formats.heartbeat import CarriedPartition, Heartbeat, PartitionLag, Verified
from registry.formats.redis_keys import WORKERS_KEY, worker_key
from registry.heartbeats import read_heartbeats

INTERVAL_SECONDS = 1.0
"""Seconds between two heartbeats of a worker."""

NOTHING_SEEN = BrokerView()

EXPIRES_SECONDS = 10
"""Seconds after which Redis removes a heartbeat."""


class Heartbeats:
    """Counts what a worker does and reports it; safe to use from any thread.

    `urls` are Redis servers; `cluster` is the one of them that is a cluster. A heartbeat is written
    to both tiers, so that an outage of the warm one is reported in the hot one. It tells what
    `verifying` has verified.
    """

    def __init__(
        self,
        sink: str,
        instance: str,
        urls: Iterable[str],
        cluster: str | None = None,
        verifying: Continual | None = None,
    ) -> None:
        self._sink = sink
        self._instance = instance
        self._stores = [_Store(url, url == cluster) for url in dict.fromkeys(urls)]
        self._state, self._error, self._since = "starting", "", time.time()
        self._rows = 0
        self._rejected: Counter[str] = Counter()
        self._passed_over = 0
        self._newest: dict[str, int] = {}
        self._ages = Ages()
        self._verifying = verifying

    def count(self, batch: Batch) -> None:
        """Count a batch that is stored."""
        self._ages.count(batch.known_at)
        self._rows += len(batch)
        self._rejected.update(rejected.reason for rejected in batch.rejected)
        self._passed_over += batch.passed_over
        if len(batch):
            source, newest = batch.source.name, int(batch.event_time.max())
            self._newest[source] = max(newest, self._newest.get(source, newest))

    def beat(
        self,
        error: str | None,
        lag: Sequence[PartitionLag] | None,
        partitions: Mapping[str, int] | None = None,
        broker: BrokerView = NOTHING_SEEN,
        hot: str = "",
        carried: Sequence[CarriedPartition] = (),
    ) -> Heartbeat:
        """Write a heartbeat to every Redis, and return it.

        `error` is why the worker makes no progress, `lag` None until it has started, `broker` what
        it sees of its broker, `hot` how it feeds hot, `carried` the partitions without an entity
        in an older row schema.
        """
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
            partitions=dict(partitions or {}),
            member=broker.member,
            warnings=broker.warnings,
            strangers=broker.strangers,
            passed_over=self._passed_over,
            hot=hot,
            newest=dict(self._newest),
            carried=tuple(carried),
            freshness=self._ages.freshness(),
            verified=Verified() if self._verifying is None else self._verifying.state,
        )
        packed = msgspec.json.encode(heartbeat)
        # One that did not answer may take its whole time again: it comes last.
        for store in sorted(self._stores, key=lambda store: store.has_failed):
            try:
                store.write(f"{self._sink}:{self._instance}", packed, starting=lag is None)
            except StoreUnavailable:
                store.has_failed = True  # the sink reports that a store is unavailable
            else:
                store.has_failed = False
        return heartbeat

    def others(self) -> list[Heartbeat] | None:
        """The heartbeats of all workers of this sink, None where no Redis answers."""
        found: dict[str, Heartbeat] = {}
        answered = False
        for store in self._stores:
            try:
                heartbeats = store.read()
            except StoreUnavailable:
                continue
            answered = True
            for beat in heartbeats:
                known = found.get(beat.instance)
                if beat.sink == self._sink and (known is None or known.at < beat.at):
                    found[beat.instance] = beat
        return list(found.values()) if answered else None

    def close(self) -> None:
        """Close the connections."""
        for store in self._stores:
            store.close()


class _Store:
    """One Redis, which is connected to again when it answers again."""

    def __init__(self, url: str, cluster: bool) -> None:
        self._url = url
        self._cluster = cluster
        self._client: Any = None
        self.has_failed = False
        """Whether the last heartbeat could not be written."""

    def write(self, worker: str, packed: bytes, starting: bool) -> None:
        with answers():
            if self._client is None:
                self._client = redis_clients.heartbeat(self._url, self._cluster)
            if starting:
                self._remove_expired()
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.set(worker_key(*worker.split(":", 1)), packed, ex=EXPIRES_SECONDS)
                pipeline.sadd(WORKERS_KEY, worker)
                pipeline.execute()

    def read(self) -> list[Heartbeat]:
        """All heartbeats that this Redis has. Raises `StoreUnavailable`."""
        with answers():
            if self._client is None:
                self._client = redis_clients.heartbeat(self._url, self._cluster)
            return read_heartbeats(self._client)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _remove_expired(self) -> None:
        """Remove the names of workers whose heartbeats have expired."""
        for worker in self._client.smembers(WORKERS_KEY):
            if not self._client.exists(worker_key(*worker.decode().split(":", 1))):
                self._client.srem(WORKERS_KEY, worker)
