"""A backfill that is killed, stopped, cancelled or begun twice; what is then said of coverage."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from threading import Event

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from pipelines.backfill.backfill import BackfillWork
from pipelines.backfill.computing import Done
from pipelines.errors import BackfillElsewhere, BackfillEnded
from pipelines.kafka.topics import Topic
from pipelines.replay.throttle import READ_SECONDS
from pipelines.stores.carried_rows import Home
from pipelines.stores.postgres.carried_rows import CarriedOfflineRows
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry.database.engine import connect
from registry.errors import NotAllowed, NotCovered
from registry.features_file import read
from registry.formats.heartbeat import Freshness
from registry.lifecycle.audit import By
from registry.lifecycle.coverage import coverage
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from tests.support.backfills import Tick, backfill, begun, blocks
from tests.support.followers import Follower, compute
from tests.support.logs import TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.served import beat
from tests.support.sinks import GO_ON, query, ticks
from tickwell.cli import app

NEW = "price_sma_5@2.0.0"
SYMBOLS = [f"S{number}" for number in range(12)]
TICKS = 600
CODE = """
import sys
from threading import Event
from pipelines.backfill.backfill import BackfillWork
from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
url, ref = sys.argv[1:]
registry = Registry(connect(url), By("ann"))
backfill = registry.begin_backfill(ref)
work = BackfillWork(url, registry.catalog(), backfill, rows_a_piece=2)
work.run(lambda done: print(done.ticks, flush=True), Event())
"""


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    record(engine, read(), "ann")
    yield engine
    engine.dispose()


@pytest.fixture
def registry(stores: Stores, engine: Engine) -> Registry:
    """A version that was recorded when all but the last ticks were stored."""
    sink = stores.keep(OfflineSink(stores.postgres))
    sink.settle(Topic("ticks.price", TOPIC_ID, 1))
    work = Follower(engine, sink)
    first, second = runs(ticks(SYMBOLS, TICKS + 50), [TICKS])
    work.take(first, ahead=False)
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )
    work.following.look()
    work.take(second, ahead=False)
    home = Home("ticks.price", TOPIC_ID, 0)
    carried = stores.keep(CarriedOfflineRows(stores.postgres))
    for _ in carried.carry(compute(registry.catalog(), "price"), [home]):
        pass
    return registry


def expected(stores: Stores) -> dict[Tick, tuple[str, int]]:
    """Means of six prices, by Python's own sums, which add from the oldest on."""
    prices: dict[str, list[float]] = {}
    found = {}
    for entity, event_time, sequence, price in query(
        stores.postgres,
        'SELECT entity, event_time, sequence, fields[1] FROM tickwell.feature_rows WHERE "offset"'
        f" < {TICKS} AND schema_id = 1 ORDER BY entity, event_time, sequence",
    ):
        of = prices.setdefault(entity, [])
        of.append(price)
        full = len(of) >= 6
        value = sum(of[-6:]) / 6 if full else float("nan")
        found[Tick(entity, event_time, sequence)] = value.hex(), 0 if full else 1
    return found


def actions(registry: Registry) -> list[str]:
    return [entry.action for entry in registry.audit(NEW) if "backfill" in entry.action]


def test_killed_at_any_instant_it_goes_on(stores: Stores, registry: Registry) -> None:
    chance, counts = random.Random(4), []
    for _ in range(4):
        command = [sys.executable, "-c", CODE, stores.postgres, NEW]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 30)):
                process.stdout.readline()
            time.sleep(chance.random() / 100)
            process.kill()
        counts.append(len(blocks(stores.postgres, NEW)))
        stored = query(stores.postgres, "SELECT ticks FROM tickwell.backfills")
        assert stored == [(counts[-1],)]
    assert counts == sorted(counts)
    assert 0 < counts[0] < TICKS
    deadline = time.monotonic() + 30
    while True:
        try:
            assert backfill(registry.engine, stores.postgres, NEW).finished
            break
        except BackfillElsewhere:  # Postgres has not seen yet that the process is gone
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert blocks(stores.postgres, NEW) == expected(stores)
    assert actions(registry) == ["complete backfill", "start backfill"]


def test_it_is_activated_with_its_history_once_it_is_complete(
    stores: Stores, registry: Registry
) -> None:
    with pytest.raises(NotCovered, match=r"ticks\.price\[0\] offsets 0 to 599"):
        registry.activate(NEW)
    assert not backfill(registry.engine, stores.postgres, NEW, 100, pieces=1).finished
    assert registry.details(NEW).covered == 50
    with pytest.raises(NotCovered, match=r"offsets 0 to 599"):
        registry.activate(NEW)
    assert backfill(registry.engine, stores.postgres, NEW, 100).finished
    with registry.engine.connect() as connection:
        (part,) = coverage(connection, registry.catalog(), NEW)
    assert (part.live, part.backfilled) == (((600, 650),), ((0, 600),))
    assert registry.details(NEW).covered == 650
    assert registry.activate(NEW).active["price_sma_5"] == "2.0.0"
    assert registry.roll_back("price_sma_5").active["price_sma_5"] == "1.0.0"
    assert begun(registry.engine, NEW).state == "complete"
    assert len(blocks(stores.postgres, NEW)) == TICKS


