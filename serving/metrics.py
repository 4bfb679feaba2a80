"""Metrics for Prometheus: what the server counts, and the heartbeats of the workers as gauges."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from registry.formats.heartbeat import Heartbeat
from serving.features.reader import Answer

Heartbeats = Callable[[], Iterable[Heartbeat]]


class Metrics:
    """The metrics of one server process; the gauges of workers show what `heartbeats` returns."""

    def __init__(self, heartbeats: Heartbeats) -> None:
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
        self._registry.register(_Workers(heartbeats))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request and its time, in seconds."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answers(self, answers: Iterable[Answer]) -> None:
        """Counts served values by status."""
        statuses = Count(value.status for answer in answers for value in answer.features.values())
        for status, count in statuses.items():
            self._values.labels(status).inc(count)

    def read(self, keys: int) -> None:
        """Notes how many keys one read of the store has."""
        self._keys.observe(keys)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Workers(Collector):
    """The latest heartbeats, as gauges."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        self._heartbeats = heartbeats

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
        passed_over = gauge(
            "tickwell_worker_passed_over", "Messages of other kinds that it passed over", worker
        )
        for beat in self._heartbeats():
            name = [beat.sink, beat.instance]
            rows.add_metric(name, beat.rows)
            retrying.add_metric(name, beat.state == "retrying")
            passed_over.add_metric(name, beat.passed_over)
            for reason, count in beat.rejected.items():
                rejected.add_metric([*name, reason], count)
            for partition in beat.lag:
                labels = [*name, partition.topic, str(partition.partition)]
                lag.add_metric(labels, partition.lag)
                behind.add_metric(labels, partition.behind_seconds)
        yield from (lag, behind, rows, retrying, rejected, passed_over)
