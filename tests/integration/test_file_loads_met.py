"""Loads that meet rows of other loads and of live; and live, which never notices."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.load.errors import RowsDiffer
from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from serving.features.lookup import Names
from serving.history.found_ticks import Asked as AskedTicks
from serving.history.snapshot import SCAN_LIMITS, snapshot
from serving.history.ticks_as_of import ticks_as_of
from tests.oracle.features import expect
from tests.support.file_loads import (
    Asked,
    Tick,
    as_csv,
    forget_everything,
    in_order,
    live_rows,
    load_files,
    loaded_rows,
    loads_at,
    records_of,
    runs_of,
    ticks,
    without_origins,
)
from tests.support.logs import PRICE, PRICE_FEATURES
from tests.support.past import ALWAYS
from tests.support.rebuilds import KEPT, TOPIC, Stores, both, quiet
from tests.support.repairs import Feed, repair
from tests.support.seeds import seeds
from tests.support.sinks import query
from tests.support.tick_files import TS

DAY = 86_400_000
"""Milliseconds."""


def accepted(made: list[Tick]) -> int:
    """How many ticks are no duplicates, by the oracle."""
    return sum(map(len, expect(records_of(made), PRICE, PRICE_FEATURES).rows.values()))


def test_the_same_command_again_changes_nothing(database: str, tmp_path: Path) -> None:
    file = as_csv(tmp_path, ticks(400))
    load_files(database, [file])
    before = loaded_rows(database)
    again = as_csv(tmp_path, ticks(400), "of another name.csv")
    assert load_files(database, [again]).offsets == 0
    assert loaded_rows(database) == before
    assert len(loads_at(database)) == 1


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_a_file_that_grew_adds_what_is_new(database: str, tmp_path: Path, seed: int) -> None:
    """Its windows go on from the rows of the file before, whatever the runs."""
    made = in_order(ticks(900, seed))
    cut = TS + random.Random(seed).randrange(20_000, 80_000)
    begun = [tick for tick in made if tick[2] <= cut]
    load_files(database, [as_csv(tmp_path, begun, "begun.csv")])
    done = load_files(database, [as_csv(tmp_path, made, "grown.csv")])
    assert done.passed_over == len(begun)
    assert done.rows == len(loaded_rows(database)) - accepted(begun)
    found = without_origins(loaded_rows(database))
    forget_everything(database)
    load_files(database, [as_csv(tmp_path, made)])
    assert without_origins(loaded_rows(database)) == found


def test_a_file_around_another_one_goes_on_from_its_rows(database: str, tmp_path: Path) -> None:
    """What is before it begins without windows, what is after it has those of its last rows."""
    made = in_order(ticks(900, symbols="AB"))
    first, last = (TS + 30_000) * 10**6, (TS + 70_000) * 10**6
    middle = [tick for tick in made if first <= tick[2] * 10**6 <= last]
    load_files(database, [as_csv(tmp_path, middle, "middle.csv")])
    done = load_files(database, [as_csv(tmp_path, made, "whole.csv")], Asked(run_ticks=2_000))
    assert done.passed_over == len(middle)
    found = without_origins(loaded_rows(database))
    forget_everything(database)
    load_files(database, [as_csv(tmp_path, made)])
    whole = without_origins(loaded_rows(database))
    assert len(found) == len(whole)
    around = [row for row in whole if not first <= row[2] <= last]
    assert [row for row in found if not first <= row[2] <= last] == around
    assert {row[2] > last for row in around} == {True, False}


def test_a_later_file_goes_on_with_the_windows_and_an_earlier_one_begins_without(
    database: str, tmp_path: Path
) -> None:
    first, second, third = (ticks(300, seed, first=TS + seed * DAY) for seed in (1, 2, 3))
    load_files(database, [as_csv(tmp_path, second)])
    load_files(database, [as_csv(tmp_path, third)])
    before = loaded_rows(database)
    load_files(database, [as_csv(tmp_path, first)])
    after = without_origins(loaded_rows(database))
    earlier = [row for row in after if row[2] < (TS + DAY + 40_000) * 10**6]
    later = [row for row in after if row[2] >= (TS + DAY + 40_000) * 10**6]
    forget_everything(database)
    load_files(database, [as_csv(tmp_path, first)])
    assert without_origins(loaded_rows(database)) == [row for row in after if row not in later]
    assert len(earlier) + len(later) == len(after)
    forget_everything(database)
    load_files(database, [as_csv(tmp_path, second + third)])
    assert without_origins(loaded_rows(database)) == without_origins(before)


@pytest.mark.parametrize("other", ["another price", "one more", "one less"])
def test_ticks_that_differ_are_refused_and_nothing_is_stored(
    database: str, tmp_path: Path, other: str
) -> None:
    made = in_order(ticks(600, symbols="ABCD"))
    load_files(database, [as_csv(tmp_path, made)])
    before = loaded_rows(database), query(database, "SELECT count(*) FROM tickwell.entities")
    changed = [*made]
    middle = next(n for n, tick in enumerate(made) if tick[0] == "C") + 20
    symbol, price, ts, _ = made[middle]
    if other == "another price":
        changed[middle] = (symbol, price + 1, ts, made[middle][3])
    elif other == "one more":
        changed.append((symbol, price, ts, 99))
    else:
        del changed[middle]
    changed.append(("NEW", 1.5, TS, None))
    with pytest.raises(RowsDiffer, match="of 1 entities: C ") as refused:
        load_files(database, [as_csv(tmp_path, changed, "changed.csv")])
    assert len(refused.value.differences) == 1
    assert (loaded_rows(database), query(database, "SELECT count(*) FROM tickwell.entities")) == (
        before
    )
    assert len(loads_at(database)) == 1


def test_what_kafka_brought_is_passed_over_and_what_is_older_is_loaded(
    stores: Stores, tmp_path: Path
) -> None:
    made = in_order(ticks(800))
    cut = TS + 40_000
    brought = [tick for tick in made if tick[2] >= cut]
    both(stores, runs_of(brought))
    before = live_rows(stores.postgres)
    done = load_files(stores.postgres, [as_csv(tmp_path, made)])
    assert done.passed_over == len(brought)
    assert live_rows(stores.postgres) == before
    assert all(row[2] < cut * 10**6 for row in loaded_rows(stores.postgres))
    assert len(loaded_rows(stores.postgres)) == accepted([t for t in made if t[2] < cut])


def test_what_a_repair_has_let_in_is_met_as_what_live_took(stores: Stores, tmp_path: Path) -> None:
    """As it came: also where it was corrected or cancelled since, and whatever its sequence is."""
    feed = Feed(stores, random.Random(1))
    start = feed.at_ms = feed.at_ms + 100_000
    trade = {"symbol": "A", "price": 1.0}
    taken = [{**trade, "ts": start + 1_000 * n, **({"seq": n} if n % 2 else {})} for n in range(10)]
    let_in = [
        {**trade, "price": 2.0, "ts": start + 1_500, "seq": 90},
        {**trade, "price": 3.0, "ts": start + 2_500},
        {**trade, "price": 4.0, "ts": start + 3_000, "seq": 0},  # before that of live in its order
        {**trade, "price": 5.0, "ts": start + 4_000},
        {**trade, "price": 6.0, "ts": start + 1_750, "seq": 91},
        {**trade, "price": 7.0, "ts": start - 500},
    ]
    feed.at_ms += 20_000
    feed.send([*taken, *let_in])
    edit = {"symbol": "A", "ts": feed.at_ms, "seq": 1}
    of = [{"ts": let_in[n]["ts"], "seq": let_in[n]["seq"]} for n in (0, 4)]
    feed.send(
        [
            {**edit, "op": "correct", "price": 20.0, "of": of[0]},
            {**edit, "op": "cancel", "of": of[1]},
        ]
    )
    done = repair(feed, stores.catalog)
    assert done.made == {"insert": len(let_in), "correct": 1, "cancel": 1}, done.refused
    older = [("A", 9.0, start - 1_000 * n, n) for n in (5, 6)]
    file = [*older, *((t["symbol"], t["price"], t["ts"], t.get("seq")) for t in taken + let_in)]
    for number in range(len(let_in)):
        n = number - len(let_in)
        symbol, price, ts, seq = file[n]
        others = [*file[:n], *file[len(file) + n + 1 :]]
        for name, changed in (("less", others), ("price", [*others, (symbol, price + 1, ts, seq)])):
            with pytest.raises(RowsDiffer, match="of 1 entities: A "):
                load_files(stores.postgres, [as_csv(tmp_path, changed, f"{name}-{number}.csv")])
    loaded = load_files(stores.postgres, [as_csv(tmp_path, file)])
    assert loaded.passed_over == len(taken) + len(let_in)
    assert loaded.rows == len(older)


def test_ticks_after_those_from_kafka_are_refused(stores: Stores, tmp_path: Path) -> None:
    made = in_order(ticks(400, symbols="AB"))
    both(stores, runs_of([tick for tick in made if tick[2] < TS + 20_000]))
    later = [tick for tick in made if tick[2] >= TS + 20_000]
    for refused in (made, later):
        with pytest.raises(RowsDiffer, match=r"A has ticks at .*, after those from Kafka"):
            load_files(stores.postgres, [as_csv(tmp_path, refused)])
    assert not loaded_rows(stores.postgres)


def test_of_one_time_the_ticks_from_kafka_come_after_loaded_ones(
    stores: Stores, tmp_path: Path
) -> None:
    """Kafka brings ticks of times that are loaded: both are kept, whatever their sequences are."""
    feed = Feed(stores, random.Random(1))
    start = feed.at_ms
    feed.at_ms += 100_000
    old = [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0), (3, 5.0), (4, 6.0), (5, 7.0)]
    file = [("A", price, start + 1_000 * at, seq) for seq, (at, price) in enumerate(old)]
    load_files(stores.postgres, [as_csv(tmp_path, file)])
    new = [(2, 30.0), (3, 40.0), (4, 60.0), (4, 61.0), (5, 70.0)]
    sent = [
        {"symbol": "A", "price": price, "ts": start + 1_000 * at, "seq": seq}
        for seq, (at, price) in enumerate(new)
    ]
    feed.send(sent[:4])
    registry = Registry(connect(stores.postgres, pool_size=1), By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )
    feed.work_by(registry.catalog())
    of = {"ts": sent[0]["ts"], "seq": sent[0]["seq"]}
    feed.send([sent[4], {"symbol": "A", "ts": feed.at_ms, "seq": 9, "op": "cancel", "of": of}])
    assert repair(feed, registry.catalog()).made == {"cancel": 1}

    times = np.array([(start + 1_000 * at) * 10**6 for at in range(6)])
    arrived, ever = (feed.at_ms - 1) * 10**6, time.time_ns()
    before, after = [1.0, 2.0, 3.0, 5.0, 6.0, 7.0], [1.0, 2.0, 30.0, 40.0, 61.0, 70.0]
    for known, repaired, scans, expected in (
        (arrived, False, SCAN_LIMITS, before),
        (ever, False, SCAN_LIMITS, after),
        (arrived, False, ALWAYS, before),
        (ever, False, ALWAYS, after),
        (arrived, True, SCAN_LIMITS, before),
        (ever, True, SCAN_LIMITS, [1.0, 2.0, 2.0, 40.0, 61.0, 70.0]),
    ):
        with snapshot(stores.postgres, scans=scans) as seen:
            which, knowns = np.zeros(6, np.int32), np.full(6, known)
            asked = AskedTicks(["A"], which, times, knowns, repaired)
            refs = ["current_price@1.0.0", "price_sma_5@2.0.0"]
            found = ticks_as_of(seen, Names(seen.catalog), "price", asked, refs, {})
        assert found.plan == ("scan" if scans is ALWAYS else "lateral")
        assert found.column(refs[0])[0].tolist() == expected
        assert found.loaded.tolist() == [value < 10 for value in expected]
        # no value of the one is taken for one of the other
        assert found.column(refs[1])[2].tolist() == [value != 70 for value in expected]
    shown = "SELECT price FROM features.{} ORDER BY price"
    prices = sorted(price for _, price in old + new)
    assert [p for (p,) in query(stores.postgres, shown.format("price"))] == prices
    registry.extend_views({"price"})
    kept = [price for price in prices if price not in (3.0, 30.0)]
    assert [p for (p,) in query(stores.postgres, shown.format("price_repaired"))] == kept


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_live_never_notices_a_load(stores: Stores, tmp_path: Path, seed: int) -> None:
    """Workers that are new after it, of both stores, and a Redis that is filled anew.

    The load has some of live's symbols, others that live brings later, and more ticks of each than
    windows have; also with Kafka bringing ticks of the times that are loaded.
    """
    chance = random.Random(seed)
    log = sorted(ticks(700, seed, "ABCDE", TS + DAY), key=lambda tick: tick[2])
    cut = chance.randrange(1, 600)
    first, second = runs_of(log[:cut]), runs_of(log[cut:], cut)

    def live(load: bool) -> tuple[object, ...]:
        forget_everything(stores.postgres)
        stores.flush()
        both(stores, first)
        known = {row[1] for row in live_rows(stores.postgres)}
        if load:
            old = ticks(600, seed + 100, "ABCDEFG", TS - 2 * DAY)
            old += [tick for tick in ticks(200, seed, "DE", TS + DAY) if tick[0] not in known]
            assert load_files(stores.postgres, [as_csv(tmp_path, old)]).rows > 500
        stores.flush()
        stores.rebuild().fill(KEPT, TOPIC, quiet)
        filled = stores.rows(), stores.states("ABCDE")
        both(stores, second)
        return filled, stores.rows(), stores.states("ABCDE"), live_rows(stores.postgres)

    assert live(load=True) == live(load=False)