def test_of_two_at_once_one_is_told(stores: Stores, registry: Registry) -> None:
    found = begun(registry.engine, NEW)
    work = BackfillWork(stores.postgres, registry.catalog(), found, rows_a_piece=100)
    told = []

    def begin_another(_: Done) -> None:
        if not told:
            with pytest.raises(BackfillElsewhere) as error:
                work.run(lambda _: None, GO_ON)
            told.append(str(error.value))

    assert work.run(begin_another, GO_ON).finished
    assert "another process is backfilling price_sma_5@2.0.0" in told[0]
    assert blocks(stores.postgres, NEW) == expected(stores)


def test_who_has_computed_one_does_not_complete_another(stores: Stores, registry: Registry) -> None:
    """It is begun anew between the last value of the one before and its end: nothing is there."""
    found = begun(registry.engine, NEW)
    work = BackfillWork(stores.postgres, registry.catalog(), found)
    assert work.run(lambda _: None, GO_ON).finished
    other = registry.begin_backfill(NEW, ticks_from="kafka")
    with pytest.raises(NotAllowed, match=r"was begun anew meanwhile, from kafka, by ann:"):
        registry.finish_backfill(NEW, found)
    assert begun(registry.engine, NEW) == other
    anew = registry.begin_backfill(NEW, ticks_from="postgres")
    assert blocks(stores.postgres, NEW) == {}
    for one in (found, other):
        with pytest.raises(NotAllowed, match="from postgres"):
            registry.finish_backfill(NEW, one)
    assert begun(registry.engine, NEW) == anew
    assert anew is not None
    assert anew.state == "running"


def test_one_that_lost_its_lock_stores_nothing(stores: Stores, registry: Registry) -> None:
    """As behind a pool, which gives the session of the lock to others."""
    found = begun(registry.engine, NEW)
    work = BackfillWork(stores.postgres, registry.catalog(), found, rows_a_piece=100)

    def lose(_: Done) -> None:
        stores.execute(
            "UPDATE tickwell.backfills SET entity = entity || '0', event_time = NULL,"
            " sequence = NULL"
        )

    with pytest.raises(BackfillElsewhere):
        work.run(lose, GO_ON)


def test_it_pauses_while_a_worker_is_behind(stores: Stores, registry: Registry) -> None:
    beat(stores.redis_url, behind=60.0)
    stop, told = Event(), list[str | None]()

    def report(done: Done) -> None:
        told.append(done.waits)
        stop.set()

    found, heartbeats = begun(registry.engine, NEW), (stores.redis_url,)
    work = BackfillWork(stores.postgres, registry.catalog(), found, heartbeats=heartbeats)
    assert work.run(report, stop) == Done()
    assert len(told) == 1
    assert str(told[0]).endswith("worker is 60 s behind")


def test_it_rests_while_the_freshness_of_live_suffers(stores: Stores, registry: Registry) -> None:
    """And goes on between rests, however long that lasts."""
    beat(stores.redis_url, freshness=Freshness(0.1, 10))
    told = list[str | None]()

    def report(done: Done) -> None:
        if not told:
            beat(stores.redis_url, freshness=Freshness(0.22, 10))
            time.sleep(READ_SECONDS)
        told.append(done.waits)

    found, heartbeats = begun(registry.engine, NEW), (stores.redis_url,)
    work = BackfillWork(stores.postgres, registry.catalog(), found, 100, heartbeats=heartbeats)
    assert work.run(report, GO_ON).finished
    waited = {why for why in told if why is not None}
    assert waited <= {
        f"paused: ticks wait 0.22 s for the {sink} worker, 0.10 s before"
        for sink in ("online", "offline")
    }
    assert waited
    assert blocks(stores.postgres, NEW) == expected(stores)


def test_to_retire_a_version_cancels_it(stores: Stores, registry: Registry) -> None:
    found = begun(registry.engine, NEW)
    registry.deprecate(NEW)
    work = BackfillWork(stores.postgres, registry.catalog(), found, rows_a_piece=100)

    def retire(_: Done) -> None:
        registry.retire(NEW)

    with pytest.raises(BackfillEnded, match=r"the backfill of price_sma_5@2\.0\.0 was cancelled"):
        work.run(retire, GO_ON)
    assert actions(registry) == ["cancel backfill", "start backfill"]
    with pytest.raises(NotAllowed, match="is retired"):
        registry.begin_backfill(NEW)


def test_derived_versions_and_those_that_lack_nothing_need_none(
    stores: Stores, registry: Registry
) -> None:
    derived = next(f for f in read().features if f.source is None)
    with pytest.raises(NotAllowed, match="is derived"):
        registry.begin_backfill(derived.ref)
    assert registry.begin_backfill("price_sma_5@1.0.0") is None


def test_the_command(stores: Stores, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWELL_POSTGRES", stores.postgres)
    done = CliRunner().invoke(app, ["backfill", NEW, "--json"])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["state"], told["ticks"], told["entities"]) == ("complete", TICKS, len(SYMBOLS))
    assert told["ranges"] == [
        {"topic_id": TOPIC_ID.hex(), "partition": 0, "begin": 0, "end": TICKS}
    ]
    again = CliRunner().invoke(app, ["backfill", NEW])
    assert (again.exit_code, again.stderr) == (
        0,
        f"{NEW} has values of all ticks that are stored: nothing to backfill\n",
    )
    assert blocks(stores.postgres, NEW) == expected(stores)
