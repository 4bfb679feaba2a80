"""Metrics of drift in a file, for the textfile collector of Prometheus' node exporter.

A comparison is made now and then, by a timer, and by no process that could be asked. The collector
shows what the file says until the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from serving.history.drift import FeatureDrift

LABELS = ("training_set", "feature", "version")


def write(path: Path, name: str, found: Mapping[str, FeatureDrift]) -> None:
    """Write the metrics of a comparison with the training set `name`. Raises OSError."""
    registry = CollectorRegistry()

    def gauge(metric: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"tickwell_drift_{metric}", text, (*LABELS, *labels), registry=registry)

    index = gauge("index", "Population stability index of values now and of training")
    drifted = gauge("drifted", "1 where values or statuses are others than in training")
    values = gauge("values", "Independent values that were compared", "side")
    shares = gauge("status_share", "Share of rows with a status", "status", "side")
    compared = Gauge(
        "tickwell_drift_compared_timestamp_seconds",
        "When it was compared",
        LABELS[:1],
        registry=registry,
    )
    compared.labels(name).set_to_current_time()
    for feature, one in found.items():
        of = name, feature, one.version.partition("@")[2]
        if one.index is not None:
            index.labels(*of).set(one.index)
        drifted.labels(*of).set(one.has_drifted)
        values.labels(*of, "training").set(one.training)
        values.labels(*of, "now").set(one.now)
        for status, share in one.shares.items():
            shares.labels(*of, status, "training").set(share.training)
            shares.labels(*of, status, "now").set(share.now)
    write_to_textfile(str(path), registry)
