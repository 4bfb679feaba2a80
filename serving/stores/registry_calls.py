"""Calls of the registry for an event loop: a few at a time, and none waited for beyond its limit.

A call may change what is recorded, so none is made twice: one that is not answered may have been
made or not, and its client is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from psycopg2.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from sqlalchemy.exc import DBAPIError

from registry.database.engine import connect
from registry.errors import (
    DefinitionError,
    NotAllowed,
    RegistryEmpty,
    RegistryError,
    UnknownVersion,
    VersionChanged,
)
from registry.formats.heartbeat import Heartbeat
from registry.lifecycle.audit import By
from registry.lifecycle.recording import Limits
from registry.lifecycle.registry import Registry
from serving.errors import (
    ChangesNotAllowed,
    InvalidRequest,
    NotReady,
    Overloaded,
    ServingError,
    StateConflict,
    UnknownFeature,
)

CONNECTIONS = 2
"""Calls at the same time, of one server process."""

MOST_WAITING = 32
"""Calls that wait for their turn; others are refused."""

ANSWER_SECONDS = 5.0
"""Seconds for a call, with the time that it waits for its turn."""

VIEW_PATIENCE = "2s"
"""Time for which a change waits for readers of a view, shorter than a call may take."""

T = TypeVar("T")


class RegistryCalls:
    """The registry in the database at `url`; it connects at the first call.

    `rejected_topic` is that of the workers, by which new definitions are checked; `heartbeats`
    gives what they last said.
    """

    def __init__(
        self,
        url: str,
        rejected_topic: str | None,
        heartbeats: Callable[[], Sequence[Heartbeat]],
    ) -> None:
        self._rejected_topic = rejected_topic
        self._heartbeats = heartbeats
        self._limits = Limits(view_patience=VIEW_PATIENCE)
        self._engine = connect(
            url,
            connect_timeout=2,
            statement_timeout_ms=int(ANSWER_SECONDS * 1_000),
            pool_size=CONNECTIONS,
            max_overflow=0,
        )
        self._threads = ThreadPoolExecutor(CONNECTIONS, "registry")
        self._under_way = 0

    async def call(self, by: By, work: Callable[[Registry], T]) -> T:
        """What a function returns that is called with the registry, in a thread.

        Raises `Overloaded`, `NotReady`, `UnknownFeature`, `InvalidRequest`, `StateConflict`, and
        `ChangesNotAllowed` where the server's account may not change the registry.
        """
        if self._under_way >= CONNECTIONS + MOST_WAITING:
            raise Overloaded("too many requests about the registry are under way: ask again")
        workers = self._rejected_topic, self._limits, self._heartbeats
        registry = Registry(self._engine, by, *workers)
        self._under_way += 1
        running = self._threads.submit(work, registry)
        running.add_done_callback(lambda _: self._ended())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.wrap_future(running)
        except TimeoutError:
            running.cancel()
            raise NotReady(
                "the registry did not answer in time; whether a change was made is not known: look "
                "at GET /features/{name}/versions before you ask again"
            ) from None
        except (RegistryError, DBAPIError) as error:
            raise _served(error) from error

    def _ended(self) -> None:
        self._under_way -= 1  # one more or less for a moment does not matter

    async def close(self) -> None:
        """Close all connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._engine.dispose)


def _served(error: Exception) -> ServingError:
    """An error of the registry as one of serving."""
    match error:
        case UnknownVersion():
            return UnknownFeature(str(error))
        case NotAllowed() | VersionChanged():
            return StateConflict(str(error))
        case DefinitionError():
            return InvalidRequest(str(error))
        case RegistryEmpty():
            return NotReady(str(error))
        case DBAPIError() if isinstance(error.orig, InsufficientPrivilege | ReadOnlySqlTransaction):
            return ChangesNotAllowed(
                "the server's account of Postgres may not change the registry: use `tickwell "
                "features`, or give the server an account that may"
            )
        case DBAPIError():
            return NotReady("Postgres did not answer, or ended the call: ask again")
    return NotReady(str(error))
