"""A server that does with each connection what a test says, as no Redis can be made to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

Command = list[bytes]


class Client:
    """A connection of a client; `number` counts them from 1."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer

    async def command(self) -> Command:
        """The next command and its arguments. Raises IncompleteReadError once it hangs up."""
        count = int((await self._reader.readuntil())[1:])
        words = []
        for _ in range(count):
            size = int((await self._reader.readuntil())[1:])
            words.append((await self._reader.readexactly(size + 2))[:-2])
        return words

    async def say(self, *parts: bytes) -> None:
        """Send each part by itself."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0.002)

    async def echo(self) -> None:
        """Answer each command as if each field had itself as its value."""
        while True:
            await self.say(echoed(await self.command()))

    async def hung_up(self) -> None:
        """Returns once the client has closed the connection."""
        with suppress(ConnectionError):
            while await self._reader.read(1 << 16):
                pass


Act = Callable[[Client], Awaitable[None]]
"""What is done with a connection, which is closed then."""


class ScriptedRedis:
    """The URL of the server, and how many connections it has taken."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self.url = ""
        self.connections = 0
        self.failures: list[Exception] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._act(Client(self.connections, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has hung up
        except Exception as error:
            self.failures.append(error)
        finally:
            writer.close()


@asynccontextmanager
async def scripted_redis(act: Act, path: Path | None = None) -> AsyncIterator[ScriptedRedis]:
    """A server on a port of its own, or on the Unix socket `path`. A mistake of `act` is raised."""
    made = ScriptedRedis(act)
    if path is not None:
        server = await asyncio.start_unix_server(made.take, path)
        made.url = f"unix://{path}"
    else:
        server = await asyncio.start_server(made.take, "127.0.0.1", 0)
        made.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    before = asyncio.all_tasks()
    try:
        yield made
    finally:
        server.close()
        left = asyncio.all_tasks() - before
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    for failure in made.failures:
        raise failure


def echoed(command: Command) -> bytes:
    """The answer to an HMGET of a hash in which each field has itself as its value."""
    return values(*command[2:])


def values(*found: bytes | None) -> bytes:
    """The answer to an HMGET."""
    parts = [b"$-1\r\n" if one is None else b"$%d\r\n%b\r\n" % (len(one), one) for one in found]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))
