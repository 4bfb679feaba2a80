"""What `GET /health` says, as metrics for alerts.

Each process of a server sees it for itself, and shows what it sees: it is not added up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from serving.api.routes import SINKS, Server
from serving.errors import NotReady


def health_families(server: Server) -> Callable[[], Iterator[Metric]]:
    """Makes the metrics of what a server sees of stores, workers and sources.

    A source is lagging by the same decision that makes a value `lagging`. It holds for quiet
    markets, and for partitions that nobody reads, of which workers cannot tell.
    """

    def families() -> Iterator[Metric]:
        yield _gauge("tickwell_ready", "1 while the server can answer", _is_ready(server))
        yield _stores(server)
        yield from _workers(server)
        yield _sources(server)

    return families


def _is_ready(server: Server) -> bool:
    try:
        server.check_ready()
    except NotReady:
        return False
    return True


def _stores(server: Server) -> Metric:
    up = GaugeMetricFamily("tickwell_store_up", "1 while a store answers", labels=["store"])
    for store, state in {**server.workers.stores, **server.catalog.stores}.items():
        up.add_metric([store], float(state == "ok"))
    return up


def _workers(server: Server) -> Iterator[Metric]:
    alive = GaugeMetricFamily(
        "tickwell_workers_alive", "Workers with a recent heartbeat", labels=["sink"]
    )
    for sink in SINKS:
        alive.add_metric([sink], len(server.workers.alive(sink)))
    yield alive
    warnings, strangers = server.workers.told("warnings"), server.workers.told("strangers")
    yield _gauge("tickwell_warnings", "Settings of the broker that lose ticks", len(warnings))
    yield _gauge("tickwell_strangers", "Clients that hold partitions of workers", len(strangers))


def _sources(server: Server) -> Metric:
    lagging = GaugeMetricFamily(
        "tickwell_source_lagging",
        "1 while a store lacks ticks of a source, or nobody knows",
        labels=["sink", "source"],
    )
    if server.catalog.ready:
        lag, now = server.workers.lag, time.time()
        for name, source in server.catalog.names.catalog.sources.items():
            for sink in SINKS:
                late = now > lag.on_time_until(source.topic, sink)
                lagging.add_metric([sink, name], float(late))
    return lagging


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
