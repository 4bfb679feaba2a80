"""The answer to what is no request, after which the connection is closed."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

LINGER_SECONDS = 2.0
"""Seconds for which more of a refused request is read and thrown away. When a socket is closed with
bytes unread, TCP resets the connection, and the client may lose the answer (RFC 9112, 9.6)."""


class Refusal:
    """An application that gives one answer, then waits until the client has hung up."""

    def __init__(self, response: Response, transport: asyncio.Transport) -> None:
        self._response = response
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = self._response.status_code, self._response.raw_headers
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = self._response.body
        await send({"type": "http.response.body", "body": body, "more_body": True})
        if self._transport.can_write_eof():
            self._transport.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive())["type"] != "http.disconnect":
                    pass
        await send({"type": "http.response.body", "body": b""})
