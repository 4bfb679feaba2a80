"""When a node of a cluster is not asked, and when none is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ClusterDownError, MovedError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from serving.stores.breakers import FAILURES, Breaker
from serving.stores.node_breakers import NodeBreakers
from tests.support.apps import in_a_loop


class Nodes:
    """Nodes that answer what `answers` says: a list, or an error that is raised."""

    def __init__(self) -> None:
        self.whole = Breaker("Redis")
        self.breakers = NodeBreakers(self.whole, self.probe)
        self.asked: list[str] = []
        self.probed: list[str] = []
        self.down: set[str] = set()

    async def probe(self, address: str) -> bool:
        self.probed.append(address)
        return address not in self.down

    async def ask(
        self, address: str, answer: list[Any] | Exception | None = None, seconds: float = 1.0
    ) -> Any:
        """Of None nothing is ever answered."""

        async def call() -> list[Any]:
            self.asked.append(address)
            if answer is None:
                await asyncio.Event().wait()
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, list)
            return answer

        return await self.breakers.asked(address, call, seconds)

    async def fails(self, address: str, answer: Exception) -> None:
        with pytest.raises(type(answer)):
            await self.ask(address, answer)


def of_nodes(test: Callable[[Nodes], Awaitable[None]]) -> Callable[[], None]:
    @in_a_loop
    async def run() -> None:
        nodes = Nodes()
        await nodes.breakers.keep(["a", "b"])
        await test(nodes)
        await nodes.breakers.keep(())

    run.__doc__ = test.__doc__
    return run


@of_nodes
async def test_a_node_that_is_down_is_not_asked_and_others_are(nodes: Nodes) -> None:
    nodes.down = {"a"}
    await nodes.fails("a", RedisTimeoutError("no answer"))
    asked = len(nodes.asked)
    with pytest.raises(RedisConnectionError, match="open: no answer"):
        await nodes.ask("a", [b"1"])
    assert len(nodes.asked) == asked
    assert await nodes.ask("b", [b"1"]) == [b"1"]
    assert nodes.breakers.is_open("a")
    assert not nodes.breakers.is_open("b")
    assert not nodes.breakers.is_open("c")
    assert not nodes.whole.is_open
    assert [breaker.store for breaker in nodes.breakers] == ["Redis a", "Redis b"]


@of_nodes
async def test_the_cluster_is_down_once_all_nodes_with_slots_are(nodes: Nodes) -> None:
    nodes.down = {"a", "b", "c"}
    await nodes.fails("a", RedisTimeoutError("no answer"))
    await nodes.fails("c", RedisTimeoutError("no answer"))
    assert not nodes.whole.is_open
    await nodes.fails("b", RedisTimeoutError("no answer"))
    assert nodes.whole.is_open
    assert nodes.whole.reason == "no node answers: no answer"


@of_nodes
async def test_a_call_that_is_cancelled_in_the_end_opens_the_breaker(nodes: Nodes) -> None:
    nodes.down = {"a"}
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await nodes.ask("a", seconds=0.1)
    assert [breaker.told() for breaker in nodes.breakers] == ["open: no answer in 0.1 s"]


@of_nodes
async def test_a_call_that_was_begun_late_does_not_do_so_alone(nodes: Nodes) -> None:
    """Which slots there are was looked for before, or another node was asked."""
    nodes.down = {"a"}
    for _ in range(FAILURES):
        assert not nodes.breakers.is_open("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await nodes.ask("a", seconds=60.0)
    assert nodes.breakers.is_open("a")


@of_nodes
async def test_errors_of_a_key_and_of_a_slot_are_answers(nodes: Nodes) -> None:
    of_slot = MovedError("1 127.0.0.1:7000")
    of_key = ResponseError("WRONGTYPE Operation against a key")
    for _ in range(FAILURES):
        for answer in (of_slot, of_key):
            assert await nodes.ask("a", [answer]) == [answer]
        await nodes.fails("a", RedisConnectionError("No connection available."))
    assert not nodes.breakers.is_open("a")
    for _ in range(FAILURES):
        assert not nodes.breakers.is_open("a")
        await nodes.ask("a", [ClusterDownError("The cluster is down")] * 2)
    assert nodes.breakers.is_open("a")


@of_nodes
async def test_a_node_that_is_back_is_asked_again(nodes: Nodes) -> None:
    await nodes.fails("a", RedisTimeoutError("no answer"))
    while nodes.breakers.is_open("a"):
        await asyncio.sleep(0.01)
    assert await nodes.ask("a", [b"1"]) == [b"1"]


@of_nodes
async def test_a_node_without_slots_is_forgotten(nodes: Nodes) -> None:
    nodes.down = {"a"}
    await nodes.fails("a", RedisTimeoutError("no answer"))
    await nodes.breakers.keep(["b", "c"])
    assert not nodes.breakers.is_open("a")
    probed = len(nodes.probed)
    await asyncio.sleep(0.3)  # more than until the first probe
    assert len(nodes.probed) == probed
    assert await nodes.ask("a", [b"1"]) == [b"1"]


@of_nodes
async def test_a_cluster_of_which_no_node_is_known_is_down(nodes: Nodes) -> None:
    nodes.breakers.nobody_is_known("refused")
    assert nodes.whole.told() == "open: refused"
