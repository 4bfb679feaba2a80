"""Connections on which no request comes do not stay; those on which one is answered do."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from serving.api.connections import Connection

KEEP_ALIVE = 2
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
GET = HEAD + b"\r\n"
ANSWER = b"\r\n\r\nok"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(1.5 * KEEP_ALIVE if scope["path"] == "/slow" else 0)
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def converse(address: tuple[str, int], *pieces: bytes) -> int:
    """How many answers come until the server closes; the answer to a whole request is awaited."""
    reader, writer = await asyncio.open_connection(*address)
    answers = 0
    for piece in pieces:
        writer.write(piece)
        if piece.endswith(b"\r\n\r\n"):
            await reader.readuntil(ANSWER)
            answers += 1
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    return answers


def test_a_connection_without_another_request_is_closed() -> None:
    async def all_at_once() -> list[int]:
        config, state = Config(answer, timeout_keep_alive=KEEP_ALIVE), ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            address = server.sockets[0].getsockname()
            return await asyncio.gather(
                converse(address),
                converse(address, HEAD),
                converse(address, GET, GET),
                converse(address, GET.replace(b"/", b"/slow", 1), HEAD),
                converse(address, HEAD + b"Content-Length: 9\r\n\r\n", b"x"),
            )

    assert asyncio.run(all_at_once()) == [0, 0, 2, 1, 1]
