"""A request and its answer, as an application of ours may have them: whole, in one call each.

ASGI has messages for that, which uvicorn takes apart and checks one by one. Where the whole body of
a request is there before its application begins, and the whole answer is known before it is sent,
that costs as much as the answer itself.
"""

from __future__ import annotations

from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.api import request_ids
from serving.api.write_gathering import GatheringTransport

EXCHANGE = "tickwell.exchange"
"""The extension of ASGI that has the `Exchange` of a request whose body is there. It is in the
scope before the application begins, which is in a later turn of the event loop."""

OK_LINE = b"HTTP/1.1 200 OK\r\n"


class Exchange(RequestResponseCycle):
    """Uvicorn's cycle of a request, which may also be had and answered whole."""

    transport: GatheringTransport
    request_id: bytes
    """What the answer has as `X-Request-Id`. It is set before the application begins."""

    began: float | None = None
    """When the request came, by the loop's clock, if that was before the application began."""

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            named = (request_ids.HEADER, self.request_id)
            self.default_headers = [*self.default_headers, named]
            if self.waiting_for_100_continue and self.more_body:
                # The client may send the body or the next request: nobody could tell them apart.
                self.keep_alive = False
        if self.flow.write_paused and not self.disconnected:
            with self.transport.awaited(_size(message)):
                await self.flow.drain()
        await super().send(message)

    def whole_body(self) -> bytes:
        """The body, in place of the first `receive`."""
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    def answer(self, head: bytes, content: bytes) -> bool:
        """Send an answer with status 200; `head` are its header lines.

        False where nothing was sent, since the client does not read what was sent before, or is
        gone, or where the method is one that has no content: `send` knows what to do then.
        """
        if self.flow.write_paused or self.disconnected or self.scope["method"] == "HEAD":
            return False
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write_whole(
            whole_answer(self.default_headers, self.request_id, head, content, self.keep_alive)
        )
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


def whole_answer(
    headers: list[tuple[bytes, bytes]],
    request_id: bytes,
    head: bytes,
    content: bytes,
    keep_alive: bool,
) -> bytes:
    """The bytes of an answer; `headers` are uvicorn's own, and `head` has the lines of others."""
    end = b"\r\n" if keep_alive else b"connection: close\r\n\r\n"
    lines = OK_LINE, lines_of(headers), b"x-request-id: ", request_id, b"\r\n", head, end
    return b"".join((*lines, content))


def _size(message: Any) -> int:
    """Bytes that wait with a message: of content, which whoever sends its head has as a rule."""
    for name, value in message.get("headers", ()):
        if name == b"content-length":
            return int(value)
    return len(message.get("body", b""))


_lines: tuple[Any, bytes] = ((), b"")


def lines_of(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Headers as lines. Uvicorn makes a new list of those of all answers each second."""
    global _lines
    of, lines = _lines
    if of is not headers:
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        _lines = headers, lines
    return lines
