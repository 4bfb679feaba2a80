"""The alert rules and the dashboard of `compose/monitoring`, by real processes and Prometheus."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.exposition import (
    MONITORING,
    dashboard_queries,
    exposed_metrics,
    named_metrics,
)
from tests.support.load import burst
from tests.support.pipeline import Pipeline, wait_for
from tests.support.servers import program
from tickwell import drift_metrics
from tickwell.embedded.ports import HOST, keep_port

TARGETS = ("server:8001", "worker-online:9100", "worker-offline:9100")
"""What `prometheus.yaml` names, in the order in which `ports` are."""

EVENTS = {"Requests refused by reason B"}
"""The queries of what has not happened on a server without API keys."""

WINDOW = "10s"
"""What Grafana would put in for its interval."""


@pytest.fixture
def ports(running: Pipeline, tmp_path: Path) -> list[int]:
    """A server of two processes and both workers, which have taken ticks and rejected one."""
    ports = [keep_port(tmp_path / f"{number}.port") for number in range(3)]
    server, *workers = map(str, ports)
    running.start_both(*(("--metrics-port", port) for port in workers))
    running.start("server", "serve", "--port", server, "--workers", "2")
    running.produce("price", [*burst(0), (b"S0", b"no tick")])
    running.wait_drained("online", "offline")
    wait_for("the server is ready", lambda: answers(ports[0], "/health/ready"))
    return ports


def answers(port: int, path: str) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}{path}").status_code == 200
    except httpx.TransportError:
        return False


def ask(port: int) -> None:
    asked = {"features": ["current_price"], "entity": {"symbol": "S0"}}
    assert httpx.post(f"http://{HOST}:{port}/features/online", json=asked).status_code == 200


def metrics(port: int) -> str:
    return httpx.get(f"http://{HOST}:{port}/metrics").text


def values(port: int, name: str) -> dict[str, float]:
    """The values of a gauge by its only label."""
    return {
        label: sample.value
        for family in text_string_to_metric_families(metrics(port))
        for sample in family.samples
        if sample.name == name
        for label in sample.labels.values()
    }


@pytest.mark.timeout(240)
def test_every_metric_that_is_named_exists(ports: list[int], tmp_path: Path) -> None:
    ask(ports[0])
    exposed = set().union(*(exposed_metrics(metrics(port)) for port in ports))
    drift_metrics.write(tmp_path / "drift.prom", "set", {})  # the only ones of no process
    exposed |= exposed_metrics((tmp_path / "drift.prom").read_text())
    assert named_metrics() - exposed == set()
    for port in ports[1:]:
        rejected = partial(values, port, "tickwell_worker_rejected_ticks")
        wait_for("a heartbeat has it", lambda: rejected().get("malformed") == 1.0)  # noqa: B023
        newest = values(port, "tickwell_worker_newest_tick_timestamp_seconds")
        assert newest.keys() == {"price"}
        assert 0 <= time.time() - newest["price"] < 120


def test_promtool_accepts_the_rules_and_finds_each_alert_where_it_must() -> None:
    promtool = program("prometheus").with_name("promtool")
    subprocess.run([promtool, "check", "config", MONITORING / "prometheus.yaml"], check=True)
    subprocess.run([promtool, "check", "rules", MONITORING / "alerts.yaml"], check=True)
    subprocess.run([promtool, "test", "rules", MONITORING / "alerts_test.yaml"], check=True)


@contextmanager
def prometheus(directory: Path, ports: list[int]) -> Iterator[httpx.Client]:
    """A Prometheus with the files of `compose/`, which scrapes these ports every second."""
    argv = [str(program("prometheus"))]
    config = (MONITORING / "prometheus.yaml").read_text().replace(": 15s", ": 1s")
    for target, port in zip(TARGETS, ports, strict=True):
        assert target in config
        config = config.replace(target, f"{HOST}:{port}")
    (directory / "prometheus.yaml").write_text(config)
    (directory / "alerts.yaml").write_text((MONITORING / "alerts.yaml").read_text())
    listening = keep_port(directory / "prometheus.port")
    argv += [
        f"--config.file={directory / 'prometheus.yaml'}",
        f"--storage.tsdb.path={directory / 'series'}",
        f"--web.listen-address={HOST}:{listening}",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for("Prometheus is ready", lambda: answers(listening, "/-/ready"))
        with httpx.Client(base_url=f"http://{HOST}:{listening}/api/v1") as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def found(client: httpx.Client, query: str) -> list[Any]:
    """The series of a query, as it is now."""
    answer = client.get("/query", params={"query": query.replace("$__rate_interval", WINDOW)})
    assert answer.status_code == 200, answer.text
    series: list[Any] = answer.json()["data"]["result"]
    return series


@pytest.mark.timeout(300)
def test_a_real_prometheus_has_what_the_dashboard_asks_for(
    running: Pipeline, ports: list[int], tmp_path: Path
) -> None:
    """And no alert fires while all is well; a worker that is gone is seen at once."""
    with prometheus(tmp_path, ports) as client:

        def without() -> set[str]:
            """The queries that find nothing."""
            ask(ports[0])
            queries = dashboard_queries().items()
            empty = {title for title, query in queries if not found(client, query)}
            print("nothing is found by", sorted(empty - EVENTS))
            return empty

        wait_for("all targets are up", lambda: len(found(client, "up == 1")) == len(TARGETS))
        wait_for("every panel shows something", lambda: without() <= EVENTS)
        groups = client.get("/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert {rule["name"]: rule.get("lastError", "") for rule in rules} == dict.fromkeys(
            (rule["name"] for rule in rules), ""
        )
        assert found(client, 'ALERTS{alertstate="firing"}') == []
        running.kill("offline-one")
        query = 'ALERTS{alertname=~"TickwellTargetDown|TickwellNoWorker"}'
        wait_for("the worker is missed", lambda: len(found(client, query)) == 2)
