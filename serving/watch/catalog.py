"""The latest catalog: from Postgres, or while that is unavailable from its copy in Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Set

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from registry import catalog as recorded
from registry import redis_clients
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.errors import RegistryEmpty, RegistryError
from registry.formats.redis_keys import CATALOG_KEY
from registry.serial import Serial, serial
from serving.errors import NotReady
from serving.features.lookup import Names
from serving.stores.cluster_reads import reads_of

logger = logging.getLogger(__name__)

NOTHING_RECORDED = "no features are recorded yet: run `tickwell migrate`, then ask again"

ANSWER_SECONDS = 3.0
"""Time that Postgres has to answer, in seconds; the catalog is a few rows."""

LOOK_SECONDS = 0.25
"""Pause between two looks at the registry, in seconds: each asks for its serial alone."""

RENEW_SECONDS = 0.5
"""Time that a request waits for a reading of the catalog, in seconds."""

PAUSE_SECONDS = 3.0
"""Time for which no request waits for one, after one that took too long, in seconds."""


class CatalogWatch:
    """The names of the latest catalog that was read."""

    def __init__(self, postgres_url: str, redis_url: str, cluster: bool = False) -> None:
        """With `cluster` the Redis is a Redis Cluster."""
        self._names: Names | None = None
        self._missing = "the catalog was not read yet: ask again"
        """Why there are no names, where there are none."""
        self._redis = reads_of(redis_url, cluster, redis_clients.watch)
        self._engine: Engine = connect(
            postgres_url,
            pool_size=1,
            max_overflow=0,
            connect_timeout=3,
            statement_timeout_ms=3_000,
        )
        self._loading: asyncio.Task[Catalog] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renew_from = 0.0
        self._lacking: Set[int] = frozenset()
        """Row schemas that rows are in, and that the catalog was read for in vain."""
        self._serial: Serial | None = None
        """That of the catalog that was read last; None where it is not known."""
        self.stores: dict[str, str] = {}
        """The state of Postgres: "ok", or why it did not answer."""

    @property
    def names(self) -> Names:
        """The names of the latest catalog. Raises `NotReady` before the first one."""
        if self._names is None:
            raise NotReady(self._missing)
        return self._names

    @property
    def ready(self) -> bool:
        """Whether a catalog was read."""
        return self._names is not None

    async def refresh(self) -> None:
        """Read the catalog; what fails leaves the latest one in use."""
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        try:
            # A server that is stopped keeps its connections and answers nothing: a single thread
            # waits for it, however often it is read. `wait_for` may lose a cancellation.
            async with asyncio.timeout(ANSWER_SECONDS):
                catalog = await asyncio.shield(self._loading)
        except TimeoutError:
            self.stores["postgres"] = f"no answer in {ANSWER_SECONDS:g} s"
            await self._take_copy(is_empty=False)
            return
        except (DBAPIError, RegistryError) as error:
            self._loading = None
            self.stores["postgres"] = str(getattr(error, "orig", error)).strip().split("\n")[0]
            await self._take_copy(is_empty=isinstance(error, RegistryEmpty))
            return
        except Exception:  # a mistake, which is logged; else it would be raised for ever
            self._loading = None
            raise
        self._loading = None
        self.stores["postgres"] = "ok"
        if self._names is None or self._names.catalog != catalog:
            self._names, self._lacking = Names(catalog), frozenset()

    async def has(self, schemas: Set[int]) -> bool:
        """Whether these row schemas, which rows are in, are known; reads the catalog to know.

        A schema is recorded before any row is in it. One that the registry does not have, as where
        it was restored from an older copy, is not asked for again until anything is recorded.
        """
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                # the first reading may have begun before they were recorded
                for _ in range(2):
                    if self._unknown(schemas) <= self._lacking or clock() < self._renew_from:
                        break
                    await self._renewed()
                else:
                    self._miss(self._unknown(schemas))
        except TimeoutError:
            self._renew_from = clock() + PAUSE_SECONDS  # nobody else waits for it meanwhile
        return not self._unknown(schemas)

    def _unknown(self, schemas: Set[int]) -> Set[int]:
        return schemas - self.names.catalog.schemas.keys()

    async def _renewed(self) -> None:
        """Read the catalog; one reading is for all who wait."""
        if self._renewing is None:
            self._renewing = asyncio.create_task(self.refresh())
            self._renewing.add_done_callback(self._renewal_ended)
        await asyncio.shield(self._renewing)

    def _renewal_ended(self, reading: asyncio.Task[None]) -> None:
        self._renewing = None
        if not reading.cancelled() and reading.exception() is not None:
            logger.error("the catalog could not be read", exc_info=reading.exception())

    def _miss(self, schemas: Set[int]) -> None:
        if schemas and self.stores.get("postgres") == "ok":
            self._lacking |= schemas
            logger.error(
                "rows are in the row schemas %s, which the registry does not have: if it was "
                "restored from an older copy, run `tickwell migrate`",
                ", ".join(map(str, sorted(schemas))),
            )

    async def close(self) -> None:
        await self._redis.close()
        self._engine.dispose()

    def _load(self) -> Catalog:
        """What is recorded; it is read where anything has changed."""
        if self._names is None:  # there may be no tables
            return recorded.load(self._engine)
        found = serial(self._engine)
        if found is None or found != self._serial:
            catalog = recorded.load(self._engine)
            self._serial = found  # from before, so that nothing is missed
            return catalog
        return self._names.catalog

    async def _take_copy(self, is_empty: bool) -> None:
        """Take the copy in Redis; Postgres has no catalog (`is_empty`), or does not answer."""
        (copy,) = await self._redis.each([("GET", CATALOG_KEY)])
        if not isinstance(copy, bytes):
            redis = "it has no copy" if copy is None else str(copy)
            self._missing = (
                NOTHING_RECORDED
                if is_empty
                else (
                    "the catalog of the features cannot be read. "
                    f"Postgres: {self.stores['postgres']}. Redis: {redis}. "
                    "It is read as soon as one of them answers: ask again"
                )
            )
            return
        try:
            catalog = recorded.decode(copy)
        except RegistryError as error:
            logger.error("the copy of the catalog in Redis cannot be read: %s", error)
            return
        # Never back to an older catalog: schemas are only ever added.
        if self._names is None or len(catalog.schemas) > len(self._names.catalog.schemas):
            self._names, self._serial = Names(catalog), None
