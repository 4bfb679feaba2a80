"""A warm Redis that is full: it refuses writes, the online worker waits and says so."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
import redis

from registry.heartbeat import Heartbeat
from registry.keys import worker_key
from tests.acceptance.checks import assert_stores_match, expected
from tests.acceptance.pipeline import Pipeline, wait_for


@pytest.mark.timeout(300)
def test_a_full_redis_stalls_and_loses_nothing(running: Pipeline) -> None:
    settings = running.settings
    running.start_worker("online")
    running.start_worker("offline")
    running.produce("price", ticks(0, 20))
    running.wait_drained("online", "offline")
    with redis.Redis.from_url(settings.redis) as warm:
        assert warm.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        before = warm.config_get("maxmemory")["maxmemory"]
        warm.config_set("maxmemory", warm.info("memory")["used_memory"] + 200_000)
        try:
            running.produce("price", ticks(20, 3_000))
            wait_for("it is told", lambda: "maxmemory" in heartbeat(settings.redis_hot))
            running.wait_drained("offline")
            assert running.processes["online-one"].poll() is None
        finally:
            warm.config_set("maxmemory", before)
    running.wait_drained("online", "offline")
    assert_stores_match(running, "price", expected(running, "price"))


def ticks(first: int, last: int) -> list[tuple[bytes, bytes]]:
    """One tick of each of the symbols from `first` up to `last`."""
    now = time.time_ns() // 10**6
    made: list[dict[str, Any]] = [
        {"symbol": f"S{i}", "price": 1 + i % 13, "ts": now, "seq": i} for i in range(first, last)
    ]
    return [(tick["symbol"].encode(), json.dumps(tick).encode()) for tick in made]


def heartbeat(url: str) -> str:
    """The error that the online worker tells."""
    with redis.Redis.from_url(url) as store:
        packed = store.get(worker_key("online", "one-online"))
    return "" if packed is None else msgspec.json.decode(packed, type=Heartbeat).error  # type: ignore[arg-type]
