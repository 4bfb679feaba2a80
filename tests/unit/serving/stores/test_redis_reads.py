"""What the breaker of a Redis is told of reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as NoAnswer

from registry.redis_clients import rows
from serving.stores.breakers import Breaker, State
from serving.stores.cluster_reads import reads_of
from serving.stores.redis_reads import Command, ask_all
from serving.stores.row_store import UNAVAILABLE
from tests.support.apps import in_a_loop


class Answers:
    """A `RedisReads` that answers what it is given."""

    def __init__(self, *answers: Any) -> None:
        self._answers = answers

    def server_of(self, key: str) -> str:
        return ""

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        return list(self._answers)

    async def close(self) -> None:
        pass


@in_a_loop
async def test_reads_that_wait_here_for_a_connection_say_nothing_of_redis() -> None:
    """Redis is there, but as slow as many sums that are read at once make it."""

    serving = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(writer)
        while received := await reader.read(4096):
            writer.write(b"+OK\r\n" * len(re.findall(rb"^\*", received, re.MULTILINE)))
        writer.close()
        serving.remove(writer)

    breaker = Breaker("Redis")
    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    made = []

    def make(url: str) -> Any:
        made.append(rows(url))
        return made[0]

    reads = reads_of(url, False, make)
    pool = made[0].connection_pool
    async with server:
        taken = [await pool.get_connection() for _ in range(pool.max_connections)]
        for _ in range(3):
            assert await ask_all(reads, [("GET", "key")], breaker) == [UNAVAILABLE]
        assert not breaker.is_open
        for connection in taken:
            await pool.release(connection)
        await reads.close()
        await pool.disconnect()
        while serving:
            await asyncio.sleep(0.01)


@in_a_loop
async def test_a_server_that_does_not_answer_counts_beside_one_that_was_not_asked() -> None:
    breaker = Breaker("Redis")
    errors = RedisConnectionError("No connection available."), RedisConnectionError("reset")
    for _ in range(2):
        assert await ask_all(Answers(*errors), [("GET", "key")] * 2, breaker) == [UNAVAILABLE] * 2
    assert breaker.reason == "reset"


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
