"""Up to when history is closed, as real workers put it on record."""

from __future__ import annotations

import json
import time

from serving.history.closing import closed
from serving.history.snapshot import snapshot
from tests.support.pipeline import Pipeline, wait_for


def test_history_closes_behind_a_worker_though_most_partitions_are_quiet(
    running: Pipeline,
) -> None:
    """The moment goes on with the clock, and stops with the worker."""
    running.start_worker("offline")
    ticks = [{"symbol": "A", "price": 1, "ts": time.time_ns() // 10**6} for _ in range(3)]
    running.produce("price", [(b"A", json.dumps(tick).encode()) for tick in ticks])
    running.wait_drained("offline")

    def until() -> int:
        with snapshot(running.settings.postgres) as seen:
            return closed(seen, {running.topic("price"), running.topic("volume")}).until

    for _ in range(2):
        now = time.time_ns()
        wait_for("what had arrived by now is stored, and known to be", lambda: until() > now)  # noqa: B023
        assert until() < time.time_ns()
    running.kill("offline-one")
    last = until()
    tick = json.dumps({"symbol": "A", "price": 2, "ts": time.time_ns() // 10**6}).encode()
    running.produce("price", [(b"A", tick)])
    assert until() == last
