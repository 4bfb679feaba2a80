"""HTTP as bytes: a protocol that listens on a real socket, and answers cut out of what it sends."""

from __future__ import annotations

import asyncio
import http.client
import io
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from serving.api.connections import Connection

T = TypeVar("T")
Address = tuple[str, int]
PAUSE_SECONDS = 0.002
"""Seconds between two packets, so that the server reads each by itself."""

END_SECONDS = 10
"""Seconds within which a server that is told to end has answered and closed everything."""


class Answer(NamedTuple):
    """An answer whose body is `length` bytes by its Content-Length, None without that header."""

    status: int
    kind: str | None
    length: str | None
    connection: str | None
    body: bytes


class _Bytes(io.BytesIO):
    """A file of several answers: the end of one does not close it."""

    def makefile(self, mode: str) -> io.BytesIO:
        return self

    def close(self) -> None: ...


def answers(received: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """The answers in `received`, in order. Without its method a request is taken for a GET."""
    file = _Bytes(received)
    found: list[Answer] = []
    while file.tell() < len(received):
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        response = http.client.HTTPResponse(file, method=method)  # type: ignore[arg-type]
        response.begin()
        named = response.getheader
        kind, length, connection = (
            named("content-type"),
            named("content-length"),
            named("connection"),
        )
        found.append(Answer(response.status, kind, length, connection, response.read()))
    return found


async def sized(scope: Any, receive: Any, send: Any) -> None:
    """Answers with as many bytes as the path says."""
    size = int(scope["path"][1:])
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * size})


@asynccontextmanager
async def listening(
    app: Any,
    protocol: Callable[..., Connection | H11Protocol] = Connection,
    tls: ssl.SSLContext | None = None,
    **config: Any,
) -> AsyncIterator[Address]:
    """The address at which a protocol serves `app`; what is left at the end is closed."""
    settings, state = Config(app, **{"ws": "none", **config}), ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(settings, state, {}), "127.0.0.1", 0, ssl=tls
    )
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        async with asyncio.timeout(END_SECONDS):
            while state.connections or state.tasks:
                await asyncio.sleep(0.001)


async def exchange(address: Address, *packets: bytes, seconds: float = 10) -> bytes:
    """What the server sends, until it closes, to a client that sends these packets."""
    reader, writer = await asyncio.open_connection(*address)
    reading = asyncio.create_task(reader.read())
    try:
        for packet in packets:
            writer.write(packet)
            await asyncio.sleep(PAUSE_SECONDS)
        return await asyncio.wait_for(reading, seconds)
    finally:
        writer.close()


def run(main: Coroutine[Any, Any, T], loop: Callable[[], asyncio.AbstractEventLoop] | None) -> T:
    """The result of a coroutine on a loop of this kind, asyncio's own by default."""
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)
