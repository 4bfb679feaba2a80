"""What the server counts, and what it has heard of the workers, for Prometheus."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.features.reader import Answer
from serving.watch.watch import Watch


class Metrics:
    """The metrics of one server process."""

    def __init__(self, watch: Watch) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "tickwell_requests", "Requests", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "tickwell_request_seconds",
            "Time to answer",
            ["route"],
            registry=self._registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
        )
        self._values = Counter(
            "tickwell_values", "Served values", ["status"], registry=self._registry
        )
        self._keys = Histogram(
            "tickwell_read_keys",
            "Keys of a coalesced read",
            registry=self._registry,
            buckets=(1, 2, 5, 10, 50, 100, 500, 1000, 5000),
        )
        self._registry.register(_Workers(watch))

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answers(self, answers: list[Answer]) -> None:
        statuses = Count(value.status for answer in answers for value in answer.features.values())
        for status, count in statuses.items():
            self._values.labels(status).inc(count)

    def read(self, keys: int) -> None:
        self._keys.observe(keys)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Workers(Collector):
    """The last heartbeats, as gauges."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        def gauge(name: str, text: str, labels: list[str]) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, text, labels=labels)

        worker = ["sink", "instance"]
        lag = gauge("tickwell_worker_lag_messages", "Behind", [*worker, "topic", "partition"])
        behind = gauge("tickwell_worker_behind_seconds", "Behind", [*worker, "topic", "partition"])
        rows = gauge("tickwell_worker_rows", "Rows stored by the process", worker)
        retrying = gauge("tickwell_worker_retrying", "1 while its store refuses", worker)
        rejected = gauge(
            "tickwell_worker_rejected_ticks", "Rejected by the process", [*worker, "reason"]
        )
        for beat in self._watch.heartbeats:
            name = [beat.sink, beat.instance]
            rows.add_metric(name, beat.rows)
            retrying.add_metric(name, beat.state == "retrying")
            for reason, count in beat.rejected.items():
                rejected.add_metric([*name, reason], count)
            for part in beat.lag:
                place = [*name, part.topic, str(part.partition)]
                lag.add_metric(place, part.lag)
                behind.add_metric(place, part.behind_seconds)
        yield from (lag, behind, rows, retrying, rejected)
