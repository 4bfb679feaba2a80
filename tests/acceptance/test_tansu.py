"""A short conformance run on Tansu, the broker for machines without Java."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checks import assert_stores_match, expected
from tests.support.pipeline import Pipeline, pipeline, wait_for
from tests.support.services import embedded
from tickwell.embedded.broker import broker
from tickwell.up.supervisor import JOINS_TANSU


@pytest.fixture
def on_tansu(
    tmp_path: Path, data: Path, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[Pipeline]:
    with (
        embedded(lambda: broker(data / "tansu", "tansu")) as address,
        pipeline(tmp_path, address, redis_database, hot_redis, postgres_database) as made,
    ):
        yield made


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "membership",
    [pytest.param({}, marks=pytest.mark.long), JOINS_TANSU],
    ids=["static members", "as `up` lets them join"],
)
def test_ticks_reach_both_stores_and_survive_a_kill(
    membership: dict[str, Any], on_tansu: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in membership.items():
        monkeypatch.setenv(f"TICKWELL_{name.upper()}", str(value))

    def send(first: int) -> None:
        now = time.time_ns() // 10**6
        ticks = [
            {"symbol": f"S{i % 5}", "price": 1 + i, "ts": now, "seq": i}
            for i in range(first, first + 500)
        ]
        on_tansu.produce(
            "price", [(str(t["symbol"]).encode(), json.dumps(t).encode()) for t in ticks]
        )

    def rows() -> int:
        ((count,),) = on_tansu.query("SELECT count(*) FROM tickwell.feature_rows")
        return int(count)

    def online() -> int:
        with on_tansu.redis() as client:
            return sum(int(client.get(key)) for key in client.scan_iter("tw:3:watermark:*"))

    on_tansu.start_worker("online")
    on_tansu.start_worker("offline")
    send(0)
    # Tansu's "latest" offset is not the end, so what was sent is what is waited for
    wait_for("both stores have 500", lambda: (rows(), online()) == (500, 500))
    on_tansu.kill("online-one")
    on_tansu.kill("offline-one")
    send(500)
    on_tansu.start_worker("online")
    on_tansu.start_worker("offline")
    wait_for("both stores have 1000", lambda: (rows(), online()) == (1000, 1000))
    paused = on_tansu.processes["online-one"]
    paused.send_signal(signal.SIGSTOP)
    time.sleep(4)  # longer than the shorter session
    paused.send_signal(signal.SIGCONT)
    send(1000)
    wait_for("both stores have 1500", lambda: (rows(), online()) == (1500, 1500))
    # the checker would believe its ends
    assert_stores_match(on_tansu, "price", expected(on_tansu, "price"))
    assert "1500 rows computed, 0 of them new" in on_tansu.run_tickwell("replay")
