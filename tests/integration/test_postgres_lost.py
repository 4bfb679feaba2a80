"""Postgres is lost in the middle of a repair or of a verification: it says so, and can go on."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from pipelines.errors import StoreUnavailable
from pipelines.repair.rejected_edits import Chosen
from pipelines.repair.repair import Repair, Repaired
from pipelines.stores.postgres.connection import Database
from tests.support.network import network
from tests.support.pipeline import wait_for
from tests.support.rebuilds import Stores
from tests.support.repairs import NEVER, SYMBOLS, Feed, Ticks, repair, settled
from tests.support.sinks import query

WAITS = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database()
    AND application_name = %s AND wait_event_type = 'Lock'
"""
MADE = "SELECT entity, count(*) FROM tickwell.repair_edits WHERE outcome = 'made' GROUP BY 1"


def fed(stores: Stores) -> Feed:
    """Prices of each symbol, and a late tick of each that a repair may let in."""
    feed = Feed(stores, random.Random(1))
    for _ in range(30):
        feed.at_ms += 500
        feed.send([feed.trade(symbol, 5.0) for symbol in SYMBOLS])
    feed.send([feed.trade(symbol, 6.0, ts=feed.at_ms - 5_100) for symbol in SYMBOLS])
    return feed


@contextmanager
def command(stores: Stores, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        "TICKWELL_POSTGRES": stores.postgres,
        "TICKWELL_REDIS": stores.redis_url,
        "TICKWELL_DATA": "/nonexistent",
        "PATH": "",
    }
    made = [sys.executable, "-m", "tickwell", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(made, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lost(stores: Stores, application: str, lock: tuple[Any, ...], *arguments: str) -> str:
    """What a command says whose session ends while it waits for a lock; its code is not 0."""
    other = Database(stores.postgres, "test", idle_timeout_ms=200_000)
    with closing(other), other.transaction() as cursor, command(stores, *arguments) as process:
        cursor.execute(*lock)
        for (pid,) in wait_for("it waits", lambda: query(stores.postgres, WAITS, application)):
            query(stores.postgres, "SELECT pg_terminate_backend(%s)", pid)
        cursor.execute("COMMIT")
        told, said = process.communicate(timeout=120)
    assert process.returncode in (1, 2), (process.returncode, told, said)
    assert "Traceback" not in said
    return told + said


def test_a_repair_whose_session_ends_says_so_and_goes_on(stores: Stores) -> None:
    feed = fed(stores)
    ticks = Ticks(feed)
    ticks.repair()
    stores.execute(
        "CREATE FUNCTION public.waits() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$"
    )
    stores.execute(
        "CREATE TRIGGER waits BEFORE UPDATE ON tickwell.repair_edits FOR EACH ROW"
        f" WHEN (OLD.entity = '{SYMBOLS[1]}') EXECUTE FUNCTION public.waits()"
    )
    lock = ("SELECT pg_advisory_xact_lock(1)",)
    said = lost(stores, "tickwell repair", lock, "repair", "price")
    assert "tickwell: Postgres: " in said
    assert "the same command goes on" in said
    assert query(feed.postgres, MADE) == [(SYMBOLS[0], 1)], "what was done stays"
    assert repair(feed, stores.catalog).made == {"insert": len(SYMBOLS) - 1}
    settled(feed)
    assert query(feed.postgres, "SELECT count(*) FROM tickwell.repairs") == [(1,)]
    ticks.check(10**18 * 2)


def test_a_repair_that_is_cut_off_says_so_and_goes_on(stores: Stores) -> None:
    feed = fed(stores)
    reports: list[int] = []
    with network(feed.postgres) as between:

        def report(done: Repaired) -> None:
            reports.append(done.done)
            if len(reports) == 2:
                between.cut()

        work = Repair(between.url, stores.catalog, "price")
        with pytest.raises(StoreUnavailable, match="Postgres: "):
            work.run(Chosen(), "ann", "", report, NEVER)
        assert reports == [1, 2]
        between.heal()
        rest = work.run(Chosen(), "ann", "", report, NEVER)
    assert rest.made == {"insert": len(SYMBOLS) - 2}


def test_a_verification_whose_session_ends_says_what_was_not_looked_at(stores: Stores) -> None:
    fed(stores)
    lock = ("LOCK TABLE tickwell.feature_rows IN ACCESS EXCLUSIVE MODE",)
    said = lost(stores, "tickwell verify", lock, "verify", "--full", "--no-throttle")
    assert "rows of Postgres, recomputed from raw fields: could not look: Postgres: " in said
    with command(stores, "verify", "--full", "--no-throttle") as process:
        told, errors = process.communicate(timeout=120)
    assert "Traceback" not in errors
    assert process.returncode == 0, told + errors
