"""A store that is unavailable: only its group waits, says so, and nothing is lost."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.database import migrations
from registry.database.engine import connect
from registry.formats.heartbeat import Heartbeat
from registry.formats.redis_keys import worker_key
from tests.support.checks import assert_no_difference
from tests.support.load import burst
from tests.support.pipeline import PATIENCE, Pipeline, pipeline, wait_for
from tests.support.served import health
from tests.support.services import kill
from tickwell.embedded.ports import keep_port
from tickwell.up.process import Process

SINKS = ("online", "offline")
COMMIT_SECONDS = 1.5
"""Within so many a worker has committed what it has acked."""


@pytest.mark.timeout(300)
def test_each_store_in_turn(
    services: dict[str, tuple[Process, str]], tmp_path: Path, kafka: str, hot_redis: str
) -> None:
    urls = {name: url for name, (_, url) in services.items()}
    engine = connect(urls["postgres"])
    migrations.upgrade(engine)
    engine.dispose()
    with pipeline(tmp_path, kafka, urls["redis"], hot_redis, urls["postgres"]) as running:
        port, *own = (keep_port(tmp_path / name) for name in ("port", *SINKS))
        for sink, metrics in zip(SINKS, own, strict=True):
            running.start_worker(sink, "one", "--metrics-port", str(metrics))
        running.start("server", "serve", "--port", str(port))
        running.produce("price", burst(0))
        running.wait_drained(*SINKS)
        for number, (name, waits, goes_on) in enumerate(
            [("postgres", "offline", "online"), ("redis", "online", "offline")], 1
        ):
            process, _ = services[name]
            logged = time.monotonic() + 1.1  # Redis writes its log every second
            wait_for("both have committed", lambda: all_is_committed(running, *SINKS))
            before = running.committed(waits)
            sleep_until(logged)
            kill(process)
            running.produce("price", burst(number))
            running.wait_drained(goes_on)
            would_be_committed = time.monotonic() + COMMIT_SECONDS

            def reported(sink: str = waits) -> bool:
                found = health(port)
                beats = found.get("workers", {}).get(sink, [])
                return bool(beats) and beats[0]["state"] == "retrying" and beats[0]["error"] != ""

            wait_for("the outage is reported", reported)
            assert health(port)["status"] in ("degraded", "unavailable")
            refused = [float(sink == waits) for sink in SINKS]
            wait_for("in metrics too", lambda r=refused: retrying(port, *own) == [*r, *r])
            wait_for(
                "the other has committed", lambda sink=goes_on: all_is_committed(running, sink)
            )
            sleep_until(would_be_committed)
            assert running.committed(waits) == before
            process.start()
            process.wait_ready()
            running.wait_drained(*SINKS)
            wait_for("all is well again", lambda: health(port)["status"] == "ok")
            wait_for("in metrics too", lambda: retrying(port, *own) == [0, 0, 0, 0])
        wait_for("both have committed", lambda: all_is_committed(running, *SINKS))
        assert_no_difference(running)


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def all_is_committed(running: Pipeline, *sinks: str) -> bool:
    """Whether the groups of `sinks` have committed the end of every partition."""
    ends = running.ends()
    return all(running.committed(sink) == ends for sink in sinks)


def retrying(server: int, *workers: int) -> list[float]:
    """What metrics say of stores that refuse: the server's of each sink, then each worker's own."""
    values = [
        (sample.labels.get("sink", ""), sample.value)
        for port in (server, *workers)
        for family in text_string_to_metric_families(
            httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        )
        for sample in family.samples
        if sample.name == "tickwell_worker_retrying"
    ]
    of_server = dict(values)
    return [*(of_server[sink] for sink in SINKS), *(value for sink, value in values if not sink)]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_postgres_that_hangs(
    services: dict[str, tuple[Process, str]], tmp_path: Path, kafka: str, hot_redis: str
) -> None:
    """Stopped, not killed: it keeps its connections and answers nothing. The worker says so, while
    it works and while it begins, and ends when it is asked to."""
    urls = {name: url for name, (_, url) in services.items()}
    engine = connect(urls["postgres"])
    migrations.upgrade(engine)
    engine.dispose()
    with pipeline(tmp_path, kafka, urls["redis"], hot_redis, urls["postgres"]) as running:
        for sink in ("online", "offline"):
            running.start_worker(sink)
        running.produce("price", burst(0))
        running.wait_drained("online", "offline")
        server = psutil.Process(services["postgres"][0].pid)
        server.suspend()  # first, so that no child is born or reaped any more
        stopped = [server, *server.children(recursive=True)]
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            running.produce("price", burst(1))
            for service in ("the offline store", "a service that the worker needs to start"):
                wait_for("the hang is reported", lambda service=service: service in hangs(running))
                worker = running.processes.pop("offline-one")
                worker.terminate()
                assert worker.wait(PATIENCE) == 0
                running.start_worker("offline")
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        running.wait_drained("online", "offline")
        assert assert_no_difference(running).looked["rows"] == 600


def hangs(running: Pipeline) -> str:
    """The error of the offline worker that runs now."""
    with running.redis() as client:
        packed = client.get(worker_key("offline", "one-offline"))
    beat = msgspec.json.decode(packed, type=Heartbeat) if packed else None
    if beat is None or beat.pid != running.processes["offline-one"].pid:
        return ""
    return beat.error if beat.state == "retrying" and "has not answered" in beat.error else ""
