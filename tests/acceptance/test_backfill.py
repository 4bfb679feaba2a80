"""`tickwell backfill` beside workers, and stopped by signals."""

from __future__ import annotations

import random
import re
import signal
import time

import pytest

from tests.support.backfills import blocks
from tests.support.load import random_ticks
from tests.support.pipeline import Pipeline, wait_for
from tests.support.served import beat

NEW = "price_sma_5@2.0.0"
ADDED = """
[[feature]]
name = "price_sma_5"
version = "2.0.0"
parent = "1.0.0"
expression = "mean(price, 6)"
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_stopped_by_a_signal_it_says_how_to_go_on(
    running: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends as a replay does; the next call finishes it."""
    terminal = {"TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": "200"}  # where it says why
    for name, value in terminal.items():
        monkeypatch.setenv(name, value)
    running.start_both()
    running.produce("price", random_ticks(random.Random(1), time.time_ns() // 10**6))
    running.wait_drained("online", "offline")
    (stored,) = running.query("SELECT count(*) FROM tickwell.feature_rows")
    file = running.logs / "added.toml"
    file.write_text(running.run_tickwell("features", "export") + ADDED)
    running.run_tickwell("features", "apply", "--features", str(file), "--yes")
    for number, ticks_from in (
        (signal.SIGINT, "postgres"),
        (signal.SIGTERM, "postgres"),
        (signal.SIGINT, "kafka"),
        (signal.SIGTERM, "kafka"),
    ):
        beat(running.settings.redis, behind=60.0, instance="slow")
        name = f"backfill-{ticks_from}-{number}"
        process = running.start(name, "backfill", NEW, "--from", ticks_from)
        log = running.logs / f"{name}.log"
        wait_for("it waits", lambda log=log: "is 60 s behind" in log.read_text())
        process.send_signal(number)
        assert process.wait(60) == 130
        assert "stopped: price_sma_5@2.0.0: values of 0 ticks" in log.read_text()
        assert f"`tickwell backfill {NEW}` goes on from here" in log.read_text()
        assert "Traceback" not in log.read_text()
    running.run_tickwell("backfill", NEW, "--no-throttle")
    made = blocks(running.settings.postgres, NEW)
    assert (len(made),) == stored
    ((state, ticks_from),) = running.query("SELECT state, ticks_from FROM tickwell.backfills")
    assert (state, ticks_from) == ("complete", "kafka")


@pytest.mark.timeout(300)
def test_beside_workers_that_store_it_finishes(running: Pipeline) -> None:
    """Workers tell how old ticks are that they store, and a backfill yields to them by it."""
    running.start_both()
    running.produce("price", random_ticks(random.Random(1), time.time_ns() // 10**6))
    running.wait_drained("online", "offline")

    def fresh() -> bool:
        told = {beat.sink: beat.freshness for beat in running.heartbeats()}
        return all(told[sink] is not None for sink in ("online", "offline"))

    wait_for("workers tell their freshness", fresh)
    for beat_of in running.heartbeats():
        assert beat_of.freshness is not None
        assert 0 < beat_of.freshness.ticks <= beat_of.rows
        assert 0 < beat_of.freshness.p99_seconds < 600
    file = running.logs / "added.toml"
    file.write_text(running.run_tickwell("features", "export") + ADDED)
    running.run_tickwell("features", "apply", "--features", str(file), "--yes")
    process = running.start("backfill", "backfill", NEW)
    for seed in range(5):
        running.produce("price", random_ticks(random.Random(seed), time.time_ns() // 10**6))
    assert process.wait(120) == 0
    running.wait_drained("online", "offline")
    told = (running.logs / "backfill.log").read_text()
    assert re.search("values of [1-9][0-9,]* ticks", told)
    ((state,),) = running.query("SELECT state FROM tickwell.backfills")
    assert state == "complete"
