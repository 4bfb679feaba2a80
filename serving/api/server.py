"""Uvicorn's server, stopped with care: no request that was sent goes without its answer.

1. `/health/ready` answers 503 for a while, which is a setting, and everything else is answered as
   before: whoever shares out requests learns it, and sends no more.
2. What has connected and was not accepted yet is accepted, then the listener is closed.
3. Requests under way are answered. A connection that waits for its next request is kept for a
   moment, as one may be on its way; the answer to it says that it was the last one. Uvicorn closes
   such connections at once, and a request that meets this is lost.
4. After a bound what is left is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import NamedTuple

import uvicorn

from serving.accepting import accepted_by
from serving.api.connections import Connection
from serving.process import ThisProcess

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.02
CLOSING_TURNS = 3
"""Turns of the event loop in which it closes what it was told to."""

PUBLISH_TICKS = 5
"""Ticks of uvicorn, of 0.1 s, after which counts are shown to the other processes of the server."""


class Patience(NamedTuple):
    """How a server stops, in seconds."""

    pause: float = 0.0
    """How long it goes on serving and says that it is not ready."""

    drain: float = 5.0
    """How long answers may take after the listener was closed."""

    idle: float = 0.5
    """How long a connection is kept on which nothing is asked; a request may be on its way."""


class DrainingServer(uvicorn.Server):
    """A server of `Connection`s that stops as `patience` says, once `should_exit` is set."""

    def __init__(
        self,
        config: uvicorn.Config,
        patience: Patience,
        process: ThisProcess,
        publish: Callable[[], None] = lambda: None,
    ) -> None:
        """`publish` shows what was counted to the other processes of the server."""
        super().__init__(config)
        self.at_end: Callable[[], None] = lambda: None
        """Is called once nothing is answered any more. What follows waits for threads, which wait
        for stores that may hang."""
        self.patience = patience
        self.process = process
        process.open = self.server_state.connections
        self._publish = publish
        self._listeners: list[socket.socket] = []
        self._arriving: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> list[Connection]:
        """The open connections."""
        return [one for one in self.server_state.connections if isinstance(one, Connection)]

    async def on_tick(self, counter: int) -> bool:
        if counter % PUBLISH_TICKS == 0:
            self._publish()
        return await super().on_tick(counter)

    async def main_loop(self) -> None:
        await super().main_loop()
        if self.patience.pause:
            self.process.stopping = True
            await self._go_on(self.patience.pause)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # A listener ends when all of its descriptors are closed, and uvloop closes its own some
        # time after it was told to: with this one the moment is ours.
        self._listeners = [listener.dup() for listener in sockets or ()]
        await super().startup(sockets=sockets or [])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._stop_listening(sockets or [])
        if not await self._drained():
            await self._cut_off()
        self._publish()
        self.at_end()
        if not self.force_exit:
            await self.lifespan.shutdown()

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Accept what has connected, then close; the system resets what is not accepted."""
        for server in self.servers:
            server.close()
        for listener in sockets:
            listener.close()
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)
        waiting, self._listeners = self._listeners, []
        for listener in waiting:
            with listener:
                try:
                    for accepted in accepted_by(listener):
                        self.take(accepted)
                except OSError as error:
                    logger.error("connections that waited cannot be accepted: %s", error.strerror)

    def take(self, accepted: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere."""
        task = asyncio.get_running_loop().create_task(self._connect(accepted))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def arriving(self) -> int:
        """How many connections were taken and are not among the open ones yet."""
        return len(self._arriving)

    async def _connect(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        accepted.setblocking(False)
        try:
            await loop.connect_accepted_socket(
                lambda: Connection(self.config, self.server_state, self.lifespan.state, loop),
                accepted,
                ssl=self.config.ssl,
            )
        except OSError:  # the client is gone, or its handshake of TLS failed
            accepted.close()

    async def _go_on(self, seconds: float) -> None:
        """Serve for so long; uvicorn's ticks set the date of answers."""
        loop = asyncio.get_running_loop()
        end, counter = loop.time() + seconds, 0
        while loop.time() < end and not self.force_exit:
            await self.on_tick(counter)
            counter += 1
            await asyncio.sleep(min(0.1, max(0.0, end - loop.time())))

    async def _drained(self) -> bool:
        """Wait until everything is answered and closed; False when that takes too long."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self.force_exit:
            for connection in self.connections:
                connection.finish()
            await asyncio.sleep(POLL_SECONDS)
            await self.on_tick(0)
            if not (self.server_state.connections or self.server_state.tasks or self._arriving):
                return True
            passed = loop.time() - began
            if passed >= self.patience.drain:
                return False
            if passed >= self.patience.idle:
                for connection in self.connections:
                    connection.close_idle()
        return False

    async def _cut_off(self) -> None:
        """End what was not finished in time."""
        tasks = [*self.server_state.tasks, *self._arriving]
        if tasks and not self.force_exit:
            logger.error(
                "%d requests were not answered within %g s, and are cancelled",
                *(len(tasks), self.patience.drain),
            )
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self.connections:
            connection.transport.abort()
