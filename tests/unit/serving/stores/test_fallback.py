"""Which store is asked, when, and what is noted of a wait that is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from serving.errors import TooLarge
from serving.stores.breakers import Breaker
from serving.stores.fallback import ATTEMPTS, Fallback
from serving.stores.hot import HotStore
from serving.stores.pinned_hot import PinnedHot
from serving.stores.row_store import (
    UNAVAILABLE,
    Group,
    Key,
    MemberSet,
    RowId,
    RowStore,
    Tier,
    TieredRows,
    Unavailable,
)
from tests.support.apps import in_a_loop

A, B = RowId("price", ("A",)), RowId("price", ("B",))
SETS, GROUPS = [MemberSet("position", "P")], [Group("position", ("P",))]


class Store:
    """A store whose rows are the name of its tier. Each read awaits `before`, which may fail it."""

    def __init__(self, tier: Tier) -> None:
        self.tier, self.breaker = tier, Breaker(tier.name.lower())
        self.asked = 0
        self.is_there = True
        self.before: Callable[[], Awaitable[None]] | None = None
        self.refused: set[str] = set()
        self.down: set[str] = set()
        self.has_no_members = False

    @property
    def named(self) -> Store:
        return self

    def pinned(self) -> Store:
        return self

    def name(self, row: RowId) -> bytes:
        name = row.entity[0].encode()
        return b"$%d\r\n%b\r\n" % (len(name), name)

    async def _read(self) -> bool:
        self.asked += 1
        if self.before is not None:
            await self.before()
        return self.is_there

    async def rows(self, wanted: Sequence[RowId]) -> TieredRows:
        there = await self._read()
        rows = [
            self.tier.name.encode()
            if there and row.entity[0] not in self.refused | self.down
            else UNAVAILABLE
            for row in wanted
        ]
        return TieredRows(rows, self.tier)

    async def named_rows(
        self, wanted: Sequence[tuple[str, Sequence[bytes]]]
    ) -> list[TieredRows] | Unavailable:
        if not await self._read():
            return UNAVAILABLE
        if self.tier is Tier.COLD:
            assert all(name.isalnum() for _, names in wanted for name in names)
        return [TieredRows([self.tier.name.encode()] * len(of), self.tier) for _, of in wanted]

    async def members(
        self, wanted: Sequence[MemberSet], most: int
    ) -> list[list[Key] | Unavailable]:
        if most == 0:
            raise TooLarge("too many")
        there = await self._read() and not self.has_no_members
        return [[(self.tier.name,)] if there else UNAVAILABLE for _ in wanted]

    async def last_closed(self, wanted: Sequence[Group]) -> list[Key | Unavailable | None]:
        there = await self._read()
        return [(self.tier.name,) if there else UNAVAILABLE for _ in wanted]

    def is_down(self, row: RowId) -> bool:
        return row.entity[0] in self.down

    def has_members_down(self, wanted: Sequence[MemberSet]) -> bool:
        return self.has_no_members

    async def close(self) -> None:
        pass


@pytest.fixture
def warm() -> Store:
    return Store(Tier.WARM)


@pytest.fixture
def cold() -> Store:
    return Store(Tier.COLD)


async def named(store: Fallback, *rows: RowId) -> Any:
    assert store.named is not None
    return await store.named.named_rows([("price", [store.named.name(row) for row in rows])])


async def comes_back(warm: Store) -> None:
    while not warm.breaker.begin_probe():
        await asyncio.sleep(0.01)
    warm.breaker.end_probe(answered=True)


async def everything(store: Fallback) -> list[Any]:
    """The tiers that each kind of read is from, None for what is unavailable."""
    rows, by_name = await store.rows([A]), await named(store, A, B)
    members, (closed,) = await store.members(SETS, 1), await store.last_closed(GROUPS)
    found = [rows.rows[0], UNAVAILABLE if by_name is UNAVAILABLE else by_name[0].rows[1]]
    names = [one if isinstance(one, Unavailable) else one.decode() for one in found]
    names += [one if isinstance(one, Unavailable) else one[0][0] for one in members]
    names.append(closed if isinstance(closed, Unavailable) else closed[0])
    return [None if isinstance(one, Unavailable) else one for one in names]


@in_a_loop
async def test_cold_is_asked_only_while_the_breaker_of_warm_is_open(
    warm: Store, cold: Store
) -> None:
    store = Fallback(warm, cold)
    assert await everything(store) == ["WARM"] * 4
    assert cold.asked == 0
    warm.breaker.failed("down", decisive=True)
    warm.asked = 0
    assert await everything(store) == ["COLD"] * 4
    assert warm.asked == 0
    while not warm.breaker.begin_probe():
        await asyncio.sleep(0.01)
    assert await everything(store) == ["COLD"] * 4
    warm.breaker.end_probe(answered=True)
    assert await everything(store) == ["WARM"] * 4


@in_a_loop
async def test_a_read_that_opens_the_breaker_is_answered_by_cold(warm: Store, cold: Store) -> None:
    store = Fallback(warm, cold)
    warm.is_there = False

    async def fails() -> None:
        warm.breaker.failed("down")

    warm.before = fails
    assert (await store.rows([A])).rows == [b"COLD"]
    assert (warm.asked, cold.asked) == (2, 1)


@in_a_loop
async def test_a_read_whose_connection_is_lost_is_asked_again(warm: Store, cold: Store) -> None:
    store = Fallback(warm, cold)

    async def lost_once() -> None:
        warm.is_there = warm.asked % 2 == 0

    warm.before = lost_once
    assert await everything(store) == ["WARM"] * 4
    assert (warm.asked, cold.asked) == (8, 0)


@in_a_loop
async def test_nothing_is_asked_for_ever(warm: Store, cold: Store) -> None:
    """Warm fails in a way that does not open the breaker: what it says counts, after some reads."""
    store = Fallback(warm, cold)
    warm.is_there = False
    assert await everything(store) == [None] * 4
    assert (warm.asked, cold.asked) == (4 * ATTEMPTS, 0)
    warm.breaker.failed("down", decisive=True)
    cold.is_there = False
    assert await everything(store) == [None] * 4
    assert (warm.asked, cold.asked) == (4 * ATTEMPTS, 4)


@in_a_loop
async def test_warm_that_has_come_back_is_asked_where_cold_did_not_answer(
    warm: Store, cold: Store
) -> None:
    store = Fallback(warm, cold)
    cold.is_there = False
    cold.before = lambda: comes_back(warm)
    for read in (store.rows([A]), store.members(SETS, 1), named(store, A)):
        warm.breaker.failed("down", decisive=True)
        assert "WARM" in repr(await read)


@in_a_loop
async def test_what_warm_has_answered_in_part_is_its_answer(warm: Store, cold: Store) -> None:
    store = Fallback(warm, cold)
    warm.refused = {"A"}
    assert (await store.rows([A, B])).rows == [UNAVAILABLE, b"WARM"]
    assert (warm.asked, cold.asked) == (1, 0)
    assert (await store.rows([])).rows == []


@in_a_loop
async def test_cold_is_asked_for_rows_of_a_node_that_is_down(warm: Store, cold: Store) -> None:
    store = Fallback(warm, cold)
    warm.down = {"A"}
    for wanted, rows, tiers in (
        ([A, B], [b"COLD", b"WARM"], [Tier.COLD, Tier.WARM]),
        ([B, A], [b"WARM", b"COLD"], [Tier.WARM, Tier.COLD]),
        ([A], [b"COLD"], [Tier.COLD]),
    ):
        found = await store.rows(wanted)
        assert found.rows == rows
        assert [found.tier_of(number) for number in range(len(rows))] == tiers
    warm.refused = {"B"}
    assert (await store.rows([A, B])).rows == [b"COLD", UNAVAILABLE]
    cold.is_there = False
    assert (await store.rows([A, B])).rows == [UNAVAILABLE] * 2


@in_a_loop
async def test_cold_is_asked_once_where_all_nodes_are_down(warm: Store, cold: Store) -> None:
    store = Fallback(warm, cold)
    warm.breaker.failed("down", decisive=True)
    warm.down, cold.is_there = {"A", "B"}, False
    assert (await store.rows([A, B])).rows == [UNAVAILABLE] * 2
    assert (warm.asked, cold.asked) == (0, 1)


@in_a_loop
@pytest.mark.parametrize("hot", [False, True])
async def test_rows_of_cold_are_not_added_up_with_members_of_warm(
    hot: bool, warm: Store, cold: Store
) -> None:
    """Also where hot, which answers nothing here, stands before both."""
    fallback = Fallback(warm, cold)
    before = HotStore("redis://127.0.0.1:1/0", fallback) if hot else fallback
    store = before.pinned()
    warm.down = {"A"}
    assert await store.members(SETS, 1) == [[("WARM",)]]
    assert (await store.rows([A, B])).rows == [UNAVAILABLE, b"WARM"]
    assert (await before.rows([A, B])).rows == [b"COLD", b"WARM"]
    await before.close()


@in_a_loop
async def test_what_hot_does_not_have_is_of_cold_for_all_of_a_request(
    warm: Store, cold: Store
) -> None:
    """Warm is gone between the members of a sum and its rows."""
    fallback = Fallback(warm, cold)
    hot = HotStore("redis://127.0.0.1:1/0", fallback, named=fallback.named)
    store = hot.pinned()
    assert await store.members(SETS, 1) == [[("WARM",)]]
    before = store.pinned()
    warm.breaker.failed("down", decisive=True)
    assert (await store.rows([A])).rows == [b"COLD"]
    assert store.pinned() is not before
    await hot.close()


@in_a_loop
@pytest.mark.parametrize("is_there", [True, False])
async def test_a_sum_is_of_cold_where_the_node_of_its_members_is_down(
    warm: Store, cold: Store, is_there: bool
) -> None:
    store = Fallback(warm, cold).pinned()
    warm.has_no_members, cold.is_there = True, is_there
    assert await store.members(SETS, 1) == [[("COLD",)] if is_there else UNAVAILABLE]
    assert (store.pinned() is cold) == is_there
    assert (await store.rows([A])).rows == [b"COLD" if is_there else b"WARM"]


@in_a_loop
async def test_all_reads_of_a_sum_are_of_cold_if_the_first_one_was(
    warm: Store, cold: Store
) -> None:
    """Members that cold knows, with rows of warm, would pass for a sum of now."""
    store = Fallback(warm, cold)
    warm.breaker.failed("down", decisive=True)
    pinned = store.pinned()
    await comes_back(warm)
    assert await pinned.members(SETS, 1) == [[("COLD",)]]
    assert (await pinned.rows([A])).tier is Tier.COLD
    assert (await store.rows([A])).tier is Tier.WARM


@in_a_loop
@pytest.mark.parametrize("turned", range(4))
@pytest.mark.parametrize("hot", [False, True])
async def test_reads_of_a_request_stay_with_cold_once_it_has_answered_one(
    turned: int, hot: bool, warm: Store, cold: Store
) -> None:
    """Warm is gone during the read with the number `turned` alone, and there again after it."""
    fallback = Fallback(warm, cold)

    async def from_hot(wanted: Sequence[RowId], behind: RowStore) -> TieredRows:
        if wanted == [A]:
            return TieredRows([b"HOT"], Tier.HOT)
        return await behind.rows(wanted)

    store = PinnedHot(from_hot, fallback.pinned()) if hot else fallback.pinned()
    seen = []
    for number in range(4):
        if number == turned:
            warm.breaker.failed("down", decisive=True)
        (closed,) = (await store.last_closed(GROUPS)) if number % 2 else [None]
        (members,) = [[closed]] if number % 2 else await store.members(SETS, 1)
        assert not isinstance(members, Unavailable)
        seen.append(members)
        if number == turned:
            await comes_back(warm)
    assert seen == [[("WARM",)]] * turned + [[("COLD",)]] * (4 - turned)
    assert (await store.rows([A, B])).rows == [b"COLD"] * 2
    assert (await store.rows([A])).tier is Tier.COLD
    assert (await fallback.rows([A])).tier is Tier.WARM
    assert store.pinned() is cold


@in_a_loop
async def test_a_request_of_which_warm_answers_all_reads_hot_too(warm: Store, cold: Store) -> None:
    async def from_hot(wanted: Sequence[RowId], behind: RowStore) -> TieredRows:
        return TieredRows([b"HOT"], Tier.HOT)

    store = PinnedHot(from_hot, Fallback(warm, cold).pinned())
    assert await store.members(SETS, 1) == [[("WARM",)]]
    assert (await store.rows([A])).rows == [b"HOT"]
    assert store.pinned() is store


@in_a_loop
async def test_too_much_is_too_much_of_either(warm: Store, cold: Store) -> None:
    for _ in range(2):
        with pytest.raises(TooLarge):
            await Fallback(warm, cold).members(SETS, 0)
        warm.breaker.failed("down", decisive=True)


@in_a_loop
async def test_a_wait_that_is_ended_knows_for_whom_it_was(warm: Store, cold: Store) -> None:
    store = Fallback(warm, cold)

    async def for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    warm.before = for_ever
    for read in (store.rows([A]), named(store, A), store.members(SETS, 1)):
        with pytest.raises(TimeoutError) as ended:
            async with asyncio.timeout(0.01):
                await read
        assert ended.value.__cause__ is not None
        assert ended.value.__cause__.__notes__ == ["warm"]
