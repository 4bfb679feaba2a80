"""Metrics for Prometheus: what the server counts, and the heartbeats of the workers as gauges."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from registry.formats.heartbeat import Heartbeat
from registry.heartbeat_metrics import heartbeat_families
from serving.metric_sums import Family, Sample, Siblings

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
ROWS = (1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0)

Heartbeats = Callable[[], Iterable[Heartbeat]]

Families = Callable[[], Iterator[Metric]]
"""Makes metrics of what was counted."""


class Totals:
    """What samples of one moment add up to."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._samples = [sample for metric in metrics for sample in metric.samples]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples `name` that have all of these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


class Metrics:
    """The metrics of a server; the gauges of workers show what `heartbeats` returns.

    With `siblings` the server is several processes, and what they have counted is added up. Counts
    are plain integers of the one thread that serves, and become metrics when they are scraped: a
    counter with a lock and labels costs a request as much as its answer does.
    """

    def __init__(
        self,
        heartbeats: Heartbeats,
        siblings: Siblings | None = None,
        connections: Callable[[], int] = lambda: 0,
    ) -> None:
        self.served: Count[str] = Count()
        """Served values by status."""
        self.refused: Count[str] = Count()
        """Requests that were not let pass, by what was wrong with their API key."""
        self._siblings = siblings
        self._connections = connections
        self._requests: Count[tuple[str, int]] = Count()
        self._seconds: dict[str, _Histogram] = {}
        self._rows = _Histogram(ROWS)
        self._more: list[Families] = []
        self._registry = CollectorRegistry()
        self.see(self._of_all)
        self.see(lambda: heartbeat_families(heartbeats(), ("sink", "instance")))

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request and its time, in seconds."""
        self._requests[route, status] += 1
        timed = self._seconds.get(route)
        if timed is None:
            timed = self._seconds[route] = _Histogram(SECONDS)
        timed.observe(seconds)

    def read(self, rows: int) -> None:
        """Notes how many rows one read of the store has."""
        self._rows.observe(rows)

    def add(self, families: Families) -> None:
        """Shows what else is counted."""
        self._more.append(families)

    def see(self, families: Families) -> None:
        """Shows what this process sees, and the others of the server see for themselves."""
        self._registry.register(_Families(families))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def total(self, name: str, **labels: str) -> float:
        """What the samples `name` that have all of these labels add up to, over all processes."""
        return self.totals()(name, **labels)

    def totals(self) -> Totals:
        """The same of several names, of one moment."""
        return Totals(self._of_all())

    def processes(self) -> int:
        """How many processes the server has."""
        return 1 if self._siblings is None else self._siblings.alive()

    def publish(self) -> None:
        """Show the other processes of the server what this one has counted."""
        if self._siblings is not None:
            self._siblings.publish([_family(metric) for metric in self._families()])

    def _of_all(self) -> Iterator[Metric]:
        """What all processes have counted. Of this one it is published first.

        Else another process, asked later, could show less.
        """
        if self._siblings is None:
            return self._families()
        self.publish()
        return map(_metric, self._siblings.families())

    def _families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("tickwell_requests", "Requests", labels=["route", "status"])
        for (route, status), count in self._requests.items():
            requests.add_metric([route, str(status)], count)
        seconds = HistogramMetricFamily(
            "tickwell_request_seconds", "Time to answer", labels=["route"]
        )
        for route, timed in self._seconds.items():
            seconds.add_metric([route], timed.buckets(), timed.total)
        values = CounterMetricFamily("tickwell_values", "Served values", labels=["status"])
        for value_status, count in self.served.items():
            values.add_metric([value_status], count)
        rows = HistogramMetricFamily("tickwell_read_keys", "Keys of a coalesced read", labels=())
        rows.add_metric([], self._rows.buckets(), self._rows.total)
        refused = CounterMetricFamily(
            "tickwell_requests_refused", "Requests without a right API key", labels=["reason"]
        )
        for reason, count in self.refused.items():
            refused.add_metric([reason], count)
        connections = GaugeMetricFamily("tickwell_connections", "Open connections of clients")
        connections.add_metric([], self._connections())
        yield from (requests, seconds, values, rows, refused, connections)
        for families in self._more:
            yield from families()


def _family(metric: Metric) -> Family:
    # A page takes no truth value for a number: other processes could not read it.
    samples = [Sample(sample.name, sample.labels, float(sample.value)) for sample in metric.samples]
    return Family(metric.name, metric.documentation, metric.type, samples)


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.text, family.kind)
    for sample in family.samples:
        metric.add_sample(sample.name, sample.labels, sample.value)
    return metric


class _Histogram:
    """How many observations were at most each of `bounds`, and what they add up to."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Adds an observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound as text, and how many observations were at most that."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class _Families(Collector):
    """What `families` makes, each time that it is asked."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return self._families()
