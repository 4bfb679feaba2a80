"""A hot tier that hangs is found out, however short the deadlines of requests are."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from registry.redis_clients import HOT
from serving.stores.hot import STORE, HotStore
from serving.stores.row_store import RowId
from serving.stores.waiting import was_waited_for
from tests.support.apps import in_a_loop
from tests.support.row_stores import NamedStore
from tests.support.scripted_redis import Client, scripted_redis

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
