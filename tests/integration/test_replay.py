"""Replays against real stores: what they restore, and which ranges they refuse."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from pipelines.errors import LogBegins, LogCut, RangeMistaken
from pipelines.replay.jobs import run_ranges
from pipelines.replay.ranges import Wanted
from pipelines.replay.replay import Done
from tests.support.logs import NOW_MS
from tests.support.pipeline import Pipeline
from tests.support.replays import (
    GO_ON,
    PARTITIONS,
    after,
    delete_before,
    empty_database,
    execute,
    live,
    produce,
    ranges_of,
    recreate,
    replay,
    work_of,
)

# -- incarnations


def test_a_new_incarnation_begins_with_the_state_of_the_old_one(running: Pipeline) -> None:
    produce(running, 600)
    live(running)
    old = running.topics[running.topic("price")].topic_id
    recreate(running)
    produce(running, 600, seed=2)
    dump = live(running)
    assert replay(running).new_rows == 0
    # from rows of the old one alone, and stopped on the way
    execute(running, "DELETE FROM tickwell.feature_rows WHERE topic_id <> %s::uuid", old.hex())
    execute(running, "DELETE FROM tickwell.watermarks WHERE topic_id <> %s::uuid", old.hex())
    stop = Event()
    assert replay(running, restart=True, report=after(4, stop.set), stop=stop).new_rows > 0
    assert replay(running).new_rows > 0
    assert running.dump() == dump


# -- a log whose beginning is gone


def test_where_retention_took_the_beginning_the_rows_of_live_are_the_state(
    running: Pipeline,
) -> None:
    produce(running, 1200)
    dump = live(running)
    delete_before(running, 150)
    done = replay(running)
    since = running.query('SELECT count(*) FROM tickwell.feature_rows WHERE "offset" >= 150')
    assert (done.new_rows, [(done.rows,)]) == (0, since)
    assert running.dump() == dump

    with empty_database(running) as empty:
        with pytest.raises(LogBegins, match="begins at offset 150: the ticks before it are delet"):
            ranges_of(empty)
        # no offset that the log has is known by itself
        with pytest.raises(LogBegins):
            ranges_of(empty, Wanted(from_offset=200))
        assert empty.query("SELECT count(*) FROM tickwell.feature_rows") == [(0,)]


def test_cold_begins_with_empty_windows_and_is_remembered(running: Pipeline) -> None:
    produce(running, 1200)
    delete_before(running, 150)
    stop = Event()
    replay(running, Wanted(cold=True), report=after(3, stop.set), stop=stop)
    replay(running, Wanted(cold=True))
    dump = running.dump()
    first = running.query(
        'SELECT min("offset"), min(get_byte(status, 1)) FROM ('
        ' SELECT DISTINCT ON (entity) "offset", status FROM tickwell.feature_rows'
        " ORDER BY entity, event_time, sequence) AS firsts"
    )
    assert first[0][0] >= 150
    assert first[0][1] == 1, "the mean of five warms up"
    # cut again: what was replayed is the state now, and no replay has to begin cold
    delete_before(running, 300)
    assert replay(running).new_rows == 0
    assert running.dump() == dump


def test_where_live_misses_the_same_ticks_it_is_followed(running: Pipeline) -> None:
    """Live was off for longer than retention: it resumes at the log's beginning, with its rows."""
    produce(running, 600)
    live(running)
    produce(running, 600, seed=2)
    delete_before(running, 400)  # live is at about 300
    with pytest.raises(LogBegins, match="once live has passed this offset"):
        ranges_of(running, Wanted(from_offset=450, cold=True))
    with pytest.raises(LogBegins):
        ranges_of(running, Wanted(from_offset=450))
    assert replay(running).new_rows > 0
    dump = running.dump()
    assert live(running) == dump, "and finds the rows that it would have written"


def test_cold_is_refused_where_live_would_go_on_from_rows(running: Pipeline) -> None:
    """Those of another replay; what it wrote with empty windows live would contradict for ever."""
    produce(running, 600)
    replay(running, Wanted(to_offset=200))
    delete_before(running, 250)
    with pytest.raises(LogBegins):
        ranges_of(running, Wanted(cold=True))


@pytest.mark.parametrize("live_was_there", [False, True])
def test_of_two_equal_replays_the_slower_one_ends_with_the_faster(
    running: Pipeline, live_was_there: bool
) -> None:
    produce(running, 600)
    if live_was_there:  # then rows are staged, and not copied into the table
        live(running)
    part = next(part for part in ranges_of(running) if part.offsets)
    faster: list[Done] = []
    with ThreadPoolExecutor() as pool:

        def be_faster() -> None:
            faster.append(pool.submit(replay, running).result())

        done = run_ranges(work_of(running), [part], after(2, be_faster), GO_ON)
    ((rows,),) = running.query(
        f"SELECT count(*) FROM tickwell.feature_rows WHERE partition = {part.partition}"
    )
    assert 0 < done.rows < rows < faster[0].rows


