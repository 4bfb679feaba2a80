"""Breakers by a clock that a test moves: when they open and close, and what they are told late."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.stores.breakers import (
    FAILURES,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Breaker,
    State,
    probing,
)
from tests.support.apps import in_a_loop

DOWN = "it is down"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("Store", clock=clock, jitter=lambda: 0.0)


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not(breaker: Breaker) -> None:
    for _ in range(3 * FAILURES):
        for _ in range(FAILURES - 1):
            breaker.failed(DOWN)
        breaker.succeeded()
    assert (breaker.state, breaker.told()) == (State.CLOSED, "closed")
    for _ in range(FAILURES):
        assert not breaker.is_open
        breaker.failed(DOWN)
    assert breaker.is_open
    assert (breaker.told(), breaker.times_opened) == (f"open: {DOWN}", 1)


def test_a_decisive_failure_opens_it_at_once(breaker: Breaker) -> None:
    breaker.failed(DOWN, decisive=True)
    assert breaker.state is State.OPEN


def test_pauses_between_probes_grow_up_to_a_limit_and_begin_anew(
    breaker: Breaker, clock: Clock
) -> None:
    for _ in range(2):
        breaker.failed(DOWN, decisive=True)
        pauses = []
        for _ in range(8):
            pauses.append(breaker.probe_in())
            clock.now += breaker.probe_in()
            assert breaker.begin_probe()
            breaker.end_probe(answered=False)
        assert pauses[0] == pytest.approx(FIRST_PAUSE_SECONDS)
        assert pauses == sorted(pauses)
        assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS)
        clock.now += LONGEST_PAUSE_SECONDS
        assert breaker.begin_probe()
        breaker.end_probe(answered=True)
        assert not breaker.is_open


def test_processes_do_not_probe_in_step() -> None:
    pauses = set()
    for seed in range(20):
        breaker = Breaker("Store", clock=Clock(), jitter=random.Random(seed).random)
        breaker.failed(DOWN, decisive=True)
        pauses.add(breaker.probe_in())
        assert FIRST_PAUSE_SECONDS / 2 <= breaker.probe_in() <= FIRST_PAUSE_SECONDS
    assert len(pauses) == 20


def test_one_probe_at_a_time_and_none_before_it_is_due(breaker: Breaker, clock: Clock) -> None:
    assert not breaker.begin_probe()
    breaker.failed(DOWN, decisive=True)
    assert not breaker.begin_probe()
    clock.now += FIRST_PAUSE_SECONDS
    assert breaker.begin_probe()
    assert (breaker.state, breaker.is_open) == (State.HALF_OPEN, True)
    clock.now += 1_000
    assert not breaker.begin_probe()


def test_what_was_asked_before_says_nothing_of_the_store_of_now(
    breaker: Breaker, clock: Clock
) -> None:
    """Calls under way when it opens: one is answered late, others fail after it has closed."""
    began = breaker.era
    breaker.failed(DOWN, decisive=True)
    breaker.succeeded(began)
    assert breaker.is_open
    clock.now += FIRST_PAUSE_SECONDS
    assert breaker.begin_probe()
    breaker.succeeded(began)
    breaker.failed("late", era=began)
    assert breaker.state is State.HALF_OPEN
    breaker.end_probe(answered=True)
    for _ in range(2 * FAILURES):
        breaker.failed("late", decisive=True, era=began)
    assert not breaker.is_open
    breaker.failed(DOWN)
    breaker.succeeded(began)  # nor is a late answer one of the store of now
    breaker.failed(DOWN)
    assert breaker.is_open


def test_a_failure_of_the_open_breaker_is_not_told_as_another_one(breaker: Breaker) -> None:
    breaker.failed(DOWN, decisive=True)
    due = breaker.probe_in()
    breaker.failed("another", decisive=True)
    assert (breaker.times_opened, breaker.reason, breaker.probe_in()) == (1, DOWN, due)


class Calls(RuleBasedStateMachine):
    """Calls that begin and end in any order, beside a store that is up or down."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker("Store", clock=self.clock, jitter=lambda: 0.5)
        self.calls: list[tuple[int, bool]] = []
        """Of calls under way their era, and whether the store was up when they were asked."""
        self.is_up = True
        self.failed_in_a_row = 0
        self.probes = 0

    @rule(up=st.booleans())
    def store_changes(self, up: bool) -> None:
        self.is_up = up

    @rule()
    def a_call_begins(self) -> None:
        if not self.breaker.is_open:
            self.calls.append((self.breaker.era, self.is_up))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_ends(self, data: st.DataObject) -> None:
        era, answered = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        counts = era == self.breaker.era and not self.breaker.is_open
        if answered:
            self.breaker.succeeded(era)
            self.failed_in_a_row = 0 if counts else self.failed_in_a_row
        else:
            self.breaker.failed(DOWN, era=era)
            self.failed_in_a_row += counts

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def a_probe_begins(self) -> None:
        self.probes += self.breaker.begin_probe()

    @precondition(lambda self: self.probes)
    @rule()
    def a_probe_ends(self) -> None:
        self.probes -= 1
        self.breaker.end_probe(self.is_up)
        if self.is_up:
            self.failed_in_a_row = 0

    @invariant()
    def it_opens_by_failures_of_now_and_closes_by_a_probe(self) -> None:
        assert self.breaker.is_open == (self.failed_in_a_row >= FAILURES)
        assert self.probes == (self.breaker.state is State.HALF_OPEN)


TestCalls = Calls.TestCase


async def probed(answers: list[bool | Exception], breaker: Breaker, clock: Clock) -> list[float]:
    """When the store was probed, which answers so, until the breaker is closed."""
    times: list[float] = []

    async def probe() -> bool:
        times.append(clock.now)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        await asyncio.sleep(0)

    task = asyncio.create_task(probing(breaker, probe, sleep))
    async with asyncio.timeout(10):
        while breaker.is_open:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return times


@in_a_loop
async def test_a_store_is_probed_until_it_answers_whatever_a_probe_raises() -> None:
    clock = Clock()
    breaker = Breaker("Store", clock=clock, jitter=lambda: 0.0)
    breaker.failed(DOWN, decisive=True)
    times = await probed([False, ValueError("a mistake"), True], breaker, clock)
    gaps = [later - time for time, later in zip([100.0, *times], times, strict=False)]
    assert gaps == pytest.approx([0.1, 0.2, 0.4])


@in_a_loop
async def test_a_probe_that_is_cancelled_leaves_the_breaker_open() -> None:
    breaker = Breaker("Store", jitter=lambda: 1.0)
    breaker.failed(DOWN, decisive=True)
    begun = asyncio.Event()

    async def probe() -> bool:
        begun.set()
        return await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(probing(breaker, probe))
    async with asyncio.timeout(10):
        await begun.wait()
    assert breaker.state is State.HALF_OPEN
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert breaker.state is State.OPEN
