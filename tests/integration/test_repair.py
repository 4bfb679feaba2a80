"""Late ticks, cancels and corrections are let into history, and nothing that was served changes.

What is expected is computed from the accepted rows and the rejected messages alone: edits are made
in a list of ticks, and features are those of the oracle over the windows of that list.
"""

from __future__ import annotations

import random
import time
from contextlib import closing, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psycopg2
import pytest

from pipelines.errors import StoreUnavailable
from pipelines.repair.errors import DefinitionsChanged, RepairElsewhere
from pipelines.repair.rejected_edits import Chosen
from pipelines.repair.repair import ENTITY_LOCK, Limits, Repair, Repaired
from pipelines.stores.postgres.connection import Database
from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.errors import InvalidRequest
from serving.features.lookup import Names
from serving.history.found_ticks import Asked, backfills_of
from serving.history.snapshot import snapshot
from serving.history.ticks_as_of import ticks_as_of
from tests.support.backfills import backfill
from tests.support.file_loads import as_csv, load_files, loaded_rows
from tests.support.logs import NOW_MS
from tests.support.past import Cell
from tests.support.rebuilds import Stores
from tests.support.repairs import (
    FEATURES,
    NEVER,
    SKEW_MS,
    SYMBOLS,
    Feed,
    Ticks,
    known_at,
    repair,
    served_rows,
    settled,
)
from tests.support.seeds import seeds
from tests.support.sinks import query


