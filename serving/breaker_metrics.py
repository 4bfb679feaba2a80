"""What circuit breakers have counted, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.stores.breakers import Breakers, State


def breaker_families(breakers: Breakers) -> Callable[[], Iterator[Metric]]:
    """Makes the metrics of the breakers of all stores."""

    def families() -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "tickwell_breaker_state",
            "1 for the state that the breaker of a store is in",
            labels=["store", "state"],
        )
        opened = CounterMetricFamily(
            "tickwell_breaker_opened", "How often it has opened", labels=["store"]
        )
        for breaker in breakers():
            opened.add_metric([breaker.store], breaker.times_opened)
            for state in State:
                states.add_metric([breaker.store, state], float(breaker.state is state))
        yield from (states, opened)

    return families
