"""The HTTP routes that say how the server is; `feature_routes` has those that answer features."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.formats.status import Status
from serving.errors import NotReady
from serving.metrics import Metrics
from serving.process import ThisProcess
from serving.stores.breakers import Breakers
from serving.watch.api_keys import ApiKeysWatch
from serving.watch.catalog import CatalogWatch
from serving.watch.hot_tier import HotTier
from serving.watch.workers import Sink, WorkersWatch

SINKS: tuple[Sink, ...] = ("online", "offline")


@dataclass(frozen=True, slots=True)
class Server:
    """What the routes answer from."""

    catalog: CatalogWatch
    workers: WorkersWatch
    metrics: Metrics
    process: ThisProcess
    breakers: Breakers = tuple
    keys: ApiKeysWatch | None = None
    """None where requests need no API key."""
    hot: HotTier | None = None
    """The hot tier, where rows are read from one."""

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/health", self.health),
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/metrics", self.exposition),
        ]

    async def health(self, request: Request) -> Response:
        """The state of stores and workers; 503 when no value can be served.

        Of several processes rows and connections are those of all, breakers those of this one.
        """
        stores = {**self.workers.stores, **self.catalog.stores}
        serving = self.catalog.ready and self._is_readable()
        workers = {
            sink: [msgspec.to_builtins(beat) for beat in self.workers.alive(sink)] for sink in SINKS
        }
        well = serving and all(
            beats and all(beat["state"] == "running" for beat in beats)
            for beats in workers.values()
        )
        strangers, warnings = self.workers.told("strangers"), self.workers.told("warnings")
        different = self.workers.different()
        well = well and all(state == "ok" for state in stores.values())
        well = well and not strangers and not different
        well = well and not any(breaker.is_open for breaker in self.breakers())
        status = "ok" if well else "degraded" if serving else Status.UNAVAILABLE
        total = self.metrics.totals()
        found = {
            "status": status,
            "stores": stores,
            "tiers": {} if self.hot is None else self.hot.told(total),
            "breakers": {breaker.store: breaker.told() for breaker in self.breakers()},
            "workers": workers,
            "strangers": strangers,
            "warnings": warnings,
            "differences": different,
            "processes": self.metrics.processes(),
            "connections": int(total("tickwell_connections")),
        }
        return _json(found, HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE)

    async def live(self, request: Request) -> Response:
        """The process runs."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """The server can answer. Raises `NotReady`."""
        self.check_ready()
        return _json({"status": "ok"})

    def check_ready(self) -> None:
        """Raises `NotReady` where the server cannot answer, or is about to stop."""
        if self.process.stopping:
            raise NotReady("this server is about to stop: ask another one")
        self.catalog.names  # noqa: B018 - raises when there are none
        if not self._is_readable():
            redis = self.workers.stores.get("redis", "not asked yet")
            postgres = self.catalog.stores.get("postgres", "not asked yet")
            raise NotReady(
                f"no store has answered. Redis: {redis}. Postgres: {postgres}. Ask again"
            )
        if self.keys is not None:
            self.keys.keyring  # noqa: B018 - raises when none was read

    def _is_readable(self) -> bool:
        """Whether a store answers that has rows."""
        return "redis" in self.workers.answering or self.catalog.stores.get("postgres") == "ok"

    async def exposition(self, request: Request) -> Response:
        """The metrics in Prometheus' text format."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")


def _json(content: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
