"""The HTTP routes: bytes to requests, answers to bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from registry.formats.status import Status
from serving.api import problems
from serving.api.requests import MAX_BODY_BYTES, BatchRequest, OnlineRequest, parse
from serving.errors import NotReady, ServingError, TooLarge
from serving.features.reader import Reader
from serving.features.values import Moment
from serving.metrics import Metrics
from serving.stores.warm import WarmStore
from serving.watch.watch import Watch

DEADLINE_SECONDS = 5.0
"""For a whole request. The store has one second; the rest is for a client that sends slowly."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where rows, heartbeats and the catalog are."""

    redis: str
    redis_hot: str
    postgres: str


def create_app(options: ServerOptions) -> Starlette:
    """The application; it connects when it starts and can start before its stores."""
    watch = Watch(options.redis, options.redis_hot, options.postgres)
    metrics = Metrics(watch)
    server = _Server(watch, metrics, options.redis)
    routes = [
        _measured("/features/online", server.online, metrics),
        _measured("/features/batch", server.batch, metrics),
        Route("/health", server.health),
        Route("/health/live", server.live),
        Route("/health/ready", server.ready),
        Route("/metrics", server.metrics),
    ]
    app = Starlette(
        routes=routes,
        lifespan=server.lifespan,
        exception_handlers=dict(problems.HANDLERS),
    )
    app.router.redirect_slashes = False  # a redirect loses what a client has posted
    return app


class _Server:
    def __init__(self, watch: Watch, metrics: Metrics, redis: str) -> None:
        self._watch = watch
        self._metrics = metrics
        self._redis = redis
        self._reader: Reader

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        store = WarmStore(self._redis, self._metrics.read)
        self._reader = Reader(store)
        await self._watch.start()
        try:
            yield
        finally:
            await self._watch.stop()
            await store.close()

    async def online(self, request: Request) -> Response:
        """Features of one entity."""
        wanted = parse(await _body(request), OnlineRequest)
        return await self._answer(wanted.features, [wanted.key()], one=True)

    async def batch(self, request: Request) -> Response:
        """The same features of several entities."""
        wanted = parse(await _body(request), BatchRequest)
        return await self._answer(wanted.features, wanted.entities, one=False)

    async def _answer(
        self, features: list[str], entities: list[dict[str, str]], *, one: bool
    ) -> Response:
        # decided once of each source: no answer holds two opinions
        moment = Moment(time.time_ns(), cache(self._watch.lagging))
        answers = await self._reader.answer(self._watch.names, features, entities, moment)
        self._metrics.answers(answers)
        return _json(answers[0] if one else {"results": answers})

    async def health(self, request: Request) -> Response:
        """How stores and workers are; 503 when no value can be served."""
        watch = self._watch
        serving = watch.ready and watch.stores.get("redis") == "ok"
        workers = {
            sink: [msgspec.to_builtins(beat) for beat in watch.alive(sink)]
            for sink in ("online", "offline")
        }
        well = serving and all(
            beats and all(beat["state"] == "running" for beat in beats)
            for beats in workers.values()
        )
        well = well and all(state == "ok" for state in watch.stores.values())
        status = "ok" if well else "degraded" if serving else Status.UNAVAILABLE
        found = {"status": status, "stores": watch.stores, "workers": workers}
        return _json(found, HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE)

    async def live(self, request: Request) -> Response:
        """The process runs."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """It can answer. Raises `NotReady`."""
        self._watch.names  # noqa: B018 - raises when there are none
        if self._watch.stores.get("redis") != "ok":
            raise NotReady(f"Redis: {self._watch.stores.get('redis', 'not asked yet')}")
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")


def _measured(path: str, handler: Handler, metrics: Metrics) -> Route:
    """A route to post to, with a deadline, counted and timed under its own path.

    `request.url` is no label: it is made of what the client sends, its Host too.
    """

    async def measured(request: Request) -> Response:
        began, status = time.perf_counter(), HTTPStatus.INTERNAL_SERVER_ERROR.value
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                response = await handler(request)
            status = response.status_code
        except TimeoutError:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            raise NotReady(
                f"no answer within {DEADLINE_SECONDS:g} s: ask for less, or again"
            ) from None
        except ServingError as error:
            status = problems.status_of(error)
            raise
        except HTTPException as refused:
            status = refused.status_code
            raise
        finally:
            metrics.request(path, status, time.perf_counter() - began)
        return response

    return Route(path, measured, methods=["POST"])


async def _body(request: Request) -> bytes:
    """The body, read no further than its limit: a client may lie about its length."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TooLarge(f"a body has at most {MAX_BODY_BYTES} bytes: send several requests")
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the client went away") from None
    return bytes(body)


def _json(content: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
