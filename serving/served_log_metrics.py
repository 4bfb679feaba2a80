"""What is counted of the log of served values, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from serving.served_log import ServedLog


def served_log_families(log: ServedLog) -> Callable[[], Iterator[Metric]]:
    """Makes the metrics of a log."""

    def families() -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "tickwell_served_log_requests", "Requests of which the values were to be logged"
        )
        requests.add_metric([], log.requests)
        dropped = CounterMetricFamily(
            "tickwell_served_log_dropped", "Those of them that are not in the log"
        )
        dropped.add_metric([], log.dropped)
        yield from (requests, dropped)

    return families
