"""The routes that answer features, as plain ASGI: what Starlette would do costs them too much.

A request of these routes is a body, and its answer is bytes. Starlette's router, which has them
too, is gone past by `ShortCut`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.api import consumers, deadlines
from serving.api.admission import Admission
from serving.api.answering import Answering, Asking
from serving.api.consumers import ConsumerOf, name_of, nobody
from serving.api.content_codings import LEAST_BYTES, coded, decoded
from serving.api.deadlines import Deadline, Deadlines
from serving.api.disconnects import while_there
from serving.api.exchanges import EXCHANGE, Exchange
from serving.api.feast import PATH as FEAST_PATH
from serving.api.feast import FeastRoute
from serving.api.forms import JSON, form_of, media_type
from serving.api.problems import document_of
from serving.api.request_ids import REQUEST_ID
from serving.api.requests import MAX_BODY_BYTES
from serving.errors import InvalidRequest, NotReady, ServingError, TooLarge
from serving.metrics import Metrics
from serving.stores.fallback import LONGEST_SECONDS
from serving.usage import Read

BODY_SECONDS = 5.0
"""Seconds in which the body of a request must come."""

OK, INTERNAL_SERVER_ERROR = HTTPStatus.OK.value, HTTPStatus.INTERNAL_SERVER_ERROR.value
NONE: dict[str, Exchange] = {}


Body = TypeVar("Body", bytes, bytearray)

Content = tuple[bytes, bytes, Sequence[Read]]
"""An answer, its media type, and what it counts for."""

Coded = tuple[bytes, bytes, Sequence[tuple[bytes, bytes]], Sequence[Read]]
"""The same as it is sent, with the headers that say how it is coded."""

DEADLINE, CONSUMER = deadlines.HEADER, consumers.HEADER
"""Names of headers, here because a look into a module costs as much as a comparison."""

Bounds = tuple[Admission, Deadlines]
"""How much is in hand at once, of all routes, and how long each request may take."""


class FeatureRoute:
    """An ASGI application: a body that was posted to `path` is answered with 200 or a problem.

    What is answered with 200 counts as read by whom `consumer_of` says. A request is counted and
    timed under the path of its route. Its URL is no label: it is made of what the client sends, its
    Host too.
    """

    def __init__(
        self,
        path: str,
        answer: Callable[[Scope, bytes, Deadline], Awaitable[Content]],
        metrics: Metrics,
        bounds: Bounds,
        body_seconds: float = BODY_SECONDS,
        compress: bool = False,
        consumer_of: ConsumerOf = nobody,
        hurries: bool = True,
        most_bytes: int = MAX_BODY_BYTES,
        ends_with_client: bool = False,
    ) -> None:
        """With `hurries` a client decides in which time it is answered.

        With `ends_with_client` an answer is given up when its client goes away, which is only worth
        its cost where an answer takes seconds.
        """
        self._ends_with_client = ends_with_client
        self.path = path
        self._most_bytes = most_bytes
        self._hurries = hurries
        self._consumer_of = consumer_of
        self._answer = answer
        self._metrics = metrics
        self._admission, self._deadlines = bounds
        self._body_seconds = body_seconds
        self._compress = compress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), INTERNAL_SERVER_ERROR
        exchange: Exchange | None = (scope.get("extensions") or NONE).get(EXCHANGE)
        if exchange is not None and exchange.began is not None:  # it has waited before this
            began -= asyncio.get_running_loop().time() - exchange.began
        try:
            deadline, named = _own_headers(scope["headers"])
            deadline = deadline if self._hurries else None
            consumer = self._consumer_of(scope, named)
            content, kind, added, reads = await self._content(scope, receive, exchange, deadline)
            status = OK
        except (ServingError, HTTPException) as error:
            response = document_of(error, scope)
            status = response.status_code
        finally:  # before the answer is sent: how long that takes is up to the client
            self._metrics.request(self.path, status, time.perf_counter() - began)
        if status != OK:
            await response(scope, receive, send)
            return
        for counted, entities in reads:
            counted[consumer] += entities
        head = b"content-length: %d\r\ncontent-type: %b\r\n" % (len(content), kind)
        if added:
            head += b"".join([b"%b: %b\r\n" % header for header in added])
        if exchange is not None and exchange.answer(head, content):
            return
        headers = [(b"content-length", b"%d" % len(content)), (b"content-type", kind), *added]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _content(
        self, scope: Scope, receive: Receive, exchange: Exchange | None, header: bytes | None
    ) -> Coded:
        """The answer within its deadline; a timer is only made where stores could take longer."""
        admission = self._admission
        if admission.is_full:
            raise admission.refuse()
        ms = self._deadlines.ms_of(header)
        now, left = asyncio.get_running_loop().time(), ms / 1_000
        if exchange is not None and exchange.began is not None:
            left -= now - exchange.began
        end = now + left
        deadline = Deadline(end, ms)
        if exchange is not None:
            body = _within(exchange.whole_body(), self._most_bytes)
        else:
            body = await self._body(receive, min(self._body_seconds, ms / 1_000))
            left = end - asyncio.get_running_loop().time()
            if admission.is_full:  # others have come while it was awaited
                raise admission.refuse()
        body = decoded(scope["headers"], body, self._most_bytes)
        size = len(body)
        admission.answering += 1
        admission.answering_bytes += size
        try:
            answer = self._coded(scope, body, deadline)
            if self._ends_with_client:
                answer = while_there(receive, answer)
            if left >= LONGEST_SECONDS:
                return await answer
            return await self._deadlines.timers.within(deadline, answer)
        finally:
            admission.answering -= 1
            admission.answering_bytes -= size

    async def _coded(self, scope: Scope, body: bytes, deadline: Deadline) -> Coded:
        """The answer as it is sent: what compressing it takes is a part of answering, too."""
        content, kind, reads = await self._answer(scope, body, deadline)
        if self._compress and len(content) > LEAST_BYTES:
            content, added = await coded(scope["headers"], content)
            return content, kind, added, reads
        return content, kind, (), reads

    async def _body(self, receive: Receive, seconds: float) -> bytes:
        """The body, read no further than its limit: a client may lie about its length.

        Raises `TooLarge`, `NotReady` for a slow client, `Overloaded` where too many are slow, or
        have sent too much, and `HTTPException` for one that is gone.
        """
        admission = self._admission
        if admission.is_full_of_awaited:
            raise admission.refuse()
        admission.receiving += 1
        body = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    piece = _piece(message)
                    body += piece
                    admission.receiving_bytes += len(piece)
                    _within(body, self._most_bytes)
                    if not message.get("more_body"):
                        return bytes(body)
                    if admission.receiving_bytes >= admission.most_bytes:
                        raise admission.refuse()
        except TimeoutError:
            raise NotReady(f"the body did not come within {seconds:g} s: send it faster") from None
        finally:
            admission.receiving -= 1
            admission.receiving_bytes -= len(body)


def feature_routes(
    answering: Answering,
    metrics: Metrics,
    bounds: Bounds,
    compress: bool = False,
    consumer_of: ConsumerOf = nobody,
) -> list[FeatureRoute]:
    """The routes of one entity and of many. With `compress` large answers are compressed."""

    async def online(scope: Scope, body: bytes, deadline: Deadline) -> Content:
        if scope["query_string"]:
            raise InvalidRequest("this route takes nothing behind a question mark")
        content, reads = await answering.one(body, _asking(scope, deadline))
        return content, JSON, reads

    async def batch(scope: Scope, body: bytes, deadline: Deadline) -> Content:
        form = form_of(scope)
        content, reads = await answering.many(body, form, _asking(scope, deadline))
        return content, media_type(form), reads

    routes = {"/features/online": online, "/features/batch": batch}
    return [
        FeatureRoute(path, answer, metrics, bounds, compress=compress, consumer_of=consumer_of)
        for path, answer in routes.items()
    ]


def feast_route(
    answering: Answering,
    metrics: Metrics,
    bounds: Bounds,
    compress: bool = False,
    consumer_of: ConsumerOf = nobody,
) -> FeatureRoute:
    """The route of Feast's clients. With `compress` large answers are compressed."""
    feast = FeastRoute(answering)

    async def answer(scope: Scope, body: bytes, deadline: Deadline) -> Content:
        content, reads = await feast.answer(body, _asking(scope, deadline))
        return content, JSON, reads

    return FeatureRoute(
        FEAST_PATH, answer, metrics, bounds, compress=compress, consumer_of=consumer_of
    )


def _own_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes | None, bytes | None]:
    """The deadline and the consumer that a request names; of several the first ones."""
    deadline = consumer = None
    for name, value in headers:  # most are others, so each costs two comparisons and no more
        if name == DEADLINE:
            if deadline is None:
                deadline = value
        elif name == CONSUMER and consumer is None:
            consumer = value
    return deadline, consumer


def _asking(scope: Scope, deadline: Deadline) -> Asking:
    return Asking(deadline, scope.get(REQUEST_ID), partial(name_of, scope))


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


def _piece(message: Message) -> bytes:
    """The piece of a body that a message has. Raises `HTTPException` where the client is gone."""
    if message["type"] == "http.disconnect":
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the client went away")
    piece: bytes = message.get("body", b"")
    return piece


def _within(body: Body, most: int) -> Body:
    """The same. Raises `TooLarge`."""
    if len(body) > most:
        raise TooLarge(f"a body has at most {most} bytes: send several requests")
    return body
