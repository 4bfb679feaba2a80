"""Deadlines of many tasks: who is late is told so, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

from serving.api.deadlines import SLOT_SECONDS, Deadline, Timers
from serving.errors import DeadlineMissed
from tests.support.apps import in_a_loop

pytestmark = pytest.mark.timeout(60)


def deadline_in(seconds: float) -> Deadline:
    return Deadline(asyncio.get_running_loop().time() + seconds, int(seconds * 1_000))


async def for_ever() -> str:
    await asyncio.get_running_loop().create_future()
    return "never"


@in_a_loop
async def test_who_is_late_is_told_not_before_the_deadline_and_the_others_are_answered() -> None:
    timers, loop = Timers(), asyncio.get_running_loop()

    async def late(seconds: float) -> float:
        deadline = deadline_in(seconds)
        with pytest.raises(DeadlineMissed):
            await timers.within(deadline, for_ever())
        assert deadline.at is not None
        return loop.time() - deadline.at

    async def in_time() -> str:
        return await timers.within(deadline_in(30), asyncio.sleep(0, "answered"))

    after = await asyncio.gather(*(late(n * SLOT_SECONDS / 3) for n in range(1, 12)))
    assert all(seconds >= -0.002 for seconds in after)
    assert await asyncio.gather(in_time(), in_time()) == ["answered"] * 2


@in_a_loop
async def test_a_task_that_is_cancelled_by_somebody_else_stays_cancelled() -> None:
    timers = Timers()
    for own_deadline in (30.0, 0.0):
        task = asyncio.create_task(timers.within(deadline_in(own_deadline), for_ever()))
        await asyncio.sleep(0)
        if own_deadline == 0.0:
            await asyncio.sleep(0.001)
        if task.done():  # it was late before anybody else could cancel it
            task.exception()
            continue
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@in_a_loop
async def test_a_task_that_was_late_once_may_wait_again() -> None:
    timers = Timers()
    for _ in range(3):
        with pytest.raises(DeadlineMissed):
            await timers.within(deadline_in(0.001), for_ever())
        assert await timers.within(deadline_in(30), asyncio.sleep(0.01, "answered")) == "answered"


@in_a_loop
async def test_an_error_of_the_answer_is_passed_on() -> None:
    async def mistaken() -> None:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        await Timers().within(deadline_in(30), mistaken())
