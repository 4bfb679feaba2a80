"""Rows from hot, with a worker whose steps the test takes, and races that it forces.

What is read between two steps of a promotion is read by a store behind hot that stops there.
"""

from __future__ import annotations

import asyncio

import pytest
import redis

from registry.formats.entity_name import entity_id
from registry.formats.hot import row_key
from serving.stores.hot import HotOptions, HotStore
from serving.stores.hot_promotion import BATCH_ROWS, Outcome
from serving.stores.most_read import MostRead
from serving.stores.row_store import UNAVAILABLE, RowId, Tier, TieredRows
from serving.stores.warm import WarmStore
from tests.support.apps import in_a_loop
from tests.support.both_tiers import ALWAYS, A, B, BothTiers, heard, read, settled, until, using
from tests.support.cluster import Cluster
from tests.support.hot_worker import HotWorker, row
from tests.support.row_stores import MemoryStore

pytestmark = pytest.mark.timeout(60)

# ---------------------------------------------------------------- what is read where


def test_what_is_asked_for_comes_in_and_is_kept_up_to_date(tiers: BothTiers) -> None:
    worker = tiers.worker()
    first = worker.write(["A", "B"])
    nobody = RowId("price", ("nobody",))

    async def act(store: HotStore) -> None:
        wanted = A, B, nobody
        assert await read(store, *wanted) == [(row, Tier.WARM) for row in (first, first, None)]
        assert await until(store, Tier.HOT, A, B) == [first, first]
        assert await heard(store, A, B) == [first, first]
        assert await heard(store, A, nobody) is None
        second = worker.write(["A"])
        assert await heard(store, B, A) == [first, second]
        assert await read(store, *wanted) == [
            (second, Tier.HOT),
            (first, Tier.HOT),
            (None, Tier.WARM),
        ]
        assert sorted(tiers.hot.keys("th:row:*")) == [b"th:row:price:A", b"th:row:price:B"]
        assert tiers.hot.keys("th:lease:*") == []

    using(tiers, act)


def test_what_is_heard_counts_once_it_is_answered(tiers: BothTiers) -> None:
    """What is heard and not answered is asked for again, and counts then."""
    tiers.worker().write(["A"])
    noted = MostRead(every=1)

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        wanted, told = [("price", [store.name(A)])], asyncio.get_running_loop().create_future()
        judge = store.ask(wanted, told)
        assert judge is not None
        rows, reads = store.counts.rows, noted.reads()
        found = judge(await told)
        assert found is not None
        assert (store.counts.rows, noted.reads()) == (rows, reads)
        found.on_answer()
        assert store.counts.rows == rows + 1
        assert noted.reads() != reads

    using(tiers, act, ALWAYS._replace(most_read=noted))


def test_by_name_as_by_id(tiers: BothTiers) -> None:
    """In any order and repeated, some from hot and some from behind it."""
    prices, volumes = tiers.worker(0), tiers.worker(1)
    price, volume = prices.write(["A", "B", "C"]), volumes.write(["A", "C"], "volume")

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A, RowId("volume", ("C",)))
        names = [store.name(RowId("price", (symbol,))) for symbol in "CABA"]
        others = [store.name(RowId("volume", (symbol,))) for symbol in "BC"]
        found = await store.named_rows([("price", names), ("volume", others)])
        assert not isinstance(found, type(UNAVAILABLE))
        assert [list(of.rows) for of in found] == [[price] * 4, [None, volume]]
        tiers = [[of.tier_of(n) for n in range(len(of.rows))] for of in found]
        assert tiers == [
            [Tier.WARM, Tier.HOT, Tier.WARM, Tier.HOT],
            [Tier.WARM, Tier.HOT],
        ]
        assert await store.named_rows([("price", [])]) == [TieredRows([], Tier.HOT)]

    using(tiers, act)


