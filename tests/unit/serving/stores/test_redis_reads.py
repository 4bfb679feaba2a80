"""Reads of Redis that nobody waits for any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import TimeoutError as NoAnswer

from serving.stores.breakers import Breaker, State
from serving.stores.redis_reads import ask_all
from tests.support.apps import in_a_loop


class Silent:
    """A Redis whose client gives up after a moment."""

    def server_of(self, key: str) -> str:
        return ""

    async def each(self, commands: Any) -> list[Any]:
        await asyncio.sleep(0.05)
        return [NoAnswer("no answer")] * len(commands)

    async def close(self) -> None: ...


@in_a_loop
async def test_a_silent_redis_is_found_out_by_requests_that_do_not_wait_so_long() -> None:
    breaker = Breaker("Redis", failures=2)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ask_all(Silent(), [("GET", "a")], breaker)
    assert breaker.state is State.CLOSED
    await asyncio.sleep(0.1)
    assert breaker.state is State.OPEN
