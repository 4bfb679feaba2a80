"""Compresses the answers of all routes but those of features, which do it themselves."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.content_codings import LEAST_BYTES, coded

CONTENT_LENGTH, CONTENT_TYPE = b"content-length", b"content-type"

COMPRESSED_ALREADY = (b"image/png",)
"""Media types that become no smaller."""


class Compressing:
    """A middleware. An answer in one piece is compressed; one in several goes through as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def send_coded(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                if message.get("more_body") or len(message.get("body", b"")) <= LEAST_BYTES:
                    await send(start)
                else:
                    message = await _coded(scope, start, message, send)
                start = None
            await send(message)

        await self._app(scope, receive, send_coded)


async def _coded(scope: Scope, start: Message, message: Message, send: Send) -> Message:
    """Send the start of an answer that is in one piece; returns the rest of it."""
    headers = list(start["headers"])
    named = dict(headers)
    if named.get(CONTENT_TYPE) in COMPRESSED_ALREADY:
        await send(start)
        return message
    body, added = await coded(scope["headers"], message["body"])
    headers = [(name, value) for name, value in headers if name != CONTENT_LENGTH]
    length = (CONTENT_LENGTH, b"%d" % len(body))
    await send({**start, "headers": [*headers, length, *added]})
    return {**message, "body": body}