def test_other_sources_of_an_entity_come_in_with_it(tiers: BothTiers) -> None:
    tiers.worker(0).write(["A", "B"])
    tiers.worker(1).write(["A"], "volume")
    siblings = {"price": ["volume"], "volume": ["price"]}

    async def act(store: HotStore) -> None:
        await store.rows([A])
        await settled(store)
        assert sorted(tiers.hot.keys("th:row:*")) == [b"th:row:price:A", b"th:row:volume:A"]
        assert (await store.rows([RowId("volume", ("A",))])).rows
        assert store.counts.found[Tier.HOT] == 1

    using(tiers, act, ALWAYS._replace(siblings=siblings.__getitem__))


def test_entities_of_a_group_are_read_behind_hot(tiers: BothTiers) -> None:
    """A position that was closed would else still be open beside the one that it moved to."""
    worker = tiers.worker()
    position = RowId("position", ("P1", "A"))
    worker.write(["A"])
    worker.write(["P1\x1fA"], "position")

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        await store.named_rows([("position", [store.name(position)])])
        await settled(store)
        assert tiers.hot.exists(row_key("position", "P1\x1fA"))
        closed = worker.store(["P1\x1fA"], "position")
        assert (await read(store, position, A))[0] == (closed, Tier.WARM)

    using(tiers, act)


def test_a_cluster_behind_hot(three: Cluster, hot_redis: str) -> None:
    """Its rows come in too, and are read by name, which a cluster cannot."""
    symbols = [f"S{number}" for number in range(2 * BATCH_ROWS)]
    wanted = [RowId("price", (symbol,)) for symbol in symbols]
    with (
        redis.RedisCluster.from_url(three.url) as client,
        redis.Redis.from_url(hot_redis) as hot,
    ):
        hot.flushall()
        worker = HotWorker(client, hot)
        worker.begin()
        stored = worker.write(symbols)

        async def run() -> None:
            store = HotStore(hot_redis, WarmStore(three.url, cluster=True), ALWAYS)
            try:
                assert await until(store, Tier.WARM, *wanted) == [stored] * len(wanted)
                assert await until(store, Tier.HOT, *wanted) == [stored] * len(wanted)
                changed = worker.store(symbols)
                hot.delete(*hot.keys("th:row:*"))
                names = [store.name(row) for row in wanted]
                (found,) = await store.named_rows([("price", [*names, *names])])  # type: ignore[misc]
                assert list(found.rows) == [changed] * 2 * len(wanted)
            finally:
                await store.close()

        asyncio.run(run())


@in_a_loop
async def test_rows_of_another_tier_do_not_come_in(tiers: BothTiers) -> None:
    """What is cold is behind by any time."""
    tiers.worker().write(["A"])
    cold = MemoryStore({A: row(1)}, tiers={A: Tier.COLD})
    store = HotStore(tiers.hot_url, cold, ALWAYS)
    for _ in range(3):
        assert await read(store, A) == [(row(1), Tier.COLD)]
        await settled(store)
    assert await store.promotion.promote([A]) == [Outcome.UNANSWERED]
    await store.close()
    assert tiers.hot.keys("th:row:*") == tiers.hot.keys("th:lease:*") == []


@in_a_loop
async def test_nothing_is_read_to_be_brought_in_while_warm_is_away(tiers: BothTiers) -> None:
    """It would be read from Postgres for nothing."""
    worker = tiers.worker()
    behind, is_there = MemoryStore({A: worker.write(["A"])}), [False]
    options = ALWAYS._replace(has_warm=lambda: is_there[0])
    store = HotStore(tiers.hot_url, behind, options)
    assert await store.promotion.promote([A]) == [Outcome.UNANSWERED]
    assert behind.reads == []
    assert tiers.hot.keys("th:lease:*") == []
    is_there[0] = True
    assert await store.promotion.promote([A]) == [Outcome.PUT]
    await store.close()


# ---------------------------------------------------------------- what is believed


