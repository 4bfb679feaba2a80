"""A store that is away: only its group waits, it is told, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from registry import migrations
from registry.database import connect
from registry.heartbeat import Heartbeat
from registry.keys import worker_key
from tests.acceptance.checks import assert_no_difference
from tests.acceptance.pipeline import PATIENCE, Pipeline, pipeline, wait_for
from tickwell.embedded.ports import keep_port
from tickwell.process import Process


@pytest.mark.timeout(300)
def test_each_store_in_turn(
    services: dict[str, tuple[Process, str]], tmp_path: Path, kafka: str, hot_redis: str
) -> None:
    urls = {name: url for name, (_, url) in services.items()}
    engine = connect(urls["postgres"])
    migrations.upgrade(engine)
    engine.dispose()
    with pipeline(tmp_path, kafka, urls["redis"], hot_redis, urls["postgres"]) as running:
        port = keep_port(tmp_path / "port")
        running.start_worker("online")
        running.start_worker("offline")
        running.start("server", "serve", "--port", str(port))
        running.produce("price", ticks(0))
        running.wait_drained("online", "offline")
        for number, (name, waits, goes_on) in enumerate(
            [("postgres", "offline", "online"), ("redis", "online", "offline")], 1
        ):
            process, _ = services[name]
            time.sleep(1.1)  # Redis writes its log every second
            os.kill(process.pid or 0, signal.SIGKILL)
            process._popen.wait()  # type: ignore[union-attr]
            running.produce("price", ticks(number))
            running.wait_drained(goes_on)

            def told(sink: str = waits) -> bool:
                health = get(port)
                beats = health.get("workers", {}).get(sink, [])
                return bool(beats) and beats[0]["state"] == "retrying" and beats[0]["error"] != ""

            wait_for("the outage is told", told)
            assert get(port)["status"] in ("degraded", "unavailable")
            process.start()
            process.wait_ready()
            running.wait_drained("online", "offline")
            wait_for("all is well again", lambda: get(port)["status"] == "ok")
        assert_no_difference(running)


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
        running.produce("price", ticks(0))
        running.wait_drained("online", "offline")
        server = psutil.Process(services["postgres"][0].pid)
        server.suspend()  # first, so that no child is born or reaped any more
        stopped = [server, *server.children(recursive=True)]
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            running.produce("price", ticks(1))
            for who in ("the offline store", "what the worker needs to begin"):
                wait_for("it is told", lambda who=who: who in hangs(running))
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


def ticks(number: int) -> list[tuple[bytes, bytes]]:
    now = time.time_ns() // 10**6
    made = [
        {"symbol": f"S{i % 9}", "price": 1 + i % 13, "ts": now, "seq": 1000 * number + i}
        for i in range(300)
    ]
    return [(str(tick["symbol"]).encode(), json.dumps(tick).encode()) for tick in made]


def get(port: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).json()
    except httpx.HTTPError:
        return {"status": "starting"}
    return found
