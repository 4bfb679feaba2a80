"""Replays as processes: in jobs, beside live that is behind."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import msgspec
import psutil
import pytest

from registry.formats.heartbeat import Heartbeat, PartitionLag
from registry.formats.redis_keys import WORKERS_KEY, worker_key
from tests.support.load import random_ticks
from tests.support.pipeline import Pipeline, wait_for


@pytest.mark.timeout(300)
def test_jobs_that_end(running: Pipeline) -> None:
    """A killed job is reported in a line; jobs end with the parent, and at Ctrl-C."""
    behind(running, True)  # so that the jobs run, and wait
    for number in range(4):
        running.produce("price", random_ticks(random.Random(number), time.time_ns() // 10**6))
    log = running.logs / "replay.log"

    parent = started(running)
    jobs(parent)[0].kill()
    assert parent.wait(60) == 1
    assert "tickwell: a job was killed" in log.read_text()
    assert "Traceback" not in log.read_text()

    parent = started(running)
    left = jobs(parent)
    running.kill("replay")
    wait_for("the jobs end", lambda: not any(alive(job) for job in left))

    parent = started(running)
    for process in (parent, *jobs(parent)):  # a terminal interrupts the whole group
        process.send_signal(signal.SIGINT)
    assert parent.wait(60) == 130
    assert "the same command resumes from here" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert rows(running) == 0

    running.processes.clear()
    running.run_tickwell("replay", "--jobs", "3", "--no-throttle")
    assert rows(running) > 0


@pytest.mark.timeout(200)
def test_a_replay_gives_way_to_live(running: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why it waits, and waits."""
    terminal = {"TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": "200"}  # where it says so
    for name, value in terminal.items():
        monkeypatch.setenv(name, value)
    running.produce("price", random_ticks(random.Random(1), time.time_ns() // 10**6))
    behind(running, True)
    process = running.start("replay", "replay")
    log = running.logs / "replay.log"
    wait_for("it says why", lambda: "the online worker is 60 s behind" in log.read_text())
    time.sleep(1)  # it stands where it would store, so that it would have
    assert process.poll() is None
    assert rows(running) == 0
    behind(running, False)
    assert process.wait(60) == 0
    assert rows(running) > 0


@pytest.mark.timeout(200)
def test_an_entity_that_nobody_has(running: Pipeline) -> None:
    running.produce("price", random_ticks(random.Random(1), time.time_ns() // 10**6))
    with pytest.raises(AssertionError, match="no message in these ranges has the key S99; --ent"):
        running.run_tickwell("replay", "--entity", "S1", "--entity", "S99")
    assert rows(running) > 0


def rows(running: Pipeline) -> int:
    ((count,),) = running.query("SELECT count(*) FROM tickwell.feature_rows")
    return int(count)


def behind(running: Pipeline, is_behind: bool) -> None:
    """What the online worker would say of itself."""
    lag = PartitionLag("a", 0, 0, 9, 9, 60.0 if is_behind else 0.0)
    in_an_hour = time.time() + 3600
    beat = Heartbeat("online", "one", 1, in_an_hour, "running", 0.0, lag=(lag,))
    with running.redis() as client:
        client.sadd(WORKERS_KEY, "online:one")
        client.set(worker_key("online", "one"), msgspec.json.encode(beat))


def started(running: Pipeline) -> subprocess.Popen[bytes]:
    """A replay in two jobs that both wait for live."""
    parent = running.start("replay", "replay", "--restart", "--jobs", "2")
    wait_for("two jobs", lambda: len(jobs(parent)) == 2)
    return parent


def jobs(parent: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(parent.pid).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