def test_without_a_mark_nothing_is_believed_and_nothing_comes_in(tiers: BothTiers) -> None:
    worker = tiers.worker()
    first = worker.write(["A", "B"])

    async def act(store: HotStore) -> None:
        assert await until(store, Tier.HOT, A) == [first]
        worker.drop()
        second = worker.store(["A", "B"])
        for _ in range(3):
            assert await read(store, A, B) == [(second, Tier.WARM)] * 2
            await settled(store)
        assert await store.promotion.promote([A, B]) == [Outcome.NOT_FED] * 2
        assert tiers.hot.keys("th:row:*") == [b"th:row:price:A"]
        assert tiers.hot.keys("th:lease:*") == []
        worker.begin()
        assert await until(store, Tier.HOT, A, B) == [second] * 2

    using(tiers, act)


def test_what_is_void_stays_void_under_a_new_token(tiers: BothTiers) -> None:
    worker = tiers.worker()
    worker.write(["A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        second = worker.store(["A"])  # of which hot never hears
        worker.begin()
        assert await read(store, A) == [(second, Tier.WARM)]
        assert await until(store, Tier.HOT, A) == [second]

    using(tiers, act)


def test_a_mark_that_ends_is_seen_soon_by_who_reads_marks_now_and_then(tiers: BothTiers) -> None:
    worker = tiers.worker()
    worker.write(["A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        worker.drop()
        second = worker.store(["A"])
        begun = asyncio.get_running_loop().time()
        while (found := await store.rows([A])).tier_of(0) is not Tier.WARM:
            await asyncio.sleep(0.001)
        assert list(found.rows) == [second]
        assert asyncio.get_running_loop().time() - begun < 1.0
        reads = tiers.hot.info("commandstats")["cmdstat_mget"]["calls"]
        assert reads

    using(tiers, act, HotOptions())


def test_a_topic_that_was_made_anew(tiers: BothTiers) -> None:
    """Rows of before are void once their mark is, and those of now come in beside it."""
    old = tiers.worker(topic_id=b"o" * 16)
    old.write(["A", "A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        new = tiers.worker(topic_id=b"n" * 16)
        first = new.store(["A"])
        old.drop()
        assert await read(store, A) == [(first, Tier.WARM)]
        assert await until(store, Tier.HOT, A) == [first]

    using(tiers, act)


def test_reads_of_a_group_alone_or_of_nothing_are_counted_too(tiers: BothTiers) -> None:
    """What is read most is counted of the other half of a read, which is empty here."""
    position = RowId("position", ("P1", "A"))
    first = tiers.worker().write([entity_id(position.entity)], "position")

    async def act(store: HotStore) -> None:
        for _ in range(3):
            assert await read(store, position) == [(first, Tier.WARM)]
            assert await read(store) == []

    using(tiers, act, ALWAYS._replace(most_read=MostRead(every=1)))


@pytest.mark.parametrize("gone", ["row", "mark", "all"])
def test_what_is_evicted_is_read_behind_hot(tiers: BothTiers, gone: str) -> None:
    worker = tiers.worker()
    first = worker.write(["A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        if gone == "all":
            tiers.hot.flushall()
        else:
            tiers.hot.delete(row_key("price", "A") if gone == "row" else worker.key)
        assert await read(store, A) == [(first, Tier.WARM)]
        worker.begin()
        assert await until(store, Tier.HOT, A) == [first]

    using(tiers, act)


def test_values_do_not_step_back_behind_what_was_served_from_warm(tiers: BothTiers) -> None:
    """Another server brings in what warm had before; until the worker has fed hot it is behind."""
    worker = tiers.worker()
    first = worker.write(["A", "B"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, B)
        second = worker.store(["A"])  # confirmed, and not fed
        assert await read(store, A) == [(second, Tier.WARM)]
        await settled(store)
        tiers.hot.set(row_key("price", "A"), worker.token + first)
        for _ in range(3):
            assert await read(store, A, B) == [(second, Tier.WARM), (first, Tier.HOT)]
        worker.feed()
        assert await until(store, Tier.HOT, A) == [second]

    using(tiers, act)
