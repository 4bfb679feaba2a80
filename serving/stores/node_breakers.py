"""The breakers of a cluster's nodes: one that does not answer is not asked, the others are.

The cluster's own breaker, which decides whether any node is asked, opens while no node that has
slots answers, and while it is not known which have some.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from redis.exceptions import AskError, TimeoutError

from serving.stores.breakers import Breaker, probing
from serving.stores.redis_reads import FAILURES, NotAsked, tell

DECISIVE_PART = 0.9
"""The part of the time of a call in which a node that is well would have answered."""


class NodeBreakers:
    """The breakers of the nodes that were asked, by address."""

    def __init__(self, whole: Breaker, answers: Callable[[str], Awaitable[bool]]) -> None:
        """`whole` is the cluster's breaker, `answers` probes a node."""
        self._whole, self._answers = whole, answers
        self._nodes: dict[str, _Node] = {}
        self._with_slots: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[Breaker]:
        return (node.breaker for _, node in sorted(self._nodes.items()))

    def is_open(self, address: str) -> bool:
        """Whether the node is known not to answer."""
        node = self._nodes.get(address)
        return node is not None and node.breaker.is_open

    async def asked(
        self, address: str, ask: Callable[[], Awaitable[list[Any]]], seconds: float
    ) -> list[Any]:
        """What `ask` gives, which asks a node; its breaker is told how that ended.

        Raises what `ask` raises, and `NotAsked` at once while the breaker is open. A call is
        cancelled at the end of its `seconds`, of which others may have taken a part before: only
        one that had nearly all of them opens the breaker alone.
        """
        breaker = self._of(address)
        if breaker.is_open:
            raise NotAsked(breaker.told())
        era, loop = breaker.era, asyncio.get_running_loop()
        began = loop.time()
        try:
            answers = await ask()
        except CancelledError:
            waited = loop.time() - began
            is_decisive = waited >= DECISIVE_PART * seconds
            breaker.failed(f"no answer in {waited:.1f} s", is_decisive, era)
            raise
        except FAILURES as error:
            tell(breaker, era, [error], decisive=isinstance(error, TimeoutError))
            raise
        else:  # one that sends us to another node has answered
            tell(breaker, era, [None if isinstance(a, AskError) else a for a in answers])
            return answers
        finally:
            self._open_whole(breaker.reason)

    def nobody_is_known(self, reason: str) -> None:
        """It is not known which nodes have slots."""
        self._whole.failed(reason, decisive=True)

    async def keep(self, with_slots: Iterable[str]) -> None:
        """Takes the nodes that have slots now, and forgets all others."""
        self._with_slots = frozenset(with_slots)
        gone = [self._nodes.pop(address) for address in self._nodes.keys() - self._with_slots]
        for node in gone:
            node.probing.cancel()
        await asyncio.gather(*(node.probing for node in gone), return_exceptions=True)

    def _of(self, address: str) -> Breaker:
        node = self._nodes.get(address)
        if node is None:
            breaker = Breaker(f"{self._whole.store} {address}")
            probe = partial(self._answers, address)
            node = _Node(breaker, asyncio.create_task(probing(breaker, probe)))
            self._nodes[address] = node
        return node.breaker

    def _open_whole(self, reason: str) -> None:
        if self._with_slots and all(map(self.is_open, self._with_slots)):
            self._whole.failed(f"no node answers: {reason}", decisive=True)


class _Node(NamedTuple):
    breaker: Breaker
    probing: asyncio.Task[None]
