"""The HTTP routes: bytes to requests, answers to bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from registry.formats.status import Status
from serving.api.problems import status_of
from serving.api.requests import MAX_BODY_BYTES, BatchRequest, OnlineRequest, parse
from serving.errors import NotReady, ServingError, TooLarge
from serving.features.lookup import Names
from serving.features.reader import Answer, Reader
from serving.features.values import Moment
from serving.metrics import Metrics
from serving.watch.catalog import CatalogWatch
from serving.watch.workers import WorkersWatch

DEADLINE_SECONDS = 5.0
"""Time for a whole request, in seconds: one for the store, the rest for a slow client."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Server:
    """What the routes answer from."""

    reader: Reader
    catalog: CatalogWatch
    workers: WorkersWatch
    metrics: Metrics

    def routes(self) -> list[Route]:
        """Every route of the server."""
        return [
            _measured("/features/online", self.online, self.metrics),
            _measured("/features/batch", self.batch, self.metrics),
            Route("/health", self.health),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/metrics", self.exposition),
        ]

    async def online(self, request: Request) -> Response:
        """Features of one entity."""
        wanted = parse(await _body(request), OnlineRequest)
        (answer,) = await self._answers(wanted.features, [wanted.key()])
        return _json(answer)

    async def batch(self, request: Request) -> Response:
        """The same features of several entities."""
        wanted = parse(await _body(request), BatchRequest)
        return _json({"results": await self._answers(wanted.features, wanted.entities)})

    async def health(self, request: Request) -> Response:
        """The state of stores and workers; 503 when no value can be served."""
        stores = {**self.workers.stores, **self.catalog.stores}
        serving = self.catalog.ready and "redis" in self.workers.answering
        workers = {
            sink: [msgspec.to_builtins(beat) for beat in self.workers.alive(sink)]
            for sink in ("online", "offline")
        }
        well = serving and all(
            beats and all(beat["state"] == "running" for beat in beats)
            for beats in workers.values()
        )
        strangers, warnings = self.workers.told("strangers"), self.workers.told("warnings")
        well = well and all(state == "ok" for state in stores.values()) and not strangers
        status = "ok" if well else "degraded" if serving else Status.UNAVAILABLE
        found = {
            "status": status,
            "stores": stores,
            "workers": workers,
            "strangers": strangers,
            "warnings": warnings,
        }
        return _json(found, HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE)

    async def live(self, request: Request) -> Response:
        """The process runs."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """The server can answer. Raises `NotReady`."""
        self.catalog.names  # noqa: B018 - raises when there are none
        if "redis" not in self.workers.answering:
            raise NotReady(f"Redis: {self.workers.stores.get('redis', 'not asked yet')}")
        return _json({"status": "ok"})

    async def exposition(self, request: Request) -> Response:
        """The metrics in Prometheus' text format."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _answers(self, features: list[str], entities: list[dict[str, str]]) -> list[Answer]:
        names = self.catalog.names
        answers = await self.reader.answer(names, features, entities, self._moment(names))
        self.metrics.answers(answers)
        return answers

    def _moment(self, names: Names) -> Moment:
        """Now. Lag is decided once of each source, so that no answer contradicts itself."""
        sources, workers = names.catalog.sources, self.workers
        return Moment(time.time_ns(), cache(lambda source: workers.lagging(sources[source].topic)))


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
            status = status_of(error)
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
