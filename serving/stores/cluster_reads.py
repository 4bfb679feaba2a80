"""Reads of a Redis Cluster: each node is asked by itself, so that one that is down spoils no other.

redis-py's asyncio client of a cluster does otherwise. Its pipelines fail as a whole when one node
does not answer, and while the node that the cluster names first is down none can be made, even with
the address of another one. Here each node has a client of its own, with the limits of a single
server's, and a call takes no longer than `ANSWER_SECONDS` whatever nodes do. Which node has which
slots is asked of all known nodes at once, and the first answer counts: when the client is used
first, and again after a node did not answer or said that a slot has moved.

Reads go to primaries: a replica may be behind.

With a breaker of the whole cluster each node has one too (`serving.stores.node_breakers`): one that
does not answer is not asked. The others are asked who has its slots, since a replica may take its
place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError

from registry.formats.redis_keys import CLUSTER_BUCKETS, rows_key
from registry.redis_clients import address_of, at_address
from serving.stores.breakers import Breaker
from serving.stores.node_breakers import NodeBreakers
from serving.stores.redis_reads import FAILURES, Command, MakeClient, RedisReads, SingleReads, ask

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
"""Seconds that a call may take, over all nodes; what is not answered by then is an error."""

LOOK_SECONDS = 2.0
"""Seconds that nodes have to say which slots they have; a request waits no longer than above."""

PAUSE_SECONDS = 1.0
"""Seconds between two looks, however many reads fail."""

HOPS = 3
"""Nodes that are asked for a key, one after the other: a slot may have moved, and move again."""


PROBES = tuple(rows_key("", bucket) for bucket in range(CLUSTER_BUCKETS))
"""Keys of which every node of a cluster has one, if it has rows; nothing is stored under them."""


def reads_of(url: str, cluster: bool, make: MakeClient) -> RedisReads:
    """Reads of the Redis, or of the Redis Cluster, at `url`; they connect at the first call."""
    return ClusterReads(url, make) if cluster else SingleReads(url, make)


class ClusterReads:
    """The `RedisReads` of a cluster; the name of a server is its address."""

    def __init__(self, url: str, make: MakeClient, breaker: Breaker | None = None) -> None:
        """`breaker` is the cluster's: it opens while no node answers."""
        self._url = url
        self._make = make
        self.nodes = None if breaker is None else NodeBreakers(breaker, self._node_answers)
        """The breakers of the nodes, if the cluster has one."""
        self._clients: dict[str, Any] = {}
        self._known = {address_of(url)}
        self._of_slot = [""] * REDIS_CLUSTER_HASH_SLOTS
        self._looked = -PAUSE_SECONDS
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    def server_of(self, key: str) -> str:
        return self._of_slot[key_slot(key.encode())]

    def is_down(self, key: str) -> bool:
        """Whether the node that has a key is known not to answer."""
        return self.nodes is not None and self.nodes.is_open(self.server_of(key))

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        call = _Call(commands, [TimeoutError(f"no answer in {ANSWER_SECONDS:g} s")] * len(commands))
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                if not any(self._of_slot):
                    await self._first_look()
                groups = _grouped((self.server_of(c[1]), n) for n, c in enumerate(commands))
                await asyncio.gather(*(self._on(a, call, group) for a, group in groups.items()))
        if self.nodes is not None and commands and not any(self._of_slot):
            self.nodes.nobody_is_known(str(call.answers[0]))
        return call.answers

    async def close(self) -> None:
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self.nodes is not None:
            await self.nodes.keep(())
        for client in self._clients.values():
            await client.aclose()

    async def _on(self, address: str, call: _Call, numbers: Sequence[int]) -> None:
        """Ask a node the commands with these numbers, and elsewhere those that it sends there."""
        asked: Mapping[str, Sequence[int]] = {address: numbers}
        for hop in range(HOPS):
            sent = []
            for address, numbers in asked.items():
                await self._ask(address, call, numbers, forced=hop > 0)
                answers = ((n, call.answers[n]) for n in numbers)
                sent += [
                    (f"{answer.host or _host(address)}:{answer.port}", n)
                    for n, answer in answers
                    if isinstance(answer, AskError)  # a slot that has moved, or is moving
                ]
            asked = _grouped(sent)

    async def _ask(self, address: str, call: _Call, numbers: Sequence[int], forced: bool) -> None:
        """Take a node's answers; `forced` ones also of slots that are only on their way to it."""
        commands = [call.commands[n] for n in numbers]
        if forced:
            commands = [each for command in commands for each in (("ASKING",), command)]
        answers = await self._answers(address, commands)
        for number, answer in zip(numbers, answers[1::2] if forced else answers, strict=True):
            call.answers[number] = answer

    async def _answers(self, address: str, commands: Sequence[Command]) -> list[Any]:
        """What a node answers, an exception for each command when it does not."""
        doubtful = True
        try:
            if not address:
                raise ClusterDownError("no node is known for the slot")
            if self.nodes is None:
                answers = await ask(self._client(address), commands)
            else:
                answers = await self.nodes.asked(
                    address, lambda: ask(self._client(address), commands), ANSWER_SECONDS
                )
            doubtful = any(isinstance(a, MovedError | ClusterDownError) for a in answers)
        except FAILURES as error:
            return [error] * len(commands)
        else:
            return answers
        finally:  # also when the time is over
            if doubtful:
                self._look()

    async def _node_answers(self, address: str) -> bool:
        """Whether a node answers reads; one that sends us elsewhere does."""
        self._look()
        key = next((key for key in PROBES if self.server_of(key) == address), PROBES[0])
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                (answer,) = await ask(self._client(address), [("GET", key)])
        except (*FAILURES, TimeoutError):
            return False
        return not isinstance(answer, Exception) or isinstance(answer, AskError)

    def _client(self, address: str) -> Any:
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = self._make(at_address(self._url, address))
        return client

    async def _first_look(self) -> None:
        self._look()
        if self._looking is not None:
            await asyncio.shield(self._looking)

    def _look(self) -> None:
        """Ask the nodes which slots they have, unless that is under way or was not long ago."""
        due = not self._closed and time.monotonic() - self._looked >= PAUSE_SECONDS
        if due and (self._looking is None or self._looking.done()):
            self._looked = time.monotonic()
            self._looking = asyncio.create_task(self._look_now())

    async def _look_now(self) -> None:
        asked = [asyncio.create_task(self._slots(address)) for address in self._known]
        reasons = set()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                for answer in asyncio.as_completed(asked):
                    try:
                        await self._take(await answer)
                        return
                    except FAILURES as error:
                        reasons.add(str(error))
        except TimeoutError:
            reasons.add(f"no answer in {LOOK_SECONDS:g} s")
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        logger.warning("no node of the cluster says which slots it has: %s", "; ".join(reasons))

    async def _slots(self, address: str) -> list[_Slots]:
        """What a node says of all nodes. Raises `FAILURES`."""
        (answer,) = await ask(self._client(address), [("CLUSTER", "SLOTS")])
        if isinstance(answer, Exception):
            raise answer
        found = [
            _Slots(first, last, tuple(f"{_text(n[0]) or _host(address)}:{n[1]}" for n in nodes))
            for first, last, *nodes in answer
        ]
        if not found:
            raise ClusterDownError(f"{address} knows of no slots")
        return found

    async def _take(self, found: Sequence[_Slots]) -> None:
        of_slot = [""] * REDIS_CLUSTER_HASH_SLOTS
        for slots in found:
            size = slots.last + 1 - slots.first
            of_slot[slots.first : slots.last + 1] = [slots.addresses[0]] * size
        self._of_slot = of_slot
        self._known = {address_of(self._url), *(a for slots in found for a in slots.addresses)}
        if self.nodes is not None:
            await self.nodes.keep(set(of_slot) - {""})
        for address in self._clients.keys() - self._known:
            await self._clients.pop(address).aclose()


class _Call(NamedTuple):
    """Commands, and their answers as far as they have come."""

    commands: Sequence[Command]
    answers: list[Any]


class _Slots(NamedTuple):
    """Slots from `first` to `last`, and who has them: the primary, then its replicas."""

    first: int
    last: int
    addresses: tuple[str, ...]


def _grouped(numbers: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Numbers by address."""
    groups: dict[str, list[int]] = {}
    for address, number in numbers:
        groups.setdefault(address, []).append(number)
    return groups


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _text(host: bytes | None) -> str:
    """A host as a node names it; "" where it does not know its own."""
    name = (host or b"").decode()
    return "" if name == "?" else name
