"""Replays that are stopped, killed or disturbed, beside live and each other."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest

from pipelines.errors import ParityViolation
from pipelines.replay.ranges import Wanted
from tests.support.pipeline import Pipeline, wait_for
from tests.support.replays import (
    GO_ON,
    PARTITIONS,
    after,
    empty_database,
    execute,
    live,
    produce,
    ranges_of,
    replay,
    work_of,
)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(entities=("S1", "S5")),
        Wanted(from_offset=100),  # computed from the log's beginning
        Wanted(to_offset=250),
    ],
    ids=["all", "entities", "from the middle", "to the middle"],
)
def test_a_stopped_replay_goes_on_where_it_was(running: Pipeline, wanted: Wanted) -> None:
    produce(running, 800)
    dump = live(running)
    with empty_database(running) as empty:
        steps = 0
        while True:
            stop = Event()
            begun = ranges_of(empty, wanted)
            done = replay(empty, wanted, report=after(2, stop.set), stop=stop)
            steps += 1
            if not stop.is_set():
                break
            went_on = ranges_of(empty, wanted)
            assert sum(part.start for part in went_on) > sum(part.start for part in begun)
            assert done.new_rows <= 500
        assert steps > 2
        assert not any(part.resumed for part in ranges_of(empty, wanted)), "it was finished"
        assert replay(empty).new_rows > 0 or wanted == Wanted()
        assert empty.dump() == dump


KILLED = """
import pickle, sys
from threading import Event
from pipelines.replay.jobs import run_in_jobs, run_ranges

replay, ranges, jobs = pickle.load(sys.stdin.buffer)
if jobs == 1:
    run_ranges(replay, ranges, lambda done: None, Event())
else:
    run_in_jobs(replay, ranges, jobs, lambda done: None, Event())
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("jobs", [pytest.param(1, marks=pytest.mark.long), 2])
def test_killed_at_any_instant_it_goes_on(running: Pipeline, jobs: int) -> None:
    chance = random.Random(jobs)
    for seed in range(12):
        produce(running, 1000, seed)
    dump = live(running)
    with empty_database(running) as empty:
        kills = 0
        while kills < 6 and (left := [part for part in ranges_of(empty) if part.offsets]):
            before = progress_of(empty)
            process = subprocess.Popen([sys.executable, "-c", KILLED], stdin=subprocess.PIPE)
            assert process.stdin is not None
            with process.stdin as stdin:
                pickle.dump((work_of(empty), left, jobs), stdin)
            wait_for("progress", lambda n=before: progress_of(empty) > n)
            time.sleep(chance.uniform(0, 0.05))
            kills += process.poll() is None
            process.kill()
            process.wait()
        assert kills > 2
        said = empty.run_tickwell("replay", "--jobs", str(jobs))
        assert "resumes at offset" in said
        assert "% was done" in said
        assert empty.dump() == dump
        again = empty.run_tickwell("replay", "--jobs", str(jobs))
        assert "resumes" not in again, "it was finished"
        assert " 0 of them new" in again


def progress_of(running: Pipeline) -> int:
    ((offsets,),) = running.query("SELECT coalesce(sum(next_offset), 0) FROM tickwell.replays")
    return int(offsets)


def test_restart_begins_anew(running: Pipeline) -> None:
    produce(running, 400)
    stop = Event()
    replay(running, report=after(2, stop.set), stop=stop)
    assert any(part.resumed for part in ranges_of(running))
    assert not any(part.resumed for part in ranges_of(running, restart=True))
    assert not any(part.resumed for part in ranges_of(running, Wanted(to_offset=50)))
    done = replay(running, restart=True)
    assert done.rows > done.new_rows > 0


def test_live_in_the_middle_of_a_replay(running: Pipeline) -> None:
    produce(running, 600)
    with empty_database(running) as alone:
        dump = live(alone)
    with ThreadPoolExecutor() as pool:
        working: list[Future[bytes]] = []
        replay(running, report=after(3, lambda: working.append(pool.submit(live, running))))
        working[0].result()
    assert running.dump() == dump


def test_a_lost_connection_is_mended(running: Pipeline) -> None:
    produce(running, 800)
    with empty_database(running) as alone:
        dump = live(alone)
    lose = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tickwell replay' AND datname = current_database()"
    )
    for wanted in (Wanted(from_offset=100), Wanted()):  # computed, and restored
        replay(running, wanted, report=after(4, lambda: execute(running, lose)))
    assert running.dump() == dump


def test_two_jobs_that_meet_an_entity_at_once_give_it_one_home(running: Pipeline) -> None:
    for partition in range(PARTITIONS):
        produce(running, 400, seed=partition, partition=partition)
    ranges = ranges_of(running)
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(work_of(running).run, part, lambda done: None, GO_ON) for part in ranges
        ]
        for job in jobs:
            job.result()
    homes = running.query(
        "SELECT entity, count(DISTINCT partition) FROM tickwell.feature_rows GROUP BY entity"
    )
    assert [number for _, number in homes] == [1] * 8
    ((rows,),) = running.query("SELECT count(*) FROM tickwell.feature_rows")
    ((rejected,),) = running.query("SELECT count(*) FROM tickwell.rejected_ticks")
    assert rows + rejected == 800


@pytest.mark.parametrize("change", ["known_at = 7", "features[1] = features[1] + 1"])
def test_other_bits_are_an_error_and_nothing_is_overwritten(running: Pipeline, change: str) -> None:
    produce(running, 100)
    live(running)
    execute(running, f"UPDATE tickwell.feature_rows SET {change} WHERE entity = 'S3'")
    changed = running.dump()
    with pytest.raises(ParityViolation, match="'S3'"):
        replay(running)
    assert running.dump() == changed
