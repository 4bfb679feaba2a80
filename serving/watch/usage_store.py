"""Stores what was counted of reads in Postgres, in the background, and reads it for a route.

Nothing that answers a question waits for it. While Postgres does not answer, counts wait in memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date
from functools import partial

from psycopg2 import errorcodes
from sqlalchemy.exc import DBAPIError

from registry.lifecycle import usage as recorded
from registry.lifecycle.usage import FeatureUsage
from registry.lifecycle.usage_recording import STATEMENT_MS, add, prune
from serving.errors import NotReady, Overloaded
from serving.stores.postgres_reads import PostgresReads
from serving.usage import Usage

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 5.0
"""Seconds between two times that counts are stored, at most; half of it at least. The pause is
drawn each time, so that many processes do not store in the same moment."""

STORE_SECONDS = STATEMENT_MS / 1_000 + 1
"""Seconds that Postgres has to store a batch, with the time to connect."""

CLOSE_SECONDS = 2.0
"""Seconds that the end of a server waits until counts are stored."""

WARN_SECONDS = 60.0
"""Seconds between two warnings that counts are not stored."""

CONNECTIONS = 2
"""Readings at the same time."""

READ_SECONDS = 1.5
"""Seconds for a reading, with the time that it waits for its turn."""

MOST_READING = 16
"""Requests for the usage of a feature at the same time; more are refused."""

MIGRATE = "the database has no table for them yet: run `tickwell migrate`"


class UsageStore:
    """Stores what `usage` counts in the database at `postgres_url`, and reads it there."""

    def __init__(
        self, usage: Usage, postgres_url: str, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self._usage = usage
        self._pause = longest_pause
        self._writes = PostgresReads(postgres_url, 1, STORE_SECONDS)
        self._reads = PostgresReads(postgres_url, CONNECTIONS, READ_SECONDS)
        self._reading = 0
        self._pruned: date | None = None
        self._warned_at = -WARN_SECONDS

    @asynccontextmanager
    async def storing(self) -> AsyncIterator[None]:
        """Stores counts until the context ends, and then what is left, within a limit."""
        task = asyncio.create_task(self._repeat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self.flush()
            if self._usage.waiting:
                logger.warning("%d reads are in no count, as the server ends", self._usage.waiting)
            await self._writes.close()
            await self._reads.close()

    async def flush(self) -> None:
        """Collect and store what was counted. What cannot be stored waits for the next time."""
        self._usage.collect()
        while (batch := self._usage.batch()) is not None:
            try:
                await self._writes.run(partial(add, batch=batch))
            except (DBAPIError, TimeoutError) as error:
                self._fail(error)
                return
            self._usage.stored()
            await self._prune(batch.counts[-1].day)

    async def of_feature(self, name: str, days: int) -> FeatureUsage:
        """How a feature is used (`registry.lifecycle.usage.usage`).

        Raises `NotReady` where Postgres does not say it in time, `Overloaded` and ValueError.
        """
        if self._reading >= MOST_READING:
            raise Overloaded(
                f"{MOST_READING} requests for the usage of features wait for Postgres, which is "
                "the limit: ask again later"
            )
        self._reading += 1
        try:
            return await self._reads.run(partial(recorded.usage, name=name, days=days))
        except TimeoutError:
            raise NotReady("Postgres, which has the usage, did not answer: ask again") from None
        except DBAPIError as error:
            raise NotReady(f"the usage cannot be read ({_reason(error)}): ask again") from None
        finally:
            self._reading -= 1

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(self._pause / 2, self._pause))
            try:
                await self.flush()
            except Exception:
                logger.exception("storing counts of reads failed; it will be repeated")

    async def _prune(self, day: date) -> None:
        """Once a day, after counts were stored: another process may have done it already."""
        if self._pruned == day:
            return
        try:
            if await self._writes.run(partial(prune, today=day)):
                self._pruned = day
        except (DBAPIError, TimeoutError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._usage.failures += 1
        now = time.monotonic()
        if now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            logger.warning(
                "counts of reads are not stored: %s. %d reads wait in memory; answers are given "
                "as before",
                *(_reason(error), self._usage.waiting),
            )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "Postgres does not answer"
    if getattr(getattr(error, "orig", None), "pgcode", None) == errorcodes.UNDEFINED_TABLE:
        return MIGRATE
    return f"Postgres: {str(getattr(error, 'orig', error)).strip().splitlines()[0]}"
