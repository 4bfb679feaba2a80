"""A hot tier that hangs is found out, however short the deadlines of requests are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

import pytest

from registry.redis_clients import HOT
from serving.stores.hot import STORE, HotStore
from serving.stores.hot_trust import PROBE, PROBE_SECONDS, Trust
from serving.stores.row_store import UNAVAILABLE, RowId
from serving.stores.waiting import was_waited_for
from tests.support.apps import in_a_loop
from tests.support.row_stores import NamedStore
from tests.support.scripted_redis import Client, scripted_redis, values

ROW = RowId("price", ("A",))


async def hung(client: Client) -> None:
    with suppress(asyncio.CancelledError):  # at the end of the test
        await client.hung_up()


@in_a_loop
async def test_a_hot_that_hangs_is_lost_by_requests_that_do_not_wait_so_long() -> None:
    async with scripted_redis(hung) as server:
        behind = NamedStore({ROW: b"row"})
        store = HotStore(server.url, behind, named=behind)
        with pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(0.02):
                await store.named_rows([("price", [store.name(ROW)])])
        assert was_waited_for(late.value.__cause__) == STORE
        await asyncio.sleep(HOT.socket_timeout + 0.1)  # in which nobody waits for it
        assert (store.trust.is_given, store.trust.times_lost) == (False, 1)
        async with asyncio.timeout(0.1):
            (found,) = await store.named_rows([("price", [store.name(ROW)])])  # type: ignore[misc]
        assert found.rows == [b"row"]
        await store.close()


SECONDS = 0.8
"""Seconds for which hot is not believed in the tests below."""


async def believed_after(silent: int, lost: Callable[[Trust], Awaitable[object]]) -> float:
    """Seconds from the return of `lost` until hot is believed; it is lost at the beginning.

    It answers all commands but the one with the number `silent`.
    """
    commands = count(1)

    async def act(client: Client) -> None:
        with suppress(asyncio.CancelledError):  # at the end of the test
            while True:
                await client.command()
                if next(commands) == silent:
                    await client.hung_up()
                await client.say(values(None))

    async with scripted_redis(act) as server, asyncio.timeout(20):
        trust = Trust(server.url, HOT, SECONDS)
        trust.lose()
        await lost(trust)
        lost_at = asyncio.get_running_loop().time()
        while not trust.is_given:
            await asyncio.sleep(0.001)
        assert trust.times_lost == 1
        await trust.close()
        await trust.link.close()
        return asyncio.get_running_loop().time() - lost_at


@in_a_loop
async def test_a_hot_that_is_lost_while_it_is_not_believed_is_believed_later() -> None:
    async def again(trust: Trust) -> None:
        await asyncio.sleep(PROBE_SECONDS + 0.1)  # in which the probe is answered
        assert await trust.link.read(PROBE) is UNAVAILABLE

    assert await believed_after(2, again) > SECONDS


@in_a_loop
async def test_hot_is_believed_no_sooner_for_a_probe_that_is_not_answered() -> None:
    """It counts as silent up to the moment at which that is known."""

    async def by_its_probe(trust: Trust) -> None:
        await asyncio.sleep(PROBE_SECONDS + HOT.socket_timeout)

    assert await believed_after(1, by_its_probe) > SECONDS - 0.05
