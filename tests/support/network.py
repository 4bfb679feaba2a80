"""A network between a client and a server: it can be cut, hold back what is sent, or be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from urllib.parse import urlsplit

HOST = "127.0.0.1"


class Network:
    """Passes on what comes at `url` to the server of another URL; for use from another thread."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._ready, self._flows, self._ended = Event(), asyncio.Event(), asyncio.Event()
        self._flows.set()
        self._delay = 0.0
        self._is_cut = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.connections = 0
        """Connections that were ever made."""

    def cut(self) -> None:
        """Reset all connections, and each new one."""
        self._do(lambda: self._set(is_cut=True))

    def hold(self) -> None:
        """Keep what is sent, on connections that are there and on new ones."""
        self._do(self._flows.clear)

    def slow(self, seconds: float) -> None:
        """Pass on each piece only after that time."""
        self._do(lambda: self._set(delay=seconds))

    def heal(self) -> None:
        """Pass on everything again, at once."""
        self._do(lambda: self._set(is_cut=False, delay=0.0))

    def _set(self, is_cut: bool = False, delay: float = 0.0) -> None:
        self._is_cut, self._delay = is_cut, delay
        self._flows.set()
        for task in self._tasks if is_cut else ():
            task.cancel()

    def _do(self, act: Callable[[], object]) -> None:
        async def acting() -> None:
            act()

        asyncio.run_coroutine_threadsafe(acting(), self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with suppress(OSError, asyncio.CancelledError):
            if not self._is_cut:
                await self._serve(reader, writer)
        self._tasks.discard(task)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        try:
            ways = [
                asyncio.create_task(self._pass_on(reader, back)),
                asyncio.create_task(self._pass_on(there, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            await asyncio.sleep(self._delay)
            await self._flows.wait()
            sink.write(data)
            await sink.drain()

    async def serve(self) -> None:
        """Pass on until `stop`."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accept, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        user, sign, _ = self._parts.netloc.rpartition("@")
        self.url = self._parts._replace(netloc=f"{user}{sign}{HOST}:{port}").geturl()
        self._ready.set()
        await self._ended.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wait_ready(self) -> None:
        """Returns once it has a URL."""
        assert self._ready.wait(10)

    def stop(self) -> None:
        """End it."""
        self._do(self._ended.set)


@contextmanager
def network(url: str) -> Iterator[Network]:
    """A network before the server at `url`."""
    made = Network(url)
    thread = Thread(target=lambda: asyncio.run(made.serve()))
    thread.start()
    try:
        made.wait_ready()
        yield made
    finally:
        made.stop()
        thread.join()
