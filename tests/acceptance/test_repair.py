"""`tickwell repair` on a running pipeline: offered, made, and carried on by the offline worker."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import psycopg2
import pytest

from tests.chaos.producers import Load
from tests.checker.check import History, Run, check
from tests.support.pipeline import Pipeline, wait_for
from tests.support.seeds import seeds

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


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", seeds(few=1, many=3))
def test_repairs_that_are_killed_beside_live_are_what_an_edited_list_gives(
    running: Pipeline, seed: int
) -> None:
    """Repairs, and the worker that carries them on, are killed at random while ticks come."""
    chance, settings = random.Random(seed), running.settings
    topics = {source: running.topic(source) for source in ("price", "volume", "position")}
    load = Load(settings.kafka, seed, 300.0, topics, settings.partitions)
    running.start_both()
    load.prime()
    running.wait_drained("online", "offline")
    load.start()
    try:
        for number in range(15):
            name = f"repair-{number}"
            running.start(name, "repair", "price")
            time.sleep(chance.uniform(0.5, 4.0))
            running.kill(name)
            if chance.random() < 0.4:
                running.kill("offline-one")
                running.start_worker("offline")
    finally:
        load.stop()
    assert load.failures == []
    running.wait_drained("online", "offline")
    running.run_tickwell("repair", "price")
    left = (
        "SELECT 1 FROM tickwell.repair_edits AS edit WHERE open AND EXISTS ("
        " SELECT FROM tickwell.feature_rows AS row WHERE row.entity = edit.entity"
        " AND row.revision = 0 AND row.schema_id = edit.settled_in"
        " AND (row.event_time, row.sequence) > (edit.settled_time, edit.settled_sequence))"
    )
    wait_for("all is settled", lambda: not running.query(left))
    wait_for(
        "everything is relayed",
        lambda: not running.query("SELECT 1 FROM tickwell.rejected_ticks WHERE relayed_at IS NULL"),
    )
    running.run_tickwell("verify", "--full")
    assert running.query("SELECT * FROM tickwell.found_differences") == []
    running.stop()
    asked = settings.kafka, settings.redis, settings.postgres
    run = Run(*asked, rejected_topic=settings.rejected_topic, history=History())
    found = check(run, bars=False)
    assert found.clean, found.examples
    assert found.looked["values of revisions"] > 100
    assert found.looked["edits of kind insert"] > 20
    assert len(running.query("SELECT id FROM tickwell.repairs")) > 3

    execute(running, "UPDATE tickwell.repair_edits SET outcome = 'no' WHERE outcome = 'made'")
    assert check(run, bars=False).differences["repair"] > 0
    execute(running, "UPDATE tickwell.repair_edits SET outcome = 'made' WHERE outcome = 'no'")
    execute(running, "UPDATE tickwell.feature_rows SET features[2] = 7.125 WHERE revision > 0")
    assert check(run, bars=False).differences["revision"] > 0
    execute(running, "DELETE FROM tickwell.feature_rows WHERE revision > 0")
    assert check(run, bars=False).differences["revision"] > 0


def execute(run: Pipeline, statement: str) -> None:
    connection = psycopg2.connect(run.settings.postgres)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()
