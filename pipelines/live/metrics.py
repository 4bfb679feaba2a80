"""The last heartbeat of a worker as Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from registry.formats.heartbeat import Heartbeat


class Metrics:
    """Served on `port` of `host`. Raises OSError when the port is in use."""

    def __init__(self, host: str, port: int) -> None:
        registry = CollectorRegistry()
        self._rows = Gauge("tickwell_worker_rows", "Rows stored", registry=registry)
        self._retrying = Gauge(
            "tickwell_worker_retrying", "1 while the store refuses", registry=registry
        )
        self._running = Gauge(
            "tickwell_worker_running", "1 while ticks are read and stored", registry=registry
        )
        self._heartbeat = Gauge(
            "tickwell_worker_heartbeat_timestamp_seconds",
            "When the worker last spoke",
            registry=registry,
        )
        self._lag = Gauge(
            "tickwell_worker_lag_messages",
            "Messages behind",
            ["topic", "partition"],
            registry=registry,
        )
        self._rejected = Gauge(
            "tickwell_worker_rejected_ticks", "Rejected ticks", ["reason"], registry=registry
        )
        self._passed_over = Gauge(
            "tickwell_worker_passed_over",
            "Messages and elements of other kinds than the sources'",
            registry=registry,
        )
        start_http_server(port, host, registry)

    def show(self, heartbeat: Heartbeat) -> None:
        """Show a heartbeat; partitions that this worker no longer reads are removed."""
        self._rows.set(heartbeat.rows)
        self._running.set(heartbeat.state == "running")
        self._heartbeat.set(heartbeat.at)
        self._retrying.set(heartbeat.state == "retrying")
        self._passed_over.set(heartbeat.passed_over)
        self._lag.clear()
        for partition in heartbeat.lag:
            self._lag.labels(partition.topic, partition.partition).set(partition.lag)
        for reason, count in heartbeat.rejected.items():
            self._rejected.labels(reason).set(count)
