"""What is counted of the counting of reads, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.usage import Usage


def usage_families(usage: Usage) -> Callable[[], Iterator[Metric]]:
    """Makes the metrics of a process."""

    def families() -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "tickwell_usage_waiting", "Reads that were counted and are not known to be stored"
        )
        waiting.add_metric([], usage.waiting)
        dropped = CounterMetricFamily(
            "tickwell_usage_dropped", "Reads that are in no count, as too many counts waited"
        )
        dropped.add_metric([], usage.dropped)
        failures = CounterMetricFamily(
            "tickwell_usage_failures", "Attempts to store counts of reads that failed"
        )
        failures.add_metric([], usage.failures)
        yield from (waiting, dropped, failures)

    return families
