"""What is in hand, of requests and of answers, and what was too much, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.api.admission import Admission
from serving.api.unread import Unread


def admission_families(admission: Admission, unread: Unread) -> Callable[[], Iterator[Metric]]:
    """Makes the metrics of a process's bounds of requests and answers."""

    def families() -> Iterator[Metric]:
        in_hand = _by_stage(
            "tickwell_requests_in_hand",
            "Requests of features that are answered, or whose bodies are awaited",
            *(admission.answering, admission.receiving),
        )
        bodies = _by_stage(
            "tickwell_bodies_in_hand_bytes",
            "Bytes of the bodies of requests in hand",
            *(admission.answering_bytes, admission.receiving_bytes),
        )
        overloaded = CounterMetricFamily(
            "tickwell_requests_overloaded", "Requests that were refused as too many at once"
        )
        overloaded.add_metric([], float(admission.refused))
        waiting = GaugeMetricFamily(
            "tickwell_unread_answers_bytes", "Bytes of answers that clients have not read"
        )
        waiting.add_metric([], float(unread.bytes))
        hung_up = CounterMetricFamily(
            "tickwell_unread_hung_up", "Connections that were closed as too much was not read"
        )
        hung_up.add_metric([], float(unread.hung_up))
        yield from (in_hand, bodies, overloaded, waiting, hung_up)

    return families


def _by_stage(name: str, text: str, answering: int, receiving: int) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text, labels=["stage"])
    gauge.add_metric(["answering"], float(answering))
    gauge.add_metric(["receiving"], float(receiving))
    return gauge
