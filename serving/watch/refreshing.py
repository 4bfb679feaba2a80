"""Repeats what the server reads in the background, so that no request waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

logger = logging.getLogger(__name__)

SECONDS = 1.0
"""Pause between two readings, in seconds: as long as between two heartbeats of a worker."""

Refresh = Callable[[], Awaitable[None]]


@asynccontextmanager
async def refreshing(*refreshes: Refresh, pause: float = SECONDS) -> AsyncIterator[None]:
    """Awaits each of `refreshes` once, then repeats it after each pause until the context ends.

    Each repeats by itself: one that waits for its store does not delay the others. An exception is
    logged and the next repetition follows; one of the first round is raised.
    """
    await asyncio.gather(*(refresh() for refresh in refreshes))
    tasks = [asyncio.create_task(_repeat(refresh, pause)) for refresh in refreshes]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(refresh: Refresh, pause: float) -> None:
    while True:
        await asyncio.sleep(pause)
        try:
            await refresh()
        except Exception:
            logger.exception("reading in the background failed; it will be repeated")
