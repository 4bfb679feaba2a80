"""`tickwell repair` on a running pipeline: offered, made, and carried on by the offline worker."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.pipeline import Pipeline, wait_for

NEWEST = "SELECT price FROM features.price_repaired WHERE symbol = 'A' ORDER BY event_time"
OPEN = "SELECT count(*) FROM tickwell.repair_edits WHERE open"


def messages(*made: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return [(b"A", json.dumps({"symbol": "A", **one}).encode()) for one in made]


@pytest.mark.timeout(240)
def test_a_repair_is_offered_made_and_carried_on(running: Pipeline) -> None:
    running.start_both()
    at = time.time_ns() // 10**6 - 60_000
    prices = [{"price": float(n), "ts": at + n * 100, "seq": n} for n in range(30)]
    running.produce("price", messages(*prices))
    named = {"ts": prices[28]["ts"], "seq": 28}
    running.produce(
        "price",
        messages(
            {"price": 500.0, "ts": at + 150, "seq": 1_000},  # late
            {"ts": at, "op": "cancel", "of": named},
        ),
    )
    running.wait_drained("online", "offline")
    served = running.query("SELECT price, price_sma_5 FROM features.price ORDER BY event_time")
    offered = json.loads(running.run_tickwell("repair", "price", "--dry-run", "--json"))
    assert offered["made"] == {"insert": 1, "cancel": 1}
    assert running.query("SELECT count(*) FROM tickwell.repairs") == [(0,)]
    done = json.loads(running.run_tickwell("repair", "price", "--note", "the feed's", "--json"))
    assert done == offered
    expected = [0.0, 1.0, 500.0, *map(float, range(2, 28)), 29.0]
    assert [price for (price,) in running.query(NEWEST)] == expected
    assert (
        running.query("SELECT price, price_sma_5 FROM features.price ORDER BY event_time") == served
    )
    assert running.query("SELECT note FROM tickwell.repairs") == [("the feed's",)]
    audited = "SELECT subject, after FROM tickwell.audit WHERE action = 'repair'"
    assert running.query(audited) == [("source:price", {"insert": 1, "cancel": 1})]

    # ticks come that have the cancelled one in their windows, until no window reaches back to it
    assert running.query(OPEN) == [(1,)]
    more = [{"price": 1.0, "ts": at + 10_000 + n * 100, "seq": n + 50} for n in range(40)]
    running.produce("price", messages(*more))
    running.wait_drained("online", "offline")
    wait_for("no edit is open", lambda: running.query(OPEN) == [(0,)])
    (mean,) = running.query(
        "SELECT price_sma_5 FROM features.price_repaired WHERE sequence = 0 AND event_time = %s",
        more[0]["ts"] * 10**6,
    )
    assert mean[0] == sum([25.0, 26.0, 27.0, 29.0, 1.0]) / 5
    refused = running.refused("repair", "prices")
    assert "there is no source 'prices'" in refused
