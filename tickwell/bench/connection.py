"""One connection of a load generator: a request is written, and its answer is told of.

A client library would take as much processor time as the server does, on a machine that both share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools

Answered = Callable[["Connection", int, bytes], None]
Lost = Callable[["Connection", str], None]


class Connection(asyncio.Protocol):
    """Calls `answered` with status and body, or `lost` once, when the connection has ended.

    There is one request at a time. `began` and `asked` are the caller's: when it wrote (or should
    have written) the request, and what it asked for.
    """

    def __init__(self, answered: Answered, lost: Lost) -> None:
        self._answered, self._lost = answered, lost
        self._transport: Any = None
        self._parts: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._broken = ""
        self.is_asking = False
        self.is_last = False
        """Whether the answer that has come is the last one of this connection."""
        self.began = 0.0
        self.asked: Any = None

    def ask(self, request: bytes) -> None:
        """Write a request."""
        self.is_asking = True
        self._transport.write(request)

    def abort(self, why: str) -> None:
        """End the connection; `lost` is told why."""
        self._broken = self._broken or why
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.abort(f"what came is no HTTP/1.1: {error}")

    def on_body(self, body: bytes) -> None:
        """The parser has some of an answer's body."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """The parser has reached the end of an answer."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self.is_asking = False
        if not self._parser.should_keep_alive():
            self.is_last = True
            self._transport.close()
        self._answered(self, self._parser.get_status_code(), body)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(self, self._broken or str(error or "the server closed the connection"))
