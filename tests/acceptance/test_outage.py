"""A store that is away: only its group waits, it is told, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import migrations
from registry.database import connect
from tests.acceptance.checks import assert_stores_match, expected
from tests.acceptance.pipeline import pipeline, wait_for
from tickwell.embedded.ports import keep_port
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.process import Process, Spec


@pytest.fixture
def services(data: Path) -> Iterator[dict[str, tuple[Process, str]]]:
    """Stores of the test's own, which it may kill."""
    place = data / uuid.uuid4().hex
    made: dict[str, Callable[[], tuple[Spec, str]]] = {
        "postgres": lambda: postgres(place / "postgres"),
        "redis": lambda: valkey(place / "redis", "warm"),
    }
    with ExitStack() as stack:
        found = {}
        for name, make in made.items():
            spec, url = make()
            process = Process(spec)
            process.start()
            stack.callback(process.stop)
            process.wait_ready()
            found[name] = (process, url)
        yield found


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
        assert_stores_match(running, "price", expected(running, "price"))


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
