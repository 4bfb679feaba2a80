"""A link to a scripted Redis: what it is asked, what it finds, and how long it may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from registry.redis_clients import Limits
from serving.stores.row_link import PAUSE_SECONDS, RowLink, bulk
from tests.support.scripted_redis import Act, Client, scripted_redis

LONG = Limits(60.0, 60.0)
"""A time limit that no test waits for."""

SHORT = Limits(0.4, 0.4)

Fields = Sequence[str]


def wanted(**hashes: Fields) -> list[tuple[bytes, list[bytes]]]:
    """What a link takes, of fields by the name of their hash."""
    return [(bulk(key), [bulk(field) for field in fields]) for key, fields in hashes.items()]


async def found(act: Act, *reads: Any, limits: Limits = LONG) -> list[Any]:
    """What reads find that are asked one after the other."""
    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=limits)
        try:
            async with asyncio.timeout(20):
                return [await link.read(read) for read in reads]
        finally:
            await link.close()


A = wanted(h=["a"])
FOUND_A = [[b"a"]]


async def echo(client: Client) -> None:
    await client.echo()


def first(*parts: bytes) -> Act:
    """The first connection answers a command with these parts, later ones as they should."""

    async def act(client: Client) -> None:
        if client.number > 1:
            await client.echo()
        await client.command()
        await client.say(*parts)
        await client.hung_up()

    return act


async def later(act: Act) -> list[Any]:
    """What is found at first, and once the link tries again."""
    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        before = await link.read(A)
        await asyncio.sleep(PAUSE_SECONDS)
        after = await link.read(A)
        await link.close()
        return [before, after]
