"""The routes that answer features, as plain ASGI: what Starlette would do costs them too much.

A request of these routes is a body, and its answer is bytes. Starlette's router, which has them
too, is gone past by `ShortCut`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api.answering import DEADLINE_SECONDS, Answering, Form
from serving.api.arrow import MEDIA_TYPE as ARROW
from serving.api.problems import document_of
from serving.api.requests import MAX_BODY_BYTES
from serving.errors import InvalidRequest, NotReady, ServingError, TooLarge
from serving.metrics import Metrics

OK, INTERNAL_SERVER_ERROR = HTTPStatus.OK.value, HTTPStatus.INTERNAL_SERVER_ERROR.value
JSON = b"application/json"


Content = tuple[bytes, bytes]
"""An answer, and its media type."""


class FeatureRoute:
    """An ASGI application: a body that was posted to `path` is answered with 200 or a problem.

    It is counted and timed under its own path. The URL of a request is no label: it is made of what
    the client sends, its Host too.
    """

    def __init__(
        self, path: str, answer: Callable[[Scope, bytes], Awaitable[Content]], metrics: Metrics
    ) -> None:
        self.path = path
        self._answer = answer
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), INTERNAL_SERVER_ERROR
        try:
            content, kind = await self._answer(scope, await _body(receive))
            status = OK
        except (ServingError, HTTPException) as error:
            response = document_of(error)
            status = response.status_code
            await response(scope, receive, send)
            return
        finally:
            self._metrics.request(self.path, status, time.perf_counter() - began)
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", kind)]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def feature_routes(answering: Answering, metrics: Metrics) -> list[FeatureRoute]:
    """The routes of one entity and of many."""

    async def online(scope: Scope, body: bytes) -> Content:
        _check_parameters(scope["query_string"], ())
        return await answering.one(body), JSON

    async def batch(scope: Scope, body: bytes) -> Content:
        form = _form(scope)
        return await answering.many(body, form), ARROW.encode() if form is Form.ARROW else JSON

    return [
        FeatureRoute("/features/online", online, metrics),
        FeatureRoute("/features/batch", batch, metrics),
    ]


def _form(scope: Scope) -> Form:
    """The form that a client asks for: Arrow by `Accept`, compact JSON by `?compact`.

    Raises `InvalidRequest`.
    """
    query = scope["query_string"]
    _check_parameters(query, ("compact",))
    for name, value in scope["headers"]:
        if name == b"accept" and ARROW.encode() in value.lower():
            return Form.ARROW
    return Form.COMPACT if query else Form.OBJECTS


def _check_parameters(query: bytes, known: Sequence[str]) -> None:
    """Raises `InvalidRequest` for a parameter that the route does not have."""
    if not query:
        return
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            takes = f"takes ?{', ?'.join(known)}" if known else "takes none"
            raise InvalidRequest(f"there is no parameter {name[:100]!r} here: this route {takes}")


class ShortCut:
    """A middleware that takes what is posted to some routes to them, and nothing else."""

    def __init__(self, app: ASGIApp, routes: Iterable[FeatureRoute]) -> None:
        self._app = app
        self._routes = {route.path: route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            route = self._routes.get(scope["path"])
            if route is not None:
                await route(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _body(receive: Receive) -> bytes:
    """The body, read no further than its limit: a client may lie about its length.

    A body that is there needs no timer. Raises `TooLarge`, `NotReady` for a slow client, and
    `HTTPException` for one that is gone.
    """
    message = await receive()
    if message.get("more_body"):
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await _rest(message, receive)
        except TimeoutError:
            raise NotReady(
                f"the body did not come within {DEADLINE_SECONDS:g} s: send it faster"
            ) from None
    return _checked(message)


async def _rest(message: Message, receive: Receive) -> bytes:
    body = bytearray(_checked(message))
    while message.get("more_body"):
        message = await receive()
        body += _checked(message)
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
    return bytes(body)


def _checked(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the client went away")
    body: bytes = message.get("body", b"")
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    return body


def _too_large() -> TooLarge:
    return TooLarge(f"a body has at most {MAX_BODY_BYTES} bytes: send several requests")
