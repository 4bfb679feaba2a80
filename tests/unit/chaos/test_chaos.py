"""The parts of the fault run: its schedule, what it sends, what it counts and what it reports."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.faults import Faults
from tests.chaos.processes import Processes
from tests.chaos.producers import Load, Sent, hostile
from tests.chaos.report import report
from tests.chaos.run import Options, Result
from tests.chaos.schedule import KINDS, Fault, schedule
from tests.checker.findings import Findings
from tests.oracle.messages import Record, SourceSpec, read
from tickwell.up.process import Spec


@given(st.integers(), st.floats(30, 600))
def test_the_same_seed_gives_the_same_faults(seed: int, seconds: float) -> None:
    faults = schedule(seed, seconds)
    assert faults == schedule(seed, seconds)
    assert all(0 < fault.at < seconds for fault in faults)


@given(st.integers())
def test_a_target_is_left_alone_until_it_has_recovered(seed: int) -> None:
    recovery = {kind.name: kind.recovery for kind in KINDS}
    by_target: dict[str, list[Fault]] = defaultdict(list)
    for fault in schedule(seed, 300):
        by_target[fault.target].append(fault)
    for faults in by_target.values():
        for one, following in pairwise(faults):
            assert following.at >= one.at + one.down + recovery[one.kind]


def test_a_long_run_has_every_class_and_three_hundred_faults() -> None:
    faults = schedule(1, 18 * 60)
    assert {fault.kind for fault in faults} == {kind.name for kind in KINDS}
    assert len(faults) >= 300


def test_the_hostile_producer_sends_everything_that_is_not_a_tick() -> None:
    """Each reason that a message has by itself; and bytes that are no UTF-8, not the words."""
    sent = list(hostile(random.Random(1), 4))
    reasons = {reason for message in sent for reason in reasons_of(message)}
    assert reasons == {
        *("malformed", "unsupported-op", "unknown-field-type", "not-finite", "not-positive"),
        *("out-of-range", "key-mismatch", "from-the-future"),
    }
    broken = [message for message in sent if not is_utf_8(message.value or b"")]
    assert len(broken) == 2
    assert all(reasons_of(message) == ["malformed"] for message in broken)


def reasons_of(message: Sent) -> list[str]:
    """Why its ticks are none, as the oracle has it."""
    field = "price" if message.source == "price" else "volume"
    spec = SourceSpec(message.source, "", ("symbol",), ((field, True, None),), positive=True)
    now = time.time_ns() // 10**6
    ticks = read(Record("", 0, 0, now, message.key, message.value), spec)
    return [reason for _, reason in ticks if isinstance(reason, str)]


def is_utf_8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """One that lives and one that has ended, and nobody who starts it again so soon."""
    made = Processes(lambda line: None, restart_seconds=600)
    try:
        for name in ("alive", "dead"):
            made.start(name, Spec(name, ["sleep", "600"], tmp_path / name), service=False)
        pid = made.pid("dead")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        yield made
    finally:
        made.stop()


def test_only_what_happened_is_counted(processes: Processes) -> None:
    doing = Faults(processes, "", lambda line: None)
    for kind in ("worker killed", "worker terminated", "worker paused", "Postgres backend killed"):
        for target in ("alive", "dead"):
            doing.run([Fault(0, kind, target, 0)])
    assert doing.done == {"worker killed": 1, "worker terminated": 1, "worker paused": 1}
    assert doing.failures == []


def test_the_report_says_how_many_faults_and_how_late_is_stale() -> None:
    load = Load("", 1, 400, {}, 4)
    faults = Counter({"worker killed": 3, "Kafka paused": 1})
    done = Result(
        Options(1, 2, Path()), faults, Findings(), load, {"http": 1, "redis": 1}, {}, {"faults": 90}
    )
    told = report(done)
    assert "## Faults: 4 of 2 classes in 1.5 minutes" in told
    assert "a newer tick of its entity for more than 10 s" in told
