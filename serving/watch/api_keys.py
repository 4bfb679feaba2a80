"""The API keys that are valid now: from Postgres, or while that is unavailable from Redis' copy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from registry import api_keys as recorded
from registry import redis_clients
from registry.api_keys import ApiKey, ApiKeys
from registry.database.engine import connect
from registry.errors import RegistryError
from registry.formats.redis_keys import API_KEYS_KEY, REVOKED_KEY
from serving.errors import NotReady
from serving.stores.cluster_reads import reads_of
from serving.watch.refreshing import refreshing

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
"""Pause between two readings, in seconds, so that a revocation holds within a second."""

ANSWER_SECONDS = 3.0
"""Time that Postgres has to answer, in seconds. Redis is read beside it, and not after it."""

Keyring = Mapping[bytes, ApiKey]
"""The keys that are not revoked, by their SHA-256. A change is another object."""


class ApiKeysWatch:
    """The keys of the newest list that was read, without those that Redis says are revoked.

    A revocation that was read once holds for the life of the process. The list is Postgres' own
    while that answers; the copy in Redis counts while it does not, and only where it is newer.
    """

    def __init__(self, postgres_url: str, redis_url: str, cluster: bool = False) -> None:
        """With `cluster` the Redis is a Redis Cluster."""
        self._redis = reads_of(redis_url, cluster, redis_clients.watch)
        self._engine: Engine = connect(
            postgres_url,
            pool_size=1,
            max_overflow=0,
            connect_timeout=3,
            statement_timeout_ms=3_000,
        )
        self._loading: asyncio.Task[ApiKeys] | None = None
        self._postgres_answers = False
        self._latest: ApiKeys | None = None
        self._revoked: set[bytes] = set()
        self._keyring: Keyring | None = None
        self._problem = "not read yet"

    @property
    def keyring(self) -> Keyring:
        """The keys of now, the same object until they change. Raises `NotReady` before any."""
        if self._keyring is None:
            raise NotReady(f"the API keys are not known yet ({self._problem}): ask again")
        return self._keyring

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Reads the keys of both stores, and reads them again until the context ends."""
        try:
            async with refreshing(self.refresh_recorded, self.refresh_copied, pause=PAUSE_SECONDS):
                yield
        finally:
            await self._redis.close()
            self._engine.dispose()

    async def refresh_recorded(self) -> None:
        """Read Postgres; what fails leaves the latest list in use."""
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(recorded.load, self._engine))
        try:
            # A server that is stopped keeps its connections and answers nothing: a single thread
            # waits for it, however often it is read. `wait_for` may lose a cancellation.
            async with asyncio.timeout(ANSWER_SECONDS):
                keys = await asyncio.shield(self._loading)
        except TimeoutError:
            self._fail(f"Postgres: no answer in {ANSWER_SECONDS:g} s")
            return
        except (DBAPIError, RegistryError) as error:
            self._loading = None
            reason = str(getattr(error, "orig", error)).strip().split("\n")[0]
            self._fail(reason if isinstance(error, RegistryError) else f"Postgres: {reason}")
            return
        except Exception:  # a mistake, which is logged; else it would be raised for ever
            self._loading = None
            raise
        self._loading = None
        self._postgres_answers, self._problem = True, ""
        self._latest = keys
        self._decide()

    async def refresh_copied(self) -> None:
        """Read Redis: the keys that were revoked, and the copy of the list."""
        copy, revoked = await self._redis.each([("GET", API_KEYS_KEY), ("SMEMBERS", REVOKED_KEY)])
        if not isinstance(revoked, Exception):
            self._revoked.update(revoked)
        if isinstance(copy, bytes) and not self._postgres_answers:
            self._take(copy)
        self._decide()

    def _take(self, copy: bytes) -> None:
        try:
            keys = recorded.decode(copy)
        except RegistryError as error:
            self._tell(f"the copy of the API keys in Redis cannot be read: {error}")
            return
        # Never back to an older list, in which a key may be that is revoked.
        if self._latest is None or keys.serial > self._latest.serial:
            self._latest = keys

    def _decide(self) -> None:
        if self._latest is None:
            return
        valid = {key.sha256: key for key in self._latest.keys if key.sha256 not in self._revoked}
        if valid != self._keyring:
            self._keyring = valid

    def _fail(self, problem: str) -> None:
        self._postgres_answers = False
        self._tell(problem)

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            logger.warning("API keys: %s", problem)
