"""Our own link to a single Redis, which reads fields of hashes, and keys, for all at once.

In one turn of the event loop all reads are collected, and then sent in one write. Nobody waits for
the answers to what was sent before. A client of redis-py takes a connection, a task and a timer for
each read; here they are the link's, and a read costs little more than its share of the bytes.

A read takes no longer than the time limit, in which the link also connects where it has to. Only a
read makes it connect: all that are asked meanwhile wait for the same attempt, and after one that
failed those of the next moment are told so at once.

Other commands, which are few, go the same way, each by itself (`RowLink.call`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from registry.redis_clients import ROWS, Limits, link_options
from serving.stores.link_call import Answer, Call
from serving.stores.link_connection import NO_ANSWER, Handlers, LinkConnection, connect
from serving.stores.redis_reads import is_of_key
from serving.stores.resp import bulk, packed
from serving.stores.row_batch import Found, Hearer, Read, RowBatch, Wanted, fail

__all__ = ["RowLink", "bulk"]

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.05
"""Seconds after a connection that came to nothing in which no other one is tried."""

QUIET_SECONDS = 1.0
"""Seconds between two warnings, however many reads fail."""


class Told(Protocol):
    """Is told whether commands are answered, as a `Breaker` is."""

    def succeeded(self) -> None:
        """A command is answered."""
        ...

    def failed(self, reason: str, decisive: bool = False) -> None:
        """A command is not; with `decisive` the server is silent, or not there."""
        ...


class RowLink:
    """Reads of the Redis at `url`; it connects at the first one.

    Raises ValueError for a URL that redis-py cannot read. `on_read` is told the number of fields of
    each command that is sent, and the breaker of the store, which is asked nothing here, whether
    commands are answered; without one nobody is.
    """

    def __init__(
        self,
        url: str,
        on_read: Callable[[int], None] = lambda rows: None,
        limits: Limits = ROWS,
        breaker: Told | None = None,
    ) -> None:
        self._options = link_options(url)
        self._on_read = on_read
        self._limits = limits
        self._breaker = breaker
        on_answer = _nobody_hears if breaker is None else breaker.succeeded
        self._handlers = Handlers(on_answer, self._refused, self._ended)
        self._asked: list[Read] = []
        self._calls: list[Call] = []
        self._asked_at = 0.0
        self._connection: LinkConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pause_until = 0.0
        self._quiet_until = 0.0
        self._is_closed = False

    def read(self, wanted: Wanted) -> Found:
        """The values of fields of hashes, or of keys.

        Parameters
        ----------
        wanted : of each hash its key, and the fields that are wanted; all are RESP bulk strings
            (`bulk`). With `row_batch.KEYS` for a hash's key it is keys that are wanted.

        Returns
        -------
        A future of a list for each hash: the values of its fields in their order, None where there
        is none, `UNAVAILABLE` where Redis answers with an error. The future is `UNAVAILABLE` as a
        whole where Redis does not answer in time; it never raises, and may be cancelled.
        """
        found: Found = asyncio.get_running_loop().create_future()
        self.read_into(wanted, found)
        return found

    def read_into(self, wanted: Wanted, found: Hearer, is_first: bool = False) -> None:
        """The same, where somebody hears the answer at once, and need not wait for a future.

        What `is_first` is read, and told, ahead of all else that is asked in this turn.
        """
        if not self._asked and not self._calls:
            loop = asyncio.get_running_loop()
            self._asked_at = loop.time()
            loop.call_soon(self._send)
        if is_first:
            self._asked.insert(0, Read(wanted, found))
        else:
            self._asked.append(Read(wanted, found))

    def call(self, command: Sequence[str | bytes]) -> Answer:
        """The answer to any other command, which is sent behind the reads of the same turn.

        It is `UNAVAILABLE` where Redis answers with an error, or not in time: whether the command
        was executed is not known then. The future never raises, and may be cancelled.
        """
        loop = asyncio.get_running_loop()
        found: Answer = loop.create_future()
        if not self._asked and not self._calls:
            self._asked_at = loop.time()
            loop.call_soon(self._send)
        self._calls.append(Call(packed(command), found))
        return found

    async def close(self) -> None:
        """Close the connection, for good. Reads that wait are answered `UNAVAILABLE`."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._fail_asked()  # a task that never ran has told nobody
        if self._connection is not None:
            await self._connection.close()

    def _send(self) -> None:
        """Send all that was asked in this turn, or connect first."""
        if self._connection is not None:
            self._send_over(self._connection)
        elif self._is_closed or asyncio.get_running_loop().time() < self._pause_until:
            self._fail_asked()
        else:
            self._connecting = asyncio.create_task(self._connect())

    def _send_over(self, connection: LinkConnection) -> None:
        deadline = self._asked_at + self._limits.socket_timeout
        (reads, self._asked), (calls, self._calls) = (self._asked, []), (self._calls, [])
        if reads:
            batch = RowBatch(reads)
            if batch.sizes:
                connection.send(batch, deadline)
            else:  # of nothing but empty lists
                batch.tell()
            for size in batch.sizes:
                self._on_read(size)
        for call in calls:
            connection.send(call, deadline)

    def _fail_asked(self) -> None:
        (reads, self._asked), (calls, self._calls) = (self._asked, []), (self._calls, [])
        fail(reads)
        for call in calls:
            call.fail()

    async def _connect(self) -> None:
        """Connect, and send what was asked since; nobody is left waiting, whatever happens."""
        limit = min(self._limits.socket_timeout, self._limits.socket_connect_timeout)
        try:
            async with asyncio.timeout_at(self._asked_at + limit):
                connection = await connect(self._options, self._handlers)
            if connection.ended is None:
                self._connection = connection
                self._send()
        except TimeoutError:
            self._failed("no connection in time")
        except Exception as error:  # names and files fail in many ways
            self._failed(f"{type(error).__name__}: {error}")
        finally:
            self._connecting = None
            self._fail_asked()

    def _ended(self, connection: LinkConnection, reason: str) -> None:
        self._connection = None
        if self._is_closed:
            return
        if not connection.has_served:
            self._failed(reason)
            return
        # A lost connection alone may have been somebody between; silence is the server's.
        self._tell_failed(reason, decisive=reason == NO_ANSWER)
        self._warn(reason)

    def _refused(self, reason: str) -> None:
        """An answer is an error."""
        if not is_of_key(reason):
            self._tell_failed(reason)
        self._warn(reason)

    def _failed(self, reason: str) -> None:
        """A connection came to nothing: for a moment no other one is tried."""
        self._pause_until = asyncio.get_running_loop().time() + PAUSE_SECONDS
        self._tell_failed(reason, decisive=True)
        self._warn(reason)

    def _tell_failed(self, reason: str, decisive: bool = False) -> None:
        if self._breaker is not None:
            self._breaker.failed(reason, decisive)

    def _warn(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning("rows cannot be read from %s: %s", self._options.address, reason)


def _nobody_hears() -> None:
    """A command was answered."""