def test_a_replay_takes_no_partition_that_live_was_at(running: Pipeline) -> None:
    """Live would wait for whoever holds it."""
    produce(running, 100)
    parts = [part for part in ranges_of(running) if part.offsets]
    take = "SELECT alone FROM tickwell.begin_replayed('none', 'price', %s::uuid, %s, 0, '{}')"
    held = [(part.topic.topic_id.hex(), part.partition) for part in parts]
    assert [running.query(take, *each) for each in held] == [[(True,)]] * len(held)
    live(running)
    assert [running.query(take, *each) for each in held] == [[(False,)]] * len(held)


def test_records_deleted_before_their_turn_are_an_error(running: Pipeline) -> None:
    produce(running, 600)
    ranges = ranges_of(running)
    delete_before(running, 100)
    with pytest.raises(LogCut, match="offsets 0 to 99 were deleted"):
        run_ranges(work_of(running), ranges, lambda done: None, GO_ON)
    assert running.query("SELECT count(*) FROM tickwell.feature_rows") == [(0,)]


def test_records_deleted_while_others_are_read_are_an_error(running: Pipeline) -> None:
    """More than a fetch brings at once, so that the next records are fetched after the cut."""
    tick = json.dumps({"symbol": "A", "price": 1, "ts": NOW_MS, "padding": "x" * 2000}).encode()
    running.produce("price", [(b"A", tick)] * 2000, partition=0)
    with pytest.raises(LogCut):
        replay(running, report=after(1, lambda: delete_before(running, 1900, [0])))
    stored = running.query('SELECT max("offset") + 1, count(*) FROM tickwell.feature_rows')
    assert stored[0][0] == stored[0][1] < 1900, "right up to the cut"


# -- in any order of partitions


def test_partitions_read_in_another_order_give_the_same_rows(running: Pipeline) -> None:
    """Live's order is the log's; here it is turned round, and partitions take turns."""
    produce(running, 800)
    running.produce("position", [(b"P%d" % (n % 8), position(n)) for n in range(60)])
    dump = live(running)
    ranges = [part for part in ranges_of(running, restart=True) if part.offsets]
    assert len(ranges) == 2 * PARTITIONS, "every partition of both has ticks"
    with empty_database(running) as empty:
        reversed_ranges = [part for part in ranges_of(empty) if part.offsets][::-1]
        run_ranges(work_of(empty), reversed_ranges, lambda done: None, GO_ON)
        assert empty.dump() == dump
    with empty_database(running) as empty:
        by_halves(empty)
        assert empty.dump() == dump

    # where homes are known, also of what other partitioners sent elsewhere
    for partition in range(PARTITIONS):
        produce(running, 200, seed=9, partition=partition)
    dump = live(running)
    rejected = running.query(REJECTED)
    assert sum(reason == "wrong-partition" for *_, reason in rejected) > 100
    ranges = [part for part in ranges_of(running, restart=True) if part.offsets]
    done = run_ranges(work_of(running), ranges[::-1], lambda done: None, GO_ON)
    rows = running.query("SELECT count(*) FROM tickwell.feature_rows")
    assert ([(done.rows,)], done.new_rows) == (rows, 0)
    assert (running.dump(), running.query(REJECTED)) == (dump, rejected)


REJECTED = """\
SELECT topic_id::text, partition, "offset", index, reason FROM tickwell.rejected_ticks
ORDER BY 1, 2, 3, 4"""


def by_halves(running: Pipeline) -> None:
    """Half of every partition, the last one first; then the other halves, the first one first."""
    ranges = [part for part in ranges_of(running) if part.offsets]
    halves = [(part.begin + part.end) // 2 for part in ranges]
    work = work_of(running)
    for part, half in zip(reversed(ranges), reversed(halves), strict=True):
        work.run(replace(part, end=half), lambda done: None, GO_ON)
    going_on = [part for part in ranges_of(running) if part.offsets]
    assert [part.start for part in going_on] == halves
    run_ranges(work, going_on, lambda done: None, GO_ON)


def position(number: int) -> bytes:
    tick = {"portfolio": f"P{number % 8}", "symbol": f"S{number % 3}", "quantity": number}
    return json.dumps(tick | {"ts": time.time_ns() // 10**6}).encode()


# -- what cannot be meant


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted(partition=99), r"no partition 99: .*price has 0 to 1"),
        (Wanted(from_offset=10_000), r"--from-offset 10000: the log holds .*price\[0\] 20 to "),
        (Wanted(to_offset=10_000), r"--to-offset 10000: the log holds"),
        (Wanted(from_offset=5), r"--from-offset 5: the log holds"),
    ],
)
def test_what_the_log_does_not_have(running: Pipeline, wanted: Wanted, says: str) -> None:
    produce(running, 100)
    for source in ("volume", "position"):
        for number in range(PARTITIONS):
            running.produce(source, [(b"A", b"{")] * 20, partition=number)
    delete_before(running, 20)
    only = replace(wanted, sources=("price",), cold=True)
    with pytest.raises(RangeMistaken, match=says):
        ranges_of(running, only)


def test_a_range_that_ends_before_it_begins() -> None:
    with pytest.raises(RangeMistaken, match="--from-offset is not before --to-offset"):
        Wanted(from_offset=7, to_offset=7)
    with pytest.raises(RangeMistaken, match="--from-time is not before --to-time"):
        Wanted(from_ms=2, to_ms=1)
