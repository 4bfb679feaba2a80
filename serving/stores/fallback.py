"""Warm, and cold while warm's breaker is open: what stands between a dead Redis and a request.

A read that warm did not answer is asked of cold where that has opened the breaker, and else once
more of warm: a connection that was lost is made anew, and nobody notices. So is one of warm that
cold did not answer while warm has come back.

Of a Redis Cluster a node may be down alone: then cold is asked for its rows, and for everything
where the node has members of a sum.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from serving.stores.breakers import Breaker
from serving.stores.heard_rows import HeardRows, Judge, Wanted
from serving.stores.resp import text_of
from serving.stores.row_batch import Hearer
from serving.stores.row_store import (
    Group,
    Key,
    MemberSet,
    NamedRows,
    RowId,
    RowStore,
    Tier,
    TieredRows,
    Unavailable,
)
from serving.stores.waiting import waited_for

ATTEMPTS = 3
"""Reads of either store. One of warm that takes as long as it may opens the breaker, so only one of
two in a row does."""

LONGEST_SECONDS = 5.5
"""Seconds that a read takes at most: cold may be asked before and after warm, for two seconds, and
warm for one, a cluster for a little more; hot, which may stand before both, for less than half a
second."""

T = TypeVar("T")
S = TypeVar("S", bound=RowStore)


class Warm(RowStore, Protocol):
    """A store with a breaker that it tells of its reads."""

    breaker: Breaker

    @property
    def named(self) -> NamedRows | None:
        """Reads of rows by name, where the store has them."""
        ...

    def is_down(self, row: RowId) -> bool:
        """Whether a row is not answered while others may be."""
        ...

    def has_members_down(self, wanted: Sequence[MemberSet]) -> bool:
        """Whether members of any set are not answered while others may be."""
        ...


class Cold(RowStore, NamedRows, Protocol):
    """A store that takes the names of entities as the names of their rows, in UTF-8."""

    breaker: Breaker


class Fallback:
    """The `RowStore` of both, and the `NamedRows` where warm has them (`named`)."""

    def __init__(self, warm: Warm, cold: Cold) -> None:
        self._warm, self._cold = warm, cold
        self._breaker = warm.breaker
        self.named = None if warm.named is None else NamedFallback(warm, warm.named, cold)

    def pinned(self) -> RowStore:
        return OneRequest(self._warm, self._cold, self._breaker.is_open)

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        return await OneRequest(self._warm, self._cold).rows(wanted)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """As `RowStore.members`; raises `TooLarge`."""
        return await OneRequest(self._warm, self._cold).members(wanted, most)

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        return await OneRequest(self._warm, self._cold).last_closed(wanted)

    async def close(self) -> None:
        await self._warm.close()
        await self._cold.close()


class OneRequest:
    """The `RowStore` of both for one request, and cold alone once cold has answered any of it.

    Members of cold may lack what rows of warm would be expected to have, and a probe may close the
    breaker between the two.
    """

    def __init__(self, warm: Warm, cold: Cold, is_cold: bool = False) -> None:
        """With `is_cold` nothing is asked of warm from the beginning."""
        self._warm, self._cold = warm, cold
        self._breaker = warm.breaker
        self._is_cold = is_cold
        self._has_members = False

    def pinned(self) -> RowStore:
        return self._cold.pinned() if self._is_cold else self

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        found = await self._ask(lambda store: store.rows(wanted), _has_rows)
        # Cold was asked for all, or what it has may be older than members of warm.
        if found.tier is Tier.COLD or self._has_members:
            return found
        lost = [
            number
            for number, row in enumerate(found.rows)
            if isinstance(row, Unavailable) and self._warm.is_down(wanted[number])
        ]
        if not lost:
            return found
        colder = await self._cold.rows([wanted[number] for number in lost])
        rows = list(found.rows)
        tiers = [found.tier_of(number) for number in range(len(rows))]
        for index, number in enumerate(lost):
            rows[number], tiers[number] = colder.rows[index], colder.tier_of(index)
        return TieredRows(rows, tiers)

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        """As `RowStore.members`; raises `TooLarge`."""
        found = await self._ask(lambda store: store.members(wanted, most), _has_any)
        if not self._is_cold and self._warm.has_members_down(wanted):
            colder = await self._cold.members(wanted, most)
            if _has_any(colder):
                self._is_cold, found = True, colder
        self._has_members = True
        return found

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        return await self._ask(lambda store: store.last_closed(wanted), _has_any)

    async def close(self) -> None:
        """Nothing: the connections are those of all requests."""

    async def _ask(
        self, ask: Callable[[RowStore], Awaitable[T]], is_answered: Callable[[T], bool]
    ) -> T:
        for attempt in range(ATTEMPTS):
            is_cold = self._is_cold or self._breaker.is_open
            if is_cold:
                found = await ask(self._cold)
            else:
                found = await waited_for(self._breaker.store, ask(self._warm))
            if is_answered(found):
                self._is_cold = self._is_cold or is_cold
                return found
            if self._is_cold or is_last(attempt, is_cold, self._breaker):
                return found
        raise AssertionError("the last attempt is answered, whatever it is")


class NamedFallback:
    """The `NamedRows` of both: names are warm's."""

    def __init__(self, warm: Warm, rows: NamedRows, cold: Cold) -> None:
        self._breaker, self._rows, self._cold = warm.breaker, rows, cold

    def name(self, row: RowId) -> bytes:
        return self._rows.name(row)

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        breaker = self._breaker
        for attempt in range(ATTEMPTS):
            is_cold = breaker.is_open
            if is_cold:
                names = [(source, [text_of(name) for name in names]) for source, names in wanted]
                found = await self._cold.named_rows(names)
            else:
                found = await waited_for(breaker.store, self._rows.named_rows(wanted))
            if not isinstance(found, Unavailable) and _is_answered(found):
                return found
            if is_last(attempt, is_cold, breaker):
                break
        return found


class HeardFallback:
    """The `HeardRows` of both: those of warm, while it is asked."""

    def __init__(self, breaker: Breaker, rows: HeardRows) -> None:
        self._breaker, self._rows = breaker, rows

    def ask(self, wanted: Wanted, hearer: Hearer) -> Judge | None:
        return None if self._breaker.is_open else self._rows.ask(wanted, hearer)


def is_last(attempt: int, was_cold: bool, breaker: Breaker) -> bool:
    """Whether there is nobody else to ask: both stores are gone, or enough was tried."""
    return attempt == ATTEMPTS - 1 or (was_cold and breaker.is_open)


def _is_answered(found: Sequence[TieredRows]) -> bool:
    """Whether any row was answered; of most reads the first one was."""
    return not isinstance(found[0].rows[0], Unavailable) or any(map(_has_rows, found))


def _has_rows(found: TieredRows) -> bool:
    """Whether any row was answered, or none wanted."""
    return _has_any(found.rows)


def _has_any(found: Sequence[object]) -> bool:
    return not found or any(not isinstance(one, Unavailable) for one in found)
