"""Heartbeats as Prometheus metrics, for workers and servers: what both show has one name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from registry.formats.heartbeat import Heartbeat

OF_WORKER = {
    "tickwell_worker_rows": "Rows stored by the process",
    "tickwell_worker_running": "1 while ticks are read and stored",
    "tickwell_worker_retrying": "1 while its store refuses",
    "tickwell_worker_heartbeat_timestamp_seconds": "When it last spoke, by its own clock",
    "tickwell_worker_passed_over": "Messages and elements of other kinds that it passed over",
}
OF_PARTITION = {
    "tickwell_worker_lag_messages": "Messages behind",
    "tickwell_worker_behind_seconds": "All that was in the log so long ago is stored",
    "tickwell_worker_unseen_seconds": "How long ago the broker last gave the log's end",
}
OF_VERIFIED = {
    "tickwell_verify_values": "Values that the process has compared beside its work",
    "tickwell_verify_unverifiable": "Values of which it could not say what they should be",
    "tickwell_verify_differences": "Differences on record, which nobody has seen to yet",
}


def heartbeat_families(
    heartbeats: Iterable[Heartbeat], named_by: Sequence[str] = ()
) -> Iterator[Metric]:
    """Gauges of what heartbeats say; `named_by` are the attributes that tell workers apart.

    The time of a source's newest tick is that of the newest row which the process has stored, and
    is not there before its first. A source that sends nothing is seen by it alone: of the log, all
    is stored.
    """
    workers = _gauges(OF_WORKER, named_by)
    partitions = _gauges(OF_PARTITION, [*named_by, "topic", "partition"])
    rejected = GaugeMetricFamily(
        "tickwell_worker_rejected_ticks",
        "Ticks rejected by the process",
        labels=[*named_by, "reason"],
    )
    newest = GaugeMetricFamily(
        "tickwell_worker_newest_tick_timestamp_seconds",
        "The event time of the newest tick that the process has stored",
        labels=[*named_by, "source"],
    )
    verified = _gauges(OF_VERIFIED, [*named_by, "part", "source"])
    looked = GaugeMetricFamily(
        "tickwell_verify_last_timestamp_seconds",
        "When it looked last, by its own clock",
        labels=[*named_by, "part", "source"],
    )
    took = GaugeMetricFamily(
        "tickwell_verify_seconds", "Seconds that it has looked", labels=named_by
    )
    for beat in heartbeats:
        name = [getattr(beat, attribute) for attribute in named_by]
        running, retrying = (float(beat.state == state) for state in ("running", "retrying"))
        said = (float(beat.rows), running, retrying, beat.at, float(beat.passed_over))
        for gauge, value in zip(workers, said, strict=True):
            gauge.add_metric(name, value)
        for lag in beat.lag:
            of = [*name, lag.topic, str(lag.partition)]
            times = (float(lag.lag), lag.behind_seconds, lag.unseen_seconds)
            for gauge, value in zip(partitions, times, strict=True):
                gauge.add_metric(of, value)
        for reason, count in beat.rejected.items():
            rejected.add_metric([*name, reason], count)
        for source, nanoseconds in beat.newest.items():
            newest.add_metric([*name, source], nanoseconds / 10**9)
        if beat.verified.places:
            took.add_metric(name, beat.verified.seconds)
        for place in beat.verified.places:
            of = [*name, place.place, place.source]
            counts = (place.values, place.unverifiable, place.differences)
            for gauge, value in zip(verified, counts, strict=True):
                gauge.add_metric(of, float(value))
            if place.at is not None:
                looked.add_metric(of, place.at)
    yield from (*workers, *partitions, rejected, newest, *verified, looked, took)


def _gauges(texts: dict[str, str], labels: Sequence[str]) -> list[GaugeMetricFamily]:
    return [GaugeMetricFamily(name, text, labels=labels) for name, text in texts.items()]
