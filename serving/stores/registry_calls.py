"""Calls of the registry for an event loop: a few at a time, and none waited for beyond its limit.

A call may change what is recorded, so none is made twice: one that is not answered may have been
made or not, and its client is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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

READS, CHANGES = 2, 2
"""Reads of the registry at the same time, and changes, of one server process. Each has connections
of its own: reads that take long keep no activation and no roll-back out."""

MOST_WAITING = 32
"""Reads that wait for their turn, and changes; others are refused."""

ANSWER_SECONDS = 5.0
"""Seconds for a call, with the time that it waits for its turn."""

VIEW_PATIENCE = "2s"
"""Time for which a change waits for readers of a view, shorter than a call may take."""

T = TypeVar("T")


class RegistryCalls:
    """The registry in the database at `url`; it connects at the first call.

    `rejected_topic` is that of the workers, by which new definitions are checked; `heartbeats`
    gives what they last said. At most `most_waiting` reads wait for their turn, and as many
    changes.

    `read` and `change` return what a function returns that is called with the registry, in a
    thread. Both raise `Overloaded`, `NotReady`, `UnknownFeature`, `InvalidRequest`,
    `StateConflict`, and `ChangesNotAllowed` where the server's account may not change the registry.
    """

    def __init__(
        self,
        url: str,
        rejected_topic: str | None,
        heartbeats: Callable[[], Sequence[Heartbeat]],
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._workers = rejected_topic, Limits(view_patience=VIEW_PATIENCE), heartbeats
        self._reads = _Turns(url, READS, most_waiting)
        self._changes = _Turns(url, CHANGES, most_waiting)

    async def read(self, by: By, work: Callable[[Registry], T]) -> T:
        """What `work` reads."""
        return await self._called(self._reads, by, work)

    async def change(self, by: By, work: Callable[[Registry], T]) -> T:
        """What `work` changes."""
        return await self._called(self._changes, by, work)

    async def _called(self, turns: _Turns, by: By, work: Callable[[Registry], T]) -> T:
        running = turns.begin(work, Registry(turns.engine, by, *self._workers))
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

    async def close(self) -> None:
        """Close all connections."""
        await self._reads.close()
        await self._changes.close()


class _Turns:
    """So many calls at a time, each with a connection of its own; a bounded number waits."""

    def __init__(self, url: str, at_once: int, most_waiting: int) -> None:
        self.engine = connect(
            url,
            connect_timeout=2,
            statement_timeout_ms=int(ANSWER_SECONDS * 1_000),
            pool_size=at_once,
            max_overflow=0,
        )
        self._threads = ThreadPoolExecutor(at_once, "registry")
        self._most = at_once + most_waiting
        self._under_way = 0

    def begin(self, work: Callable[[Registry], T], registry: Registry) -> Future[T]:
        """Begin a call, or let it wait for its turn. Raises `Overloaded`."""
        if self._under_way >= self._most:
            raise Overloaded("too many requests about the registry are under way: ask again")
        self._under_way += 1
        running = self._threads.submit(work, registry)
        running.add_done_callback(lambda _: self._ended())
        return running

    def _ended(self) -> None:
        self._under_way -= 1  # one more or less for a moment does not matter

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.engine.dispose)


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
