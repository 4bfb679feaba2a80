"""The last heartbeat of a worker as Prometheus metrics, and what its process takes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from pipelines.ticks.rejection_reasons import REASONS
from registry.formats.heartbeat import Heartbeat
from registry.heartbeat_metrics import heartbeat_families


class Metrics(Collector):
    """Served on `port` of `host`. Raises OSError when the port is in use."""

    def __init__(self, host: str, port: int) -> None:
        self._heartbeat = Heartbeat("", "", pid=0, at=0.0, state="starting", since=0.0)
        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        start_http_server(port, host, registry)

    def show(self, heartbeat: Heartbeat) -> None:
        """Show a heartbeat in place of the one before."""
        self._heartbeat = heartbeat

    def collect(self) -> Iterator[Metric]:
        """What is shown.

        A reason for which nothing was rejected yet is shown as 0: a rate is seen only of a series
        that was there before.
        """
        beat = self._heartbeat
        rejected = dict.fromkeys(REASONS, 0) | beat.rejected
        return heartbeat_families([msgspec.structs.replace(beat, rejected=rejected)])
