"""What the server knows beside the rows: the catalog, and how the workers are.

Both are looked up in the background, every second, so that no request waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.exceptions import RedisError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from registry import catalog as recorded
from registry import redis_clients
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.errors import RegistryError
from registry.formats.heartbeat import Heartbeat
from registry.formats.redis_keys import CATALOG_KEY, WORKERS_KEY, worker_key
from serving.errors import NotReady
from serving.features.lookup import Names

logger = logging.getLogger(__name__)

SECONDS = 1.0
ANSWER_SECONDS = 3.0
"""For Postgres to answer; the catalog is a few rows."""

ALIVE_SECONDS = 5.0
"""A worker without a heartbeat for so long is not counted on."""

LAGGING_SECONDS = 5.0
"""Behind by more than this, a source is lagging."""


class Watch:
    """The latest catalog and heartbeats; `start` and `stop` frame its life."""

    def __init__(self, redis_url: str, hot_url: str, postgres_url: str) -> None:
        self._names: Names | None = None
        self._warm = redis_clients.watch(redis_url)
        self._hot = redis_clients.watch(hot_url) if hot_url else None
        self._engine: Engine = connect(
            postgres_url,
            pool_size=1,
            max_overflow=0,
            connect_args={"connect_timeout": 3, "options": "-c statement_timeout=3000"},
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._loading: asyncio.Task[Catalog] | None = None
        self.heartbeats: list[Heartbeat] = []
        self.stores: dict[str, str] = {}
        """What each store answered last: "ok", or why not."""

    @property
    def names(self) -> Names:
        """The names of the latest catalog. Raises `NotReady` before the first one."""
        if self._names is None:
            raise NotReady("no features are recorded yet: run `tickwell migrate`, then ask again")
        return self._names

    @property
    def ready(self) -> bool:
        return self._names is not None

    async def start(self) -> None:
        await asyncio.gather(self._look_at_catalog(), self._look_at_workers())
        self._tasks = [
            asyncio.create_task(_forever(look))
            for look in (self._look_at_catalog, self._look_at_workers)
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._warm.aclose()
        if self._hot is not None:
            await self._hot.aclose()
        self._engine.dispose()

    def alive(self, sink: str) -> list[Heartbeat]:
        """The workers of a sink that have spoken lately."""
        since = time.time() - ALIVE_SECONDS
        return [beat for beat in self.heartbeats if beat.sink == sink and beat.at > since]

    def lagging(self, source: str) -> bool:
        """Whether the online pipeline of a source is behind, or nobody says that it is not."""
        topic = self.names.catalog.sources[source].topic
        now = time.time()
        running = [beat for beat in self.alive("online") if beat.state == "running"]
        partitions = max((beat.partitions.get(topic, 0) for beat in running), default=0)
        behind: dict[int, float] = {}
        for beat in running:
            age = max(0.0, now - beat.at)  # what is not told yet may have come since
            for lag in beat.lag:
                if lag.topic == topic:
                    seconds = max(lag.behind_seconds, lag.unseen_seconds) + age
                    # it is the store that is told of: who knows it better is right
                    behind[lag.partition] = min(seconds, behind.get(lag.partition, seconds))
        # a partition that no worker reads may be as far behind as can be
        if not partitions or len(behind) < partitions:
            return True
        return max(behind.values()) > LAGGING_SECONDS

    async def _look_at_catalog(self) -> None:
        """From Postgres; while it is away from the copy in Redis."""
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        try:
            # a server that is stopped keeps its connections and answers nothing: one thread waits
            # for it, and no more
            async with asyncio.timeout(ANSWER_SECONDS):  # `wait_for` may lose a cancellation
                catalog = await asyncio.shield(self._loading)
        except TimeoutError:
            self.stores["postgres"] = f"no answer in {ANSWER_SECONDS:g} s"
            await self._take_copy()
            return
        except (DBAPIError, RegistryError) as error:
            self._loading = None
            self.stores["postgres"] = str(getattr(error, "orig", error)).strip().split("\n")[0]
            await self._take_copy()
            return
        self._loading = None
        self.stores["postgres"] = "ok"
        if self._names is None or self._names.catalog != catalog:
            self._names = Names(catalog)

    def _load(self) -> Catalog:
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return recorded.load(self._engine)

    async def _take_copy(self) -> None:
        try:
            copy = await self._warm.get(CATALOG_KEY)
        except (RedisError, OSError):
            return
        if copy is None:
            return
        try:
            catalog = recorded.decode(copy)
        except RegistryError as error:
            logger.error("the copy of the catalog in Redis cannot be read: %s", error)
            return
        # never back to an older one: schemas are only ever added
        if self._names is None or len(catalog.schemas) > len(self._names.catalog.schemas):
            self._names = Names(catalog)

    async def _look_at_workers(self) -> None:
        beats: dict[tuple[str, str], Heartbeat] = {}
        for tier, client in (("redis", self._warm), ("redis_hot", self._hot)):
            if client is None:
                continue
            try:
                found = await _heartbeats(client)
            except (RedisError, OSError) as error:
                self.stores[tier] = str(error)
                continue
            self.stores[tier] = "ok"
            for beat in found:
                known = beats.get((beat.sink, beat.instance))
                if known is None or known.at < beat.at:
                    beats[beat.sink, beat.instance] = beat
        self.heartbeats = sorted(beats.values(), key=lambda beat: (beat.sink, beat.instance))


async def _heartbeats(client: Any) -> Sequence[Heartbeat]:
    workers = sorted(worker.decode() for worker in await client.smembers(WORKERS_KEY))
    keys = [worker_key(*worker.split(":", 1)) for worker in workers]
    packed = await client.mget(keys) if keys else []
    beats = []
    for beat in packed:
        if beat is None:  # a worker that is gone
            continue
        try:
            beats.append(msgspec.json.decode(beat, type=Heartbeat))
        except msgspec.DecodeError as error:
            logger.error("a heartbeat cannot be read: %s", error)
    return beats


async def _forever(look: Any) -> None:
    while True:
        await asyncio.sleep(SECONDS)
        try:
            await look()
        except Exception:
            logger.exception("a look in the background failed; the next one is in a second")
