"""One connection to a Redis: commands go out, and their answers come back in the same order.

Nothing but the order says which answer belongs to which command. So a connection on which anything
is not as it must be is never used again: all that wait are told at once, and whatever it receives
afterwards has nobody left to go to.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from hiredis import HiredisError, Reader, ReplyError

from registry.redis_clients import LinkOptions
from serving.stores.resp import packed
from serving.stores.row_batch import WrongAnswer

NO_ANSWER = "no answer in time"
"""The reason for which a connection ends when the server is silent."""

INCOMPLETE = object()
"""What the parser says while an answer has not come to its end."""


class Batch(Protocol):
    """Commands that are sent together, and whoever waits for their answers."""

    def packed(self) -> bytes:
        """The commands as they are sent: one at least."""
        ...

    def take(self, answer: Any) -> bool:
        """Takes the answer to the next command; True once all are answered, and all are told.

        Raises `WrongAnswer` where it cannot be one.
        """
        ...

    def fail(self) -> None:
        """Tells all who wait that there is no answer."""
        ...


class Handlers(NamedTuple):
    """Who is told of a connection."""

    on_answer: Callable[[], None]
    """A command is answered with what it asks for."""

    on_error: Callable[[str], None]
    """An answer is an error; the connection goes on."""

    on_end: Callable[[LinkConnection, str], None]
    """The connection must not be used any more, and why (`NO_ANSWER`, or another reason)."""


class _Sent(NamedTuple):
    """A batch under way, and the timer that ends the connection when there is no answer."""

    batch: Batch
    timer: asyncio.TimerHandle


class LinkConnection(asyncio.Protocol):
    """A connection, from its handshake to its end."""

    def __init__(self, options: LinkOptions, handlers: Handlers) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._handlers = handlers
        self._handshake = deque(command[0] for command in options.handshake)
        self._first = b"".join(map(packed, options.handshake))
        self._reader = Reader(notEnoughData=INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._sent: deque[_Sent] = deque()
        self._lost = self._loop.create_future()
        self.ended: str | None = None
        """Why the connection must not be used any more; None while it may."""
        self.has_served = False
        """Whether a batch was ever answered."""

    def send(self, batch: Batch, deadline: float) -> None:
        """Send a batch, which must be answered by `deadline` (seconds of the loop's clock)."""
        assert self._transport is not None
        assert self.ended is None
        timer = self._loop.call_at(deadline, self.end, NO_ANSWER)
        self._sent.append(_Sent(batch, timer))
        self._transport.write(batch.packed())

    def end(self, reason: str) -> None:
        """Drop the connection, and tell all that wait."""
        if self.ended is not None:
            return
        self.ended = reason
        for batch, timer in self._sent:
            timer.cancel()
            batch.fail()
        self._sent.clear()
        if self._transport is not None:
            self._transport.abort()
        self._handlers.on_end(self, reason)

    async def close(self) -> None:
        """Drop the connection; returns once its socket is closed."""
        self.end("closed")
        if self._transport is not None:
            await self._lost

    # ------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._set_options(transport.get_extra_info("socket"))
        if self._first:
            self._transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        try:
            self._check_is_asked()
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not INCOMPLETE:
                self._take(answer)
                if self._reader.has_data():  # asked here, where no answer is half read
                    self._check_is_asked()
        except (HiredisError, WrongAnswer) as error:
            self.end(str(error))

    def eof_received(self) -> None:
        self.end("closed by the server")

    def connection_lost(self, error: Exception | None) -> None:
        self.end(f"lost: {error}" if error else "closed by the server")
        if not self._lost.done():
            self._lost.set_result(None)

    # ------------------------------------------------------------ answers

    def _check_is_asked(self) -> None:
        """Raises `WrongAnswer` where nothing waits for what has come."""
        if not self._sent and not self._handshake:
            raise WrongAnswer("an answer to no question")

    def _take(self, answer: Any) -> None:
        if self._handshake:
            self._check_handshake(self._handshake.popleft(), answer)
            return
        if isinstance(answer, ReplyError):
            self._handlers.on_error(str(answer))
        else:
            self._handlers.on_answer()
        batch, timer = self._sent[0]
        if batch.take(answer):
            self.has_served = True
            timer.cancel()
            self._sent.popleft()

    def _check_handshake(self, command: str, answer: Any) -> None:
        if answer == b"OK":
            return
        said = str(answer)
        if command == "AUTH":  # a server that does not know the command repeats the password
            said = said.split(" ")[0]
        raise WrongAnswer(f"{command} is answered {said}")

    def _set_options(self, sock: socket.socket) -> None:
        if self._options.path is not None:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._options.keepalive is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in self._options.keepalive.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def connect(options: LinkOptions, handlers: Handlers) -> LinkConnection:
    """A connection whose handshake is under way.

    Raises OSError, ValueError and what else a server's name or the files of TLS lead to.
    """
    loop = asyncio.get_running_loop()
    tls = options.tls() if options.tls is not None else None

    def make() -> LinkConnection:
        return LinkConnection(options, handlers)

    if options.path is not None:
        _, connection = await loop.create_unix_connection(make, options.path)
    else:
        _, connection = await loop.create_connection(make, options.host, options.port, ssl=tls)
    return connection
