"""The application: stores, background readings and routes, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from serving.admission_metrics import admission_families
from serving.api import problems
from serving.api.access import access
from serving.api.admission import Admission
from serving.api.answering import Answering, Records
from serving.api.authentication import KeyCheck
from serving.api.catalog_routes import CatalogRoutes
from serving.api.compressing import Compressing
from serving.api.connections import Connection
from serving.api.consumers import by_header, by_key
from serving.api.deadlines import Deadlines
from serving.api.direct import BATCH, ONE, Direct, DirectRoute
from serving.api.direct_exchange import DIRECT
from serving.api.documentation import Documentation
from serving.api.explain_route import CONNECTIONS as EXPLANATIONS
from serving.api.explain_route import SECONDS as EXPLAIN_SECONDS
from serving.api.explain_route import ExplainRoute
from serving.api.feature_routes import ShortCut, feast_route, feature_routes
from serving.api.known_answers import Known
from serving.api.lifecycle_routes import LifecycleRoutes
from serving.api.offline_process import OfflineProcess, offline_route
from serving.api.routes import Server
from serving.api.search_route import CONNECTIONS as SEARCHES
from serving.api.search_route import SearchRoute
from serving.api.usage_routes import UsageRoutes
from serving.features.reader import Reader
from serving.health_metrics import health_families
from serving.metrics import Metrics
from serving.process import ThisProcess
from serving.process_metrics import process_families
from serving.served_log import ServedLog
from serving.served_log_metrics import served_log_families
from serving.stores.postgres_reads import PostgresReads
from serving.stores.registry_calls import RegistryCalls
from serving.tiers import Tiers
from serving.usage import Usage
from serving.usage_metrics import usage_families
from serving.watch.api_keys import ApiKeysWatch
from serving.watch.catalog import LOOK_SECONDS, CatalogWatch
from serving.watch.refreshing import refreshing
from serving.watch.usage_store import UsageStore
from serving.watch.workers import WorkersWatch


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The URLs of the stores; without `redis_hot` no hot tier is watched.

    With `cluster` the Redis at `redis` is a Redis Cluster. With `compress` large answers are
    compressed for clients that accept it. A request is answered within `deadline_ms` milliseconds
    unless its client says otherwise, and `requests_in_flight` at once.
    """

    redis: str = field(repr=False)
    redis_hot: str = field(repr=False)
    postgres: str = field(repr=False)
    cluster: bool = False
    compress: bool = False
    needs_keys: bool = False
    """Whether a request needs an API key."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may ask; "*" for all."""
    hot: bool = True
    """Whether rows are read from the hot tier, where there is one."""
    most_read: Path | None = None
    """A directory in which servers keep what is read most, to fill the hot tier at their start."""
    deadline_ms: int = 6_000
    requests_in_flight: int = 2_000
    served_log: Path | None = None
    """A directory in which servers log what they serve; without one nothing is logged."""
    served_log_every: int = 1_000
    """Requests of which about one is logged; of 0 none."""
    lake: Path | None = None
    """The folder of the lake; without one, history is read in Postgres alone."""
    rejected_topic: str | None = None
    """The topic of rejected ticks, which no source may read."""


def create_app(
    options: ServerOptions,
    workers: WorkersWatch | None = None,
    process: ThisProcess | None = None,
) -> Starlette:
    """The application; it connects when it starts and can start before its stores.

    `workers` decides what is lagging; by default it reads the heartbeats in both tiers. `process`
    is the one that the application runs in. `app.state.server` is the `Server`.
    """
    process = process or ThisProcess()
    if workers is None:
        tiers = {"redis": options.redis, "redis_hot": options.redis_hot}
        workers = WorkersWatch(
            {tier: url for tier, url in tiers.items() if url},
            cluster=options.redis if options.cluster else None,
        )
    watched = options.postgres, options.redis, options.cluster
    catalog = CatalogWatch(*watched)
    keys = ApiKeysWatch(*watched) if options.needs_keys else None
    metrics = Metrics(lambda: workers.heartbeats, process.siblings, process.connections)
    hot = options.redis_hot if options.hot else ""
    stores = Tiers(options.redis, options.postgres, hot, catalog, metrics, options.cluster)
    reader, served = Reader(stores.store), metrics.served
    log, usage = ServedLog(options.served_log, options.served_log_every), Usage()
    metrics.add(served_log_families(log))
    metrics.add(usage_families(usage))
    usage_store = UsageStore(usage, options.postgres)
    records = Records(log, usage)
    answering = Answering(reader, stores.named, catalog, workers, served, stores.breakers, records)
    bounds = Admission(options.requests_in_flight), Deadlines(options.deadline_ms)
    metrics.add(admission_families(bounds[0], Connection.unread))
    metrics.add(process_families)
    consumer_of = (by_key if options.needs_keys else by_header)(usage.consumers)
    how = metrics, bounds, options.compress, consumer_of
    features = [*feature_routes(answering, *how), feast_route(answering, *how)]
    past = OfflineProcess(options.postgres, options.lake)
    features.append(offline_route(past, *how))
    checked = None if keys is None else KeyCheck(keys)
    ways: dict[str, Known] = {ONE: answering.known, BATCH: answering.known_batches}
    direct = [
        DirectRoute(
            path, known, stores.heard, metrics, bounds, consumer_of, (checked, options.compress)
        )
        for path, known in ways.items()
        if stores.heard is not None
    ]
    registry = RegistryCalls(options.postgres, options.rejected_topic, lambda: workers.heartbeats)
    known = CatalogRoutes(catalog)
    lifecycle = LifecycleRoutes(catalog, registry, takes_changes=options.needs_keys)
    search = SearchRoute(PostgresReads(options.postgres, SEARCHES), bounds)
    ticks = PostgresReads(options.postgres, EXPLANATIONS, EXPLAIN_SECONDS)
    explain = ExplainRoute(catalog, ticks, bounds)
    server = Server(catalog, workers, metrics, process, stores.breakers, keys, stores.hot)
    metrics.see(health_families(server))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            async with (
                refreshing(catalog.refresh, pause=LOOK_SECONDS),
                refreshing(workers.refresh),
                nullcontext() if keys is None else keys.watching(),
                stores.kept(options.most_read),
                usage_store.storing(),
            ):
                yield
        finally:
            await workers.close()
            await catalog.close()
            await search.close()
            await explain.close()
            await stores.close()
            await registry.close()
            await past.close()
            await asyncio.to_thread(log.close)

    app = Starlette(
        routes=[
            *(Route(feature.path, feature, methods=["POST"]) for feature in features),
            *known.routes(),
            *lifecycle.routes(metrics, bounds, known.versions),
            *UsageRoutes(catalog, usage_store).routes(),
            *search.routes(),
            *explain.routes(),
            *Documentation().routes(),
            *server.routes(),
        ],
        middleware=[
            *access(keys, metrics, options.cors_origins),
            Middleware(ShortCut, routes=features),
            *([Middleware(Compressing)] if options.compress else []),
        ],
        lifespan=lifespan,
        exception_handlers=dict(problems.HANDLERS),
    )
    app.state.server = server
    setattr(app.state, DIRECT, Direct(direct))
    app.router.redirect_slashes = False  # a redirect loses what a client has posted
    return app
