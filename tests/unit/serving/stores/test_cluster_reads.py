"""What requests and logs are told of a node of a cluster that hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from serving.stores.cluster_rows import hash_of
from serving.stores.row_store import UNAVAILABLE, RowId
from serving.stores.warm import WarmStore
from tests.support.apps import in_a_loop
from tests.support.scripted_redis import Client, scripted_redis, values

HALF = REDIS_CLUSTER_HASH_SLOTS // 2
SYMBOLS = [RowId("price", (f"S{number}",)) for number in range(100)]
FIRST, SECOND = (
    next(row for row in SYMBOLS if key_slot(hash_of(row).encode()) // HALF == node)
    for node in (0, 1)
)
"""Rows of either of two nodes."""


def slots(ports: Sequence[int]) -> bytes:
    """The answer to CLUSTER SLOTS of nodes on 127.0.0.1 which have as many each."""
    each = [
        b"*3\r\n:%d\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n"
        % (n * HALF, (n + 1) * HALF - 1, port)
        for n, port in enumerate(ports)
    ]
    return b"*%d\r\n%b" % (len(each), b"".join(each))


@asynccontextmanager
async def second_hangs() -> AsyncIterator[WarmStore]:
    """The store of a cluster of two nodes, of which the second answers nothing."""
    ports: list[int] = []

    async def answers(client: Client) -> None:
        with suppress(asyncio.CancelledError):  # at the end of the test
            while True:
                name, *_, last = await client.command()
                is_slots = name == b"CLUSTER"
                await client.say(slots(ports) if is_slots else values(last))

    async def hangs(client: Client) -> None:
        with suppress(asyncio.CancelledError):
            await client.hung_up()

    async with scripted_redis(answers) as one, scripted_redis(hangs) as other:
        ports += [int(url.rpartition(":")[2].partition("/")[0]) for url in (one.url, other.url)]
        store = WarmStore(one.url, cluster=True)
        try:
            yield store
        finally:
            await store.close()


@in_a_loop
async def test_the_first_read_of_a_node_that_hangs_knows_that_it_is_down() -> None:
    """So the rest is read in Postgres, as by those that follow."""
    async with second_hangs() as store:
        await store.rows([FIRST])  # by which it is known who has which slots
        found = await store.rows([FIRST, SECOND])
        assert found.rows == [FIRST.entity[0].encode(), UNAVAILABLE]
        assert (store.is_down(FIRST), store.is_down(SECOND)) == (False, True)


@in_a_loop
async def test_a_node_that_is_down_is_not_logged_with_every_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with second_hangs() as store:
        while not store.is_down(SECOND):
            await store.rows([SECOND])
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            for _ in range(10):
                assert (await store.rows([SECOND])).rows == [UNAVAILABLE]
        assert not caplog.messages