@pytest.mark.parametrize("seed", seeds(few=1, many=40))
def test_history_is_what_an_edited_list_of_ticks_gives(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    feed = Feed(stores, chance)
    catalog = stores.catalog
    ticks = Ticks(feed)
    for _ in range(chance.randrange(3, 10)):
        feed.go_on(chance.randrange(5, 40))
    before = served_rows(feed)
    instants, answers = [], []
    for _ in range(3):
        instants.append(time.time_ns())
        # of times at which no tick can count any more: these rows are known from 2023 on
        over = (feed.at_ms - SKEW_MS) * 10**6
        questions = [(s, at) for s in SYMBOLS for at, _ in list(ticks.of(s))[::3] if at < over]
        if not answers:
            served = known_at(feed.postgres, [*FEATURES], questions, None)
        answers.append((questions, known_at(feed.postgres, [*FEATURES], questions, instants[-1])))
        rehearsed = Repair(feed.postgres, catalog, "price").rehearse(Chosen(), lambda _: None)
        done = repair(feed, catalog)
        ticks.repair()
        assert done.made == rehearsed.made
        assert done.edits == rehearsed.edits
        ticks.check(time.time_ns())
        assert repair(feed, catalog) == Repaired(unreadable=done.unreadable)  # all are taken
        now = len(served_rows(feed))
        for _ in range(chance.randrange(0, 4)):
            feed.go_on(chance.randrange(1, 12))
        settled(feed)
        assert settled(feed) == 0
        ticks.check(time.time_ns())
        assert len(served_rows(feed)) >= now
    assert set(before) <= set(served_rows(feed))
    for (questions, answer), instant in zip(answers, instants, strict=True):
        again = known_at(feed.postgres, [*FEATURES], questions, instant)
        assert again == answer  # to the bit
    assert known_at(feed.postgres, [*FEATURES], answers[0][0], None) == served


def test_a_revision_is_of_rows_that_change_and_of_no_others(stores: Stores) -> None:
    feed = Feed(stores, random.Random(1))
    prices = [100.0 + (number % 7) for number in range(60)]
    sent = []
    for price in prices:
        feed.at_ms += 10_000
        sent.append(feed.trade("A", price))
        feed.send(sent[-1:])
    of = {"ts": sent[30]["ts"], "seq": sent[30]["seq"]}
    feed.send([{"symbol": "A", "ts": feed.at_ms, "op": "correct", "price": 50.0, "of": of}])
    done = repair(feed, stores.catalog)
    assert (done.made, done.open) == ({"correct": 1}, 0)
    # the tick itself, four means of five, twenty returns of 21 prices: in all 20 rows behind it
    assert done.revised == 20
    revised = query(
        feed.postgres,
        "SELECT event_time, revision FROM tickwell.feature_rows WHERE revision > 0 ORDER BY 1",
    )
    assert revised == [(one["ts"] * 10**6, 1) for one in sent[30:51]]
    of = {"ts": sent[50]["ts"], "seq": sent[50]["seq"]}
    feed.send([{"symbol": "A", "ts": feed.at_ms, "op": "cancel", "of": of}])
    done = repair(feed, stores.catalog)
    assert (done.made, done.open) == ({"cancel": 1}, 1)  # a window of 21 is not past yet
    view = query(
        feed.postgres,
        "SELECT count(*) FROM pg_views WHERE viewname = 'price_repaired'",
    )
    assert view == [(0,)]
    engine = connect(feed.postgres, pool_size=1)
    Registry(engine, By("ann")).extend_views({"price"})
    engine.dispose()
    shown = query(feed.postgres, "SELECT price FROM features.price ORDER BY event_time")
    assert [price for (price,) in shown] == prices
    shown = query(feed.postgres, "SELECT price FROM features.price_repaired ORDER BY event_time")
    expected = [*prices[:30], 50.0, *prices[31:50], *prices[51:]]
    assert [price for (price,) in shown] == expected


def test_what_is_not_done_is_refused_and_goes_on(stores: Stores) -> None:
    feed = Feed(stores, random.Random(2))
    for symbol in SYMBOLS:
        feed.at_ms += 1
        feed.send([feed.trade(symbol, 5.0, ts=feed.at_ms + n) for n in range(30)])
    feed.at_ms += 60_000
    feed.send([feed.trade(symbol, 6.0) for symbol in SYMBOLS])
    late = [feed.trade(symbol, 7.0, ts=feed.at_ms - 30_000) for symbol in SYMBOLS]
    feed.send(late)
    ticks, catalog = Ticks(feed), stores.catalog
    ticks.repair()
    stop = Event()
    work = Repair(feed.postgres, catalog, "price")
    begun = time.time_ns()
    done = work.run(Chosen(), "ann", "", lambda _: stop.set(), stop)
    assert (done.edits, done.done) == (3, 1)
    question = [("A", feed.at_ms * 10**6)]
    with pytest.raises(InvalidRequest, match="a repair of price is under way"):
        known_at(feed.postgres, [*FEATURES], question, time.time_ns())
    known_at(feed.postgres, [*FEATURES], question, begun - 2 * 10**9)
    known_at(feed.postgres, [*FEATURES], question, None)
    assert settled(feed) == 0  # a worker makes what is left of it
    ticks.check(time.time_ns())
    feed.at_ms += 1_000
    feed.send([feed.trade("A", 9.0)])
    with pytest.raises(InvalidRequest, match="has not reached the newest ticks"):
        known_at(feed.postgres, [*FEATURES], question, time.time_ns())
    # as of before the repair nothing of it counts, whatever else had come by then
    known_at(feed.postgres, [*FEATURES], question, begun - 2 * 10**9)
    assert settled(feed) == 1
    ticks.check(time.time_ns())


class After(Event):
    """Is set once it has been asked so often."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


def test_a_worker_waits_for_nobody_who_is_at_an_entity(stores: Stores) -> None:
    feed = Feed(stores, random.Random(2))
    feed.at_ms += 60_000
    feed.send([feed.trade("A", 5.0, ts=feed.at_ms + n) for n in range(30)])
    feed.send([feed.trade("A", 7.0, ts=feed.at_ms - 30_000)])
    ticks = Ticks(feed)
    ticks.repair()
    repair(feed, stores.catalog)
    feed.send([feed.trade("A", 9.0, ts=feed.at_ms + 40)])
    feed.send([feed.trade("A", 7.0, ts=feed.at_ms - 20_000)])
    ticks.repair()
    begun = After(2)  # the ticks are looked for twice, and then it is stopped
    Repair(feed.postgres, stores.catalog, "price").run(Chosen(), "ann", "", lambda _: None, begun)
    other = psycopg2.connect(feed.postgres)
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('price\x1fA', 7242019009))")
        assert settled(feed) == 0  # at once, and without an error
    made = "SELECT count(*) FROM tickwell.repair_edits WHERE outcome = 'made'"
    assert query(feed.postgres, made) == [(1,)]
    ended = Thread(target=lambda: (time.sleep(0.5), other.close()))
    ended.start()
    repair(feed, stores.catalog)  # but who asks for a repair gets it
    ended.join()
    assert query(feed.postgres, made) == [(2,)]
    settled(feed)
    ticks.check(time.time_ns())


class Letting(Event):
    """Lets go of an entity's lock when it is asked for the second time."""

    def __init__(self, holder: Any) -> None:
        super().__init__()
        self._holder, self._asked = holder, 0

    def is_set(self) -> bool:
        self._asked += 1
        if self._asked == 2:
            self._holder.close()
        return False


def test_a_worker_that_leaves_out_an_entity_makes_no_later_repair_of_it(stores: Stores) -> None:
    """Corrections of one tick, in two repairs: the later one counts, whoever was in the way."""
    feed = Feed(stores, random.Random(2))
    feed.send([feed.trade("A", 5.0, ts=feed.at_ms + n) for n in range(30)])
    of = {name: feed.sent[7][name] for name in ("ts", "seq")}
    ticks, work = Ticks(feed), Repair(feed.postgres, stores.catalog, "price")
    for price in (7.0, 8.0):
        feed.at_ms += 60_000
        corrected = {"symbol": "A", "ts": feed.at_ms, "seq": 1, "op": "correct", "of": of}
        feed.send([corrected | {"price": price}])
        work.run(Chosen(), "ann", "", lambda _: None, After(2))  # begun, and nothing is made
    ticks.repair()
    holder = psycopg2.connect(feed.postgres)
    holder.cursor().execute(ENTITY_LOCK, ("price\x1fA",))
    work.settle(Letting(holder))
    made = "SELECT count(*) FROM tickwell.repair_edits WHERE outcome IS NOT NULL"
    assert query(feed.postgres, made) == [(0,)]
    settled(feed)
    assert query(feed.postgres, made) == [(2,)]
    ticks.check(time.time_ns())


def test_what_was_settled_of_an_entity_is_kept_when_the_rest_fails(stores: Stores) -> None:
    feed = Feed(stores, random.Random(2))
    for number in range(3):
        feed.at_ms += 60_000
        feed.send([feed.trade("A", 5.0 + number, ts=feed.at_ms + n) for n in range(30)])
        feed.send([feed.trade("A", 7.0, ts=feed.at_ms - 30_000)])
    ticks = Ticks(feed)
    ticks.repair()
    repair(feed, stores.catalog)
    engine = connect(feed.postgres, pool_size=1)
    registry = Registry(engine, By("ann"))
    written = {"source": "price", "expression": "mean(price, 7)"}
    registry.create_feature_version("other_sma_7", "1.0.0", written)
    stores.execute(
        "CREATE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57014'; END $$"
    )
    stores.execute(
        "CREATE TRIGGER fails BEFORE UPDATE ON tickwell.repair_edits FOR EACH ROW WHEN"
        ' (OLD."offset" = (92)) EXECUTE FUNCTION public.fails()'
    )
    work = Repair(feed.postgres, registry.catalog(), "price", limits=Limits(0.0))
    with pytest.raises(StoreUnavailable):
        work.settle(Event())
    newest = registry.catalog().writing["price"]
    settled_in = 'SELECT "offset", settled_in FROM tickwell.repair_edits ORDER BY 1'
    kept = [offset for offset, schema in query(feed.postgres, settled_in) if schema == newest]
    assert kept == [30, 61]
    stores.execute("DROP TRIGGER fails ON tickwell.repair_edits")
    work.settle(Event())
    assert [schema for _, schema in query(feed.postgres, settled_in)] == [newest] * 3
    ticks.check(time.time_ns())
    engine.dispose()


def test_a_newer_row_schema_is_brought_up_and_a_backfill_is_not_taken_for_a_revision(
    stores: Stores,
) -> None:
    feed = Feed(stores, random.Random(3))
    for _ in range(8):
        feed.go_on(30)
    ticks = Ticks(feed)
    repair(feed, stores.catalog)
    ticks.repair()
    engine = connect(feed.postgres, pool_size=1)
    registry = Registry(engine, By("ann"))
    schema = {"source": "price", "expression": "mean(price, 5)"}
    registry.create_feature_version("other_sma_5", "1.0.0", schema)
    feed.work_by(registry.catalog())
    revised = query(
        feed.postgres,
        "SELECT entity, event_time, max(revision) FILTER (WHERE sequence = newest)"
        " FROM (SELECT *, max(sequence) OVER (PARTITION BY entity, event_time) AS newest"
        "   FROM tickwell.feature_rows) AS each"
        " WHERE op < 3 GROUP BY 1, 2 HAVING max(revision) > 0",
    )
    questions = [(entity, at) for entity, at, _ in revised]
    names = ["other_sma_5", "price_sma_5"]

    def answers() -> list[tuple[Cell, Cell]]:
        other, same = known_at(feed.postgres, names, questions, time.time_ns()).values()
        fresh = [(bits, status.replace("stale", "ok"), at) for bits, status, at in same]
        return list(zip(other, fresh, strict=True))

    backfill(engine, feed.postgres, "other_sma_5@1.0.0")
    with snapshot(feed.postgres) as seen:  # as a join, which refuses what is not settled
        n, at = len(questions), np.array([at for _, at in questions])
        known = np.full(n, time.time_ns())
        symbols, numbers = [symbol for symbol, _ in questions], np.arange(n, dtype=np.int32)
        found = ticks_as_of(
            seen,
            Names(seen.catalog),
            "price",
            Asked(symbols, numbers, at, known, repaired=True),
            ["other_sma_5@1.0.0"],
            backfills_of(seen),
        )
        *_, lacks = found.column("other_sma_5@1.0.0")
    # what a backfill computed is of what was served, and a revision has no value of it yet
    assert lacks.tolist() == [revision > 0 for *_, revision in revised]
    with pytest.raises(InvalidRequest, match="a repair of price is under way"):
        answers()
    assert settled(feed) > 0
    assert all(other == same for other, same in answers())
    feed.go_on(30)
    settled(feed)
    assert settled(feed) == 0
    ticks.check(time.time_ns())
    engine.dispose()


def test_a_version_with_longer_windows_keeps_what_a_later_repair_has_done(stores: Stores) -> None:
    """An earlier repair reaches a tick that a later one has corrected, or cancelled, already."""
    feed = Feed(stores, random.Random(7))
    sent = []
    for n in range(160):
        feed.at_ms += 10_000
        sent.append(feed.trade("A", 100.0 + n % 7))
        feed.send(sent[-1:])
    known = []
    for number, more in ((45, {"price": 50.0}), (70, {"price": 60.0}), (80, {})):
        of = {"ts": sent[number]["ts"], "seq": sent[number]["seq"]}
        op = "correct" if more else "cancel"
        feed.send([{"symbol": "A", "ts": feed.at_ms, "op": op, "of": of, **more}])
        repair(feed, stores.catalog)
        known.append(time.time_ns())
    questions = [("A", one["ts"] * 10**6) for one in sent[40:130]]
    before = [known_at(feed.postgres, [*FEATURES], questions, moment) for moment in known]
    engine = connect(feed.postgres, pool_size=1)
    registry = Registry(engine, By("ann"))
    registry.extend_views({"price"})
    shown = "SELECT price FROM features.price_repaired ORDER BY event_time"
    prices = query(feed.postgres, shown)
    assert len(prices) == 159
    schema = {"source": "price", "expression": "mean(price, 40)"}
    registry.create_feature_version("price_sma_40", "1.0.0", schema)
    feed.work_by(registry.catalog())
    backfill(engine, feed.postgres, "price_sma_40@1.0.0")
    with pytest.raises(InvalidRequest, match="a repair of price is under way"):
        known_at(feed.postgres, ["price_sma_40"], questions, known[-1])
    known_at(feed.postgres, ["price_sma_40"], questions, NOW_MS * 10**6)  # before all repairs
    assert settled(feed) > 0
    assert settled(feed) == 0
    after = [known_at(feed.postgres, [*FEATURES], questions, moment) for moment in known]
    assert after == before
    assert query(feed.postgres, shown) == prices
    found = known_at(feed.postgres, ["price_sma_40"], questions, known[-1])["price_sma_40"]
    listed = [price for (price,) in prices]
    places = {one["ts"]: place for place, one in enumerate(sent[:80] + sent[81:])}
    for (_, at), (bits, _, _) in zip(questions, found, strict=True):
        place = places.get(at // 10**6, 79)
        assert bits == (sum(listed[place - 39 : place + 1]) / 40).hex()
    engine.dispose()


def test_a_row_that_came_after_a_repair_is_known_as_late_as_it_came(stores: Stores) -> None:
    feed = Feed(stores, random.Random(5))
    feed.at_ms = time.time_ns() // 10**6 - 100_000
    sent = [feed.trade("A", float(n), ts=feed.at_ms - 50_000 + n) for n in range(10)]
    feed.send(sent)
    of = {"ts": sent[9]["ts"], "seq": sent[9]["seq"]}
    feed.send([{"symbol": "A", "ts": feed.at_ms, "op": "correct", "price": 50.0, "of": of}])
    repair(feed, stores.catalog)
    known = time.time_ns()
    time.sleep(0.01)
    feed.at_ms = time.time_ns() // 10**6
    feed.send([feed.trade("A", 11.0)])
    assert settled(feed) == 1
    question = [("A", feed.at_ms * 10**6)]
    (before,) = known_at(feed.postgres, ["price_sma_5"], question, known)["price_sma_5"]
    (after,) = known_at(feed.postgres, ["price_sma_5"], question, time.time_ns())["price_sma_5"]
    assert before[0] == ((5.0 + 6.0 + 7.0 + 8.0 + 50.0) / 5).hex()
    assert after[0] == ((6.0 + 7.0 + 8.0 + 50.0 + 11.0) / 5).hex()


@pytest.mark.parametrize("inserts", [1, 50])
def test_a_row_that_was_stored_after_two_repairs_has_a_revision_of_each(
    stores: Stores, inserts: int
) -> None:
    """It became known between them; and however many ticks the second one has let in before it."""
    feed = Feed(stores, random.Random(1))
    sent = []
    for price in range(1, 9):
        feed.at_ms += 10_000
        sent.append(feed.trade("A", float(price)))
        feed.send(sent[-1:])
    of = {"ts": sent[6]["ts"], "seq": sent[6]["seq"]}
    feed.send([{"symbol": "A", "ts": feed.at_ms, "op": "cancel", "of": of}])
    assert repair(feed, stores.catalog).made == {"cancel": 1}
    time.sleep(0.01)
    between = time.time_ns() // 10**6
    time.sleep(0.01)
    late = [feed.trade("A", 50.0, ts=sent[4]["ts"] + number) for number in range(inserts)]
    feed.send(late)
    work = Repair(feed.postgres, stores.catalog, "price", first_rows=1, limits=Limits(0.0))
    made = work.run(Chosen(), "ann", "", lambda _: None, Event()).made
    assert made == {"insert": inserts}
    feed.at_ms = between
    feed.send([feed.trade("A", 100.0)])
    assert work.settle(Event()) > 0
    at, ((second,),) = (
        between * 10**6,
        query(feed.postgres, "SELECT max(known_at) FROM tickwell.repairs"),
    )
    revisions = query(
        feed.postgres,
        "SELECT revision, known_at FROM tickwell.feature_rows"
        " WHERE event_time = %s AND revision > 0 ORDER BY 1",
        at,
    )
    assert revisions == [(1, at), (2, second)]
    means = []
    for known in (None, at, time.time_ns()):
        ((bits, _, _),) = known_at(feed.postgres, ["price_sma_5"], [("A", at)], known)[
            "price_sma_5"
        ]
        means.append(float.fromhex(str(bits)))
    before = [5.0, 50.0] if inserts == 1 else [50.0, 50.0]
    assert means == [
        sum([5.0, 6.0, 7.0, 8.0, 100.0]) / 5,
        sum([4.0, 5.0, 6.0, 8.0, 100.0]) / 5,
        sum([*before, 6.0, 8.0, 100.0]) / 5,
    ]


def test_what_was_loaded_is_not_repaired(stores: Stores, tmp_path: Path) -> None:
    """Edits of loaded ticks are refused, and late ticks have windows of ticks from Kafka alone."""
    feed = Feed(stores, random.Random(4))
    at = feed.at_ms
    old = [("A", float(n), at + 1_000 * n, n) for n in range(30)]
    load_files(stores.postgres, [as_csv(tmp_path, old)])
    loaded = loaded_rows(stores.postgres)
    feed.at_ms += 100_000
    feed.send([feed.trade("A", 500.0)])
    edit = {"symbol": "A", "ts": feed.at_ms, "seq": 1, "of": {"ts": old[3][2], "seq": 3}}
    late = {"symbol": "A", "price": 100.0, "ts": old[20][2] + 1}
    again = {"symbol": "A", "price": 20.0, "ts": old[20][2], "seq": 20}
    feed.send([{**edit, "op": "cancel"}, {**edit, "op": "correct", "price": 1.0}])
    feed.send([{**late, "seq": 90}, again])
    done = repair(feed, stores.catalog)
    assert done.made == {"insert": 1}
    assert done.refused == {
        "the tick that it names was loaded from files, and a repair changes only what came from "
        "Kafka": 2,
        "the same ts and seq are stored already": 1,
    }
    assert settled(feed) == 0
    assert loaded_rows(stores.postgres) == loaded
    moments = [("A", moment * 10**6) for moment in (old[20][2], old[20][2] + 1, old[21][2])]
    found = known_at(feed.postgres, ["current_price", "price_sma_5"], moments, time.time_ns())
    assert [bits for bits, *_ in found["current_price"]] == [x.hex() for x in (20.0, 100.0, 21.0)]
    assert [status.replace("stale", "ok") for _, status, _ in found["price_sma_5"]] == [
        *("ok", "warming", "ok")
    ]


def test_many_edits_of_an_entity_are_made_some_at_a_time(stores: Stores) -> None:
    """A stop waits for one edit; another repair, or a worker, gets the entity in between."""
    feed = Feed(stores, random.Random(4))
    ticks = Ticks(feed)
    for _ in range(40):
        feed.at_ms += 500
        feed.send([feed.trade("A", 5.0)])
    at_once = 8
    edits = 2 * at_once + 3
    first = feed.at_ms
    feed.send([feed.trade("A", float(n), ts=first - 5_000 - 50 * n) for n in range(edits)])
    made = "SELECT count(*) FROM tickwell.repair_edits WHERE outcome = 'made'"
    reported: list[int] = []
    before = 0

    def report(done: Repaired) -> None:
        reported.append(done.done)
        assert query(feed.postgres, made) == [(before + done.done,)]

    work = Repair(feed.postgres, stores.catalog, "price", limits=Limits(edits=at_once))
    begun = work.run(Chosen(), "ann", "", report, After(9))
    assert reported == [begun.done]
    assert 0 < begun.done < at_once
    assert begun.edits == edits
    before = begun.done
    rest = work.run(Chosen(), "ann", "", report, NEVER)
    assert rest.done == edits - begun.done
    assert max(np.diff([0, *reported[1:]])) == at_once
    ticks.repair()
    assert settled(feed) == 0
    ticks.check(time.time_ns())
    assert work.run(Chosen(), "ann", "", report, NEVER).edits == 0


def test_a_repair_that_is_stopped_while_it_reads_begins_nothing(stores: Stores) -> None:
    feed = Feed(stores, random.Random(4))
    feed.at_ms += 100_000
    feed.send([feed.trade("A", 5.0)])
    feed.send([feed.trade("A", float(n), ts=feed.at_ms - 5_000 - n) for n in range(6)])
    work = Repair(feed.postgres, stores.catalog, "price", page=2)
    assert work.run(Chosen(), "ann", "", lambda _: None, After(2)).edits == 0
    assert query(feed.postgres, "SELECT count(*) FROM tickwell.repairs") == [(0,)]


def test_an_entity_that_another_process_repairs_is_named(stores: Stores) -> None:
    feed = Feed(stores, random.Random(4))
    feed.at_ms += 100_000
    feed.send([feed.trade("A", 5.0)])
    feed.send([feed.trade("A", 6.0, ts=feed.at_ms - 5_000)])
    work = Repair(feed.postgres, stores.catalog, "price", limits=Limits(patience_seconds=0.1))
    other = Database(feed.postgres, "tickwell repair")
    with closing(other), other.transaction() as cursor:
        cursor.execute(ENTITY_LOCK, ("price\x1fA",))
        with pytest.raises(RepairElsewhere, match="another process repairs price of A now"):
            work.run(Chosen(), "ann", "", lambda _: None, NEVER)
    assert work.run(Chosen(), "ann", "", lambda _: None, NEVER).made == {"insert": 1}


def test_ticks_that_cannot_be_let_in_are_named(stores: Stores) -> None:
    feed = Feed(stores, random.Random(4))
    feed.at_ms += 100_000
    first = feed.trade("A", 5.0)
    feed.send([first])
    feed.at_ms += 10_000
    again = {"symbol": "A", "price": 5.0, "ts": feed.at_ms - 5_000, "seq": 8}
    named = {"ts": first["ts"], "seq": first["seq"]}
    at = {"symbol": "A", "ts": feed.at_ms, "seq": 9}
    feed.send(
        [
            feed.trade("A", 6.0),
            again,
            again,
            {**at, "op": "cancel"},
            {**at, "op": "cancel", "of": {"ts": 5, "seq": 5}},
            {**at, "op": "cancel", "of": {"ts": first["ts"]}},
            {**at, "op": "cancel", "of": {"ts": "yesterday", "seq": 5}},
            {**at, "op": "bust", "of": named},
            {**at, "op": "correct", "of": named},
            {**at, "op": "cancel", "of": named},
            {**at, "op": "correct", "price": 3.0, "of": named},
        ]
    )
    done = repair(feed, stores.catalog)
    assert done.made == {"insert": 1, "cancel": 1}
    assert done.refused == {
        "the same ts and seq are stored already": 1,
        "no tick is stored that it names": 1,
        "the tick that it names is cancelled": 1,
    }
    assert sum(done.unreadable.values()) == 4, done.unreadable
    assert any("price is missing" in why for why in done.unreadable)


def test_what_no_tick_can_be_stops_no_repair(stores: Stores) -> None:
    feed = Feed(stores, random.Random(6))
    feed.at_ms += 100_000
    first = feed.trade("A", 5.0)
    feed.send([first, feed.trade("A", 6.0)])
    named = {"ts": first["ts"], "seq": first["seq"]}
    at = {"symbol": "A", "price": 1.0, "ts": feed.at_ms, "seq": 9}
    nested: Any = []
    for _ in range(480):
        nested = [nested]
    edits = [
        {**at, "symbol": symbol, "op": "cancel", "of": named} for symbol in ("A\0", "A\ud800", "")
    ]
    edits += [
        {**at, "op": op, "of": {**named, "seq": seq}}
        for op in ("cancel", "correct")
        for seq in ("x\0", "\ud800", "")
    ]
    feed.send(edits, key=b"A")
    feed.send([{**at, "op": "correct", "of": named, "more": nested}])
    done = repair(feed, stores.catalog)
    assert done.made == {"correct": 1}
    assert done.edits == 1
    assert sum(done.unreadable.values()) == len(edits)
    assert query(feed.postgres, "SELECT count(*) FROM tickwell.repairs") == [(1,)]
    assert settled(feed) == 0


@pytest.mark.parametrize("seed", seeds(few=1, many=20))
def test_what_was_answered_stays_while_repairs_versions_and_ticks_go_on(
    stores: Stores, seed: int
) -> None:
    chance = random.Random(seed)
    feed = Feed(stores, chance)
    engine = connect(feed.postgres, pool_size=1)
    registry = Registry(engine, By("ann"))
    ticks = Ticks(feed)

    def go_on(n: int) -> None:
        feed.at_ms = max(feed.at_ms + 1, time.time_ns() // 10**6)
        feed.send([feed.message() for _ in range(n)])

    def ask() -> None:
        known = time.time_ns() - chance.choice([0, 0, 10**7, 10**8, 10**9])
        keys = [(symbol, at) for symbol in SYMBOLS for at, _ in ticks.of(symbol)]
        questions = [chance.choice(keys) for _ in range(20)]
        with suppress(InvalidRequest):
            answer = known_at(feed.postgres, [*FEATURES], questions, known)
            answers.append((known, questions, answer))

    answers: list[Any] = []
    for _ in range(6):
        go_on(30)
    for number in range(120):
        match chance.choices(["repair", "settle", "ticks", "ask"], [2, 1, 4, 4])[0]:
            case "repair":
                kinds = chance.sample(["insert", "cancel", "correct"], chance.randrange(1, 4))
                repair(feed, registry.catalog(), kinds=frozenset(kinds))
            case "settle":
                settled(feed)
            case "ticks":
                go_on(chance.randrange(1, 12))
            case "ask":
                ask()
        if number == 60:
            written = {"source": "price", "expression": "mean(price, 7)"}
            registry.create_feature_version("other_sma_7", "1.0.0", written)
            feed.work_by(registry.catalog())
    repair(feed, registry.catalog())
    settled(feed)
    assert settled(feed) == 0
    for known, questions, answer in answers:
        assert known_at(feed.postgres, [*FEATURES], questions, known) == answer  # to the bit
    differing = query(
        feed.postgres,
        "SELECT entity, event_time, sequence, revision FROM tickwell.feature_rows"
        " WHERE revision > 0 GROUP BY 1, 2, 3, 4"
        " HAVING count(DISTINCT (op, fields::text, known_at)) > 1",
    )
    assert differing == []  # a revision that is in several row schemas is one
    ticks.repaired()
    ticks.check(time.time_ns())
    engine.dispose()


def test_a_repair_by_definitions_of_before_goes_no_further(stores: Stores) -> None:
    feed = Feed(stores, random.Random(7))
    for _ in range(6):
        feed.go_on(30)
    ticks, before = Ticks(feed), stores.catalog
    engine = connect(feed.postgres, pool_size=1)
    registry = Registry(engine, By("ann"))
    written = {"source": "price", "expression": "mean(price, 7)"}
    registry.create_feature_version("other_sma_7", "1.0.0", written)
    engine.dispose()
    with pytest.raises(DefinitionsChanged):
        repair(feed, before)
    ticks.repair()
    settled(feed)
    ticks.check(time.time_ns())
