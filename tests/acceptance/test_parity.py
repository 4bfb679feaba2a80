"""Rows of live, of a replay into an empty database and of another replay are the same bytes."""

from __future__ import annotations

import json
import random
import time

import psycopg2
import pytest

from tests.support.load import random_positions, random_ticks
from tests.support.pipeline import Pipeline
from tests.support.replays import empty_database


@pytest.mark.timeout(300)
def test_live_and_replays(running: Pipeline) -> None:
    chance = random.Random(5)
    running.start_worker("offline")
    now = time.time_ns() // 10**6
    for burst in range(6):
        running.produce("price", random_ticks(chance, now + burst))
    running.produce("position", random_positions(chance, now))
    running.wait_drained("offline")
    live = running.dump()
    assert len(live) > 100_000

    again = running.run_tickwell("replay")
    assert " 0 of them new" in again
    middle = running.run_tickwell("replay", "--source", "price", "--from-offset", "300")
    assert " 0 of them new" in middle
    middle = running.run_tickwell("replay", "--source", "position", "--from-offset", "60")
    assert " 0 of them new" in middle
    assert running.dump() == live

    with empty_database(running) as partly:
        partly.run_tickwell("replay", "--source", "price", "--from-offset", "300")
        running.stop()
        partly.start_worker("offline", "after")  # what a replay wrote is ahead of it
        partly.wait_drained("offline")
        partly.stop()
        assert partly.dump() == live

    with empty_database(running) as empty:
        empty.run_tickwell("replay", "--entity", "S3")
        one = empty.query("SELECT count(*), count(DISTINCT entity) FROM tickwell.feature_rows")
        assert one == running.query(
            "SELECT count(*), 1 FROM tickwell.feature_rows WHERE entity = 'S3'"
        )
        # from the middle: the state is computed from the log's beginning, and not stored
        empty.run_tickwell("replay", "--source", "price", "--from-offset", "300")
        empty.run_tickwell("replay", "--to-offset", "700")
        empty.run_tickwell("replay")
        assert empty.dump() == live
        rejected = (
            'SELECT partition, "offset", index, reason FROM tickwell.rejected_ticks ORDER BY 1, 2'
        )
        assert empty.query(rejected) == running.query(rejected)
        # a live worker over what a replay wrote finds its rows and changes none
        empty.start_worker("offline", "late")
        empty.wait_drained("offline")
        empty.stop()
        assert empty.dump() == live


@pytest.mark.timeout(200)
def test_by_time(running: Pipeline) -> None:
    running.start_worker("offline")
    running.produce("volume", [(b"A", volume(1)), (b"A", volume(2))])
    running.wait_drained("offline")
    time.sleep(1.1)
    between = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1.1)
    running.produce("volume", [(b"A", volume(3))])
    running.wait_drained("offline")
    assert "1 rows computed" in running.run_tickwell("replay", "--from-time", between)
    assert "2 rows computed" in running.run_tickwell("replay", "--to-time", between)


@pytest.mark.timeout(200)
def test_other_bits_are_an_error(running: Pipeline) -> None:
    running.start_worker("offline")
    running.produce("volume", [(b"A", volume(1))])
    running.wait_drained("offline")
    connection = psycopg2.connect(running.settings.postgres)
    connection.autocommit = True
    connection.cursor().execute("UPDATE tickwell.feature_rows SET features = '{7,7}'")
    connection.close()
    with pytest.raises(AssertionError, match="has other bits"):
        running.run_tickwell("replay")
    assert running.query("SELECT features FROM tickwell.feature_rows") == [([7, 7],)]


def volume(seq: int) -> bytes:
    now = time.time_ns() // 10**6
    return json.dumps({"symbol": "A", "volume": seq, "ts": now, "seq": seq}).encode()
