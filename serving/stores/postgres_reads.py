"""Statements in Postgres for an event loop: a few at a time, and none waited for beyond its limit.

The driver is psycopg2, which understands a URL as all else that connects to Postgres here, in a few
threads. A thread that waits for a server which says nothing would wait for ever: its socket is shut
down when the time is over, which ends the wait. Only connecting cannot be ended so; libpq limits
that itself, to no less than two seconds for each host.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from registry.database.engine import connect

CONNECTIONS = 4
"""Statements at the same time, of one server process: Postgres has a process for each."""

ANSWER_SECONDS = 1.5
"""Seconds for the answer to a statement, with the time that it waits for its turn."""

CONNECT_SECONDS = 2
"""Seconds to connect, the least that libpq takes."""

KEPT_SECONDS = 300
"""Seconds for which a connection is used: something on the way may have forgotten it by then."""

T = TypeVar("T")


class PostgresReads:
    """Statements in the database at `url`, which only read; it connects at the first one.

    One that writes is safe here if it may be sent twice, and commits by itself.
    """

    def __init__(
        self, url: str, connections: int = CONNECTIONS, seconds: float = ANSWER_SECONDS
    ) -> None:
        self.seconds = seconds
        self._free = asyncio.Semaphore(connections)
        self._engine = connect(
            url,
            connect_timeout=CONNECT_SECONDS,
            statement_timeout_ms=int(seconds * 1_000),
            pool_size=connections,
            max_overflow=0,
            pool_recycle=KEPT_SECONDS,
        )
        self._threads = ThreadPoolExecutor(connections, "postgres-reads")
        self._is_closed = False

    async def query(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows of a statement, as psycopg2 gives them. Raises as `run`."""

        def rows(connection: Connection) -> list[Any]:
            return list(connection.exec_driver_sql(statement, dict(parameters)).fetchall())

        return await self.run(rows)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """What a function returns that is called with a connection, in a thread, once or twice.

        Raises TimeoutError, SQLAlchemy's `DBAPIError` where Postgres refuses or is not there, and
        what the function raises.
        """
        call = _Call()
        async with asyncio.timeout(self.seconds), self._free:
            if self._is_closed:
                raise TimeoutError("closed")
            running = self._threads.submit(self._run, call, work)
            try:
                return await asyncio.wrap_future(running)
            except asyncio.CancelledError:
                call.abort()
                raise

    async def close(self) -> None:
        """Close the connections. What is under way is waited for, no longer than its limit."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._engine.dispose)

    def _run(self, call: _Call, work: Callable[[Connection], T]) -> T:
        try:
            return self._once(call, work)
        except DBAPIError as error:
            if not error.connection_invalidated or call.is_over:
                raise
        # A connection from before Postgres was started again; its pool is emptied by that.
        return self._once(call, work)

    def _once(self, call: _Call, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            call.begins(raw)
            try:
                return work(connection)
            finally:
                call.ends()


class _Call:
    """One call, and the connection that a thread waits on for it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._connection: Any = None
        self.is_over = False
        """Whether nobody waits for it any more."""

    def begins(self, connection: Any) -> None:
        """The thread waits on this connection from now on. Raises TimeoutError if it is over."""
        with self._lock:
            if self.is_over:
                raise TimeoutError
            self._connection = connection

    def ends(self) -> None:
        """The thread waits no more."""
        with self._lock:
            self._connection = None

    def abort(self) -> None:
        """End the wait of the thread; its connection is lost."""
        with self._lock:
            self.is_over = True
            if self._connection is None or self._connection.closed:
                return
            with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as own:
                own.shutdown(socket.SHUT_RDWR)
