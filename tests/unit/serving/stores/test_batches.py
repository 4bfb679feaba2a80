"""Reads that are collected: which are made, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from serving.stores.batches import Batches, BatchLimits
from serving.stores.row_store import UNAVAILABLE
from tests.support.apps import in_a_loop

pytestmark = pytest.mark.timeout(60)

LIMITS = BatchLimits(reads=1, items=4, waiting=10, seconds=30.0)


class Store:
    """Knows the square of each even number; `reads` are what was asked of it at once."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_there = True

    async def read(self, items: list[int]) -> Mapping[int, int] | None:
        self.reads.append(items)
        await self.gate.wait()
        return {item: item**2 for item in items if item % 2 == 0} if self.is_there else None


@in_a_loop
async def test_requests_of_a_turn_and_those_that_wait_share_reads_that_name_an_item_once() -> None:
    store = Store()
    store.gate.clear()
    batches = Batches(store.read, LIMITS)
    first = [asyncio.create_task(batches.find(items)) for items in ([2, 3], [3, 2])]
    while not store.reads:
        await asyncio.sleep(0)
    more = [asyncio.create_task(batches.find(items)) for items in ([4], [4, 6], [2, 8])]
    await asyncio.sleep(0)
    store.gate.set()
    assert await asyncio.gather(*first, *more) == [[4, None], [None, 4], [16], [16, 36], [4, 64]]
    assert store.reads == [[2, 3], [4, 6], [2, 8]]


@in_a_loop
async def test_who_asks_again_as_soon_as_it_is_answered_is_not_forgotten() -> None:
    """The one read at a time that there may be has ended in that moment, or is about to."""
    store = Store()
    batches = Batches(store.read, LIMITS)

    async def ask() -> None:
        for item in range(50):
            assert await batches.find([2 * item]) == [4 * item**2]

    async with asyncio.timeout(20):
        await asyncio.gather(ask(), ask(), ask())


@in_a_loop
async def test_what_was_not_read_is_told_and_so_is_what_waits_too_long() -> None:
    store = Store()
    store.is_there = False
    batches = Batches(store.read, LIMITS._replace(seconds=0.05))
    assert await batches.find([2, 4]) == [UNAVAILABLE] * 2
    store.gate.clear()
    assert await batches.find([2]) == [UNAVAILABLE]
    store.gate.set()
    store.is_there = True
    assert await batches.find([2]) == [4]


@in_a_loop
async def test_more_than_may_wait_is_refused_and_who_has_gone_is_not_read_for() -> None:
    store = Store()
    store.gate.clear()
    batches = Batches(store.read, LIMITS)
    under_way = asyncio.create_task(batches.find([0]))
    while not store.reads:
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(batches.find([item])) for item in range(10)]
    await asyncio.sleep(0)
    assert await batches.find([2]) == [UNAVAILABLE]
    for task in waiting[1:]:
        task.cancel()
    await asyncio.sleep(0)
    store.gate.set()
    assert await under_way == await waiting[0] == [0]
    assert store.reads == [[0], [0]]
    assert await batches.find([2] * 9) == [4] * 9


@in_a_loop
async def test_closing_tells_all_that_wait() -> None:
    store = Store()
    store.gate.clear()
    batches = Batches(store.read, LIMITS)
    tasks = [asyncio.create_task(batches.find([item])) for item in range(6)]
    await asyncio.sleep(0)
    await batches.close()
    assert await asyncio.gather(*tasks) == [[UNAVAILABLE]] * 6
    assert await batches.find([2]) == [UNAVAILABLE]


@in_a_loop
async def test_a_mistake_of_a_read_leaves_nobody_waiting() -> None:
    async def mistaken(items: list[int]) -> Mapping[int, int] | None:
        raise ValueError(items)

    batches = Batches(mistaken, LIMITS)
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    assert await batches.find([2]) == [UNAVAILABLE]
    assert await batches.find([2]) == [UNAVAILABLE]
