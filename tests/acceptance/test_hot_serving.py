"""Servers that read hot, which real workers feed, while all of them are stopped and killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.stores.row_store import Tier
from tests.support.hot_servers import Served, serving
from tests.support.load import SYMBOLS, load
from tests.support.pipeline import pipeline, wait_for
from tests.support.services import kill
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A hot Redis of the test's own, which it may kill, and its URL."""
    spec, url = valkey(tmp_path / "hot", "hot")
    process = Process(spec)
    process.start()
    try:
        process.wait_ready()
        yield process, url
    finally:
        process.stop()


def serves_more(served: Served, tier: Tier, rows: int = 500) -> None:
    """Wait until so many rows more were served from a tier."""
    goal = served.tiers[tier] + rows
    wait_for(f"rows are from {tier.name}", lambda: served.tiers[tier] >= goal)


@pytest.mark.timeout(240)
def test_nothing_stale_and_nothing_older_is_served_whatever_happens(
    tmp_path: Path,
    kafka: str,
    redis_database: str,
    hot: tuple[Process, str],
    postgres_database: str,
) -> None:
    urls = (redis_database, hot[1], postgres_database)
    with (
        pipeline(tmp_path, kafka, *urls, partitions=2) as own,
        load(own),
        serving(redis_database, hot[1], "price", SYMBOLS) as served,
    ):
        worker = own.start_worker("online")
        serves_more(served, Tier.HOT)
        for seconds in (0.3, 1.5):
            worker.send_signal(signal.SIGSTOP)
            time.sleep(seconds)  # how long a process is stopped, and no wait for anything
            worker.send_signal(signal.SIGCONT)
            serves_more(served, Tier.HOT)
        assert hot[0].pid is not None
        os.kill(hot[0].pid, signal.SIGSTOP)
        serves_more(served, Tier.WARM)
        os.kill(hot[0].pid, signal.SIGCONT)
        serves_more(served, Tier.HOT)
        kill(hot[0])
        serves_more(served, Tier.WARM)
        hot[0].start()
        hot[0].wait_ready()
        serves_more(served, Tier.HOT)
        own.kill("online-one")
        serves_more(served, Tier.WARM)
        own.start_worker("online")
        serves_more(served, Tier.HOT)
    assert served.stale == []
    assert served.stepped_back == []
    assert served.tiers[Tier.NONE] == 0
