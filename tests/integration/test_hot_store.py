"""Rows from hot, with a worker whose steps the test takes, and races that it forces.

What is read between two steps of a promotion is read by a store behind hot that stops there.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from registry.formats.hot import LEASE_MS, lease_key, row_key
from registry.formats.redis_keys import entity_id
from registry.formats.row import HEADER
from serving.stores.hot import HotOptions, HotStore
from serving.stores.hot_promotion import BATCH_ROWS, Outcome
from serving.stores.most_read import MostRead
from serving.stores.newest_served import SECONDS
from serving.stores.row_store import UNAVAILABLE, RowId, RowStore, Tier, TieredRows
from serving.stores.warm import WarmStore
from serving.stores.warming import warm
from tests.support.apps import in_a_loop
from tests.support.cluster import Cluster
from tests.support.hot_worker import HotWorker, row
from tests.support.row_stores import HeldStore, MemoryStore
from tests.support.services import kill
from tests.support.stored import store_row
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process

pytestmark = pytest.mark.timeout(60)

A, B = RowId("price", ("A",)), RowId("price", ("B",))
ALWAYS = HotOptions(marks_seconds=0.0)
"""Marks are read with every read, so that what a test does to a mark is seen at once."""


class Stores(NamedTuple):
    """Both tiers: their URLs, and clients to look into them and to do to them what tests do."""

    warm_url: str
    hot_url: str
    warm: Any
    hot: Any

    def worker(self, partition: int = 0, topic_id: bytes = bytes(16)) -> HotWorker:
        made = HotWorker(self.warm, self.hot, partition, topic_id)
        made.begin()
        return made


@pytest.fixture
def stores(redis_database: str, hot_redis: str) -> Iterator[Stores]:
    with redis.Redis.from_url(redis_database) as warm, redis.Redis.from_url(hot_redis) as hot:
        hot.flushall()
        yield Stores(redis_database, hot_redis, warm, hot)


def using(
    stores: Stores,
    act: Callable[[HotStore], Awaitable[None]],
    options: HotOptions = ALWAYS,
    behind: Callable[[RowStore], RowStore] | None = None,
) -> None:
    """Does something with a store over both tiers, which is closed then."""

    async def run() -> None:
        warm = WarmStore(stores.warm_url)
        store = (
            HotStore(stores.hot_url, behind(warm), options)
            if behind
            else HotStore(stores.hot_url, warm, options, warm.named)
        )
        try:
            async with asyncio.timeout(50):
                await act(store)
        finally:
            await store.close()

    asyncio.run(run())


async def read(store: HotStore, *wanted: RowId) -> list[tuple[Any, Tier]]:
    """Each row, and its tier."""
    found = await store.rows(wanted)
    return [(row, found.tier_of(index)) for index, row in enumerate(found.rows)]


async def until(store: HotStore, tier: Tier, *wanted: RowId) -> list[Any]:
    """The rows, once all of them are from a tier."""
    while True:
        found = await read(store, *wanted)
        if all(of is tier for _, of in found):
            return [row for row, _ in found]
        await asyncio.sleep(0.001)


async def settled(store: HotStore) -> None:
    """Returns once nothing is being brought in."""
    while not store.promotion.is_idle:
        await asyncio.sleep(0.001)


# ---------------------------------------------------------------- what is read where


def test_what_is_asked_for_comes_in_and_is_kept_up_to_date(stores: Stores) -> None:
    worker = stores.worker()
    first = worker.write(["A", "B"])
    nobody = RowId("price", ("nobody",))

    async def act(store: HotStore) -> None:
        wanted = A, B, nobody
        assert await read(store, *wanted) == [(row, Tier.WARM) for row in (first, first, None)]
        assert await until(store, Tier.HOT, A, B) == [first, first]
        second = worker.write(["A"])
        assert await read(store, *wanted) == [
            (second, Tier.HOT),
            (first, Tier.HOT),
            (None, Tier.WARM),
        ]
        assert sorted(stores.hot.keys("th:row:*")) == [b"th:row:price:A", b"th:row:price:B"]
        assert stores.hot.keys("th:lease:*") == []

    using(stores, act)


def test_by_name_as_by_id(stores: Stores) -> None:
    """In any order and repeated, some from hot and some from behind it."""
    prices, volumes = stores.worker(0), stores.worker(1)
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

    using(stores, act)


def test_other_sources_of_an_entity_come_in_with_it(stores: Stores) -> None:
    stores.worker(0).write(["A", "B"])
    stores.worker(1).write(["A"], "volume")
    siblings = {"price": ["volume"], "volume": ["price"]}

    async def act(store: HotStore) -> None:
        await store.rows([A])
        await settled(store)
        assert sorted(stores.hot.keys("th:row:*")) == [b"th:row:price:A", b"th:row:volume:A"]
        assert await read(store, RowId("volume", ("A",)))
        assert store.counts.found[Tier.HOT] == 1

    using(stores, act, ALWAYS._replace(siblings=siblings.__getitem__))


def test_entities_of_a_group_are_read_behind_hot(stores: Stores) -> None:
    """A position that was closed would else still be open beside the one that it moved to."""
    worker = stores.worker()
    position = RowId("position", ("P1", "A"))
    worker.write(["A"])
    worker.write(["P1\x1fA"], "position")

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        await store.named_rows([("position", [store.name(position)])])
        await settled(store)
        assert stores.hot.exists(row_key("position", "P1\x1fA"))
        closed = worker.store(["P1\x1fA"], "position")
        assert (await read(store, position, A))[0] == (closed, Tier.WARM)

    using(stores, act)


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
async def test_rows_of_another_tier_do_not_come_in(stores: Stores) -> None:
    """What is cold is behind by any time."""
    stores.worker().write(["A"])
    cold = MemoryStore({A: row(1)}, tiers={A: Tier.COLD})
    store = HotStore(stores.hot_url, cold, ALWAYS)
    for _ in range(3):
        assert await read(store, A) == [(row(1), Tier.COLD)]
        await settled(store)
    assert await store.promotion.promote([A]) == [Outcome.UNANSWERED]
    await store.close()
    assert stores.hot.keys("th:row:*") == stores.hot.keys("th:lease:*") == []


@in_a_loop
async def test_nothing_is_read_to_be_brought_in_while_warm_is_away(stores: Stores) -> None:
    """It would be read from Postgres for nothing."""
    worker = stores.worker()
    behind, is_there = MemoryStore({A: worker.write(["A"])}), [False]
    options = ALWAYS._replace(has_warm=lambda: is_there[0])
    store = HotStore(stores.hot_url, behind, options)
    assert await store.promotion.promote([A]) == [Outcome.UNANSWERED]
    assert behind.reads == []
    assert stores.hot.keys("th:lease:*") == []
    is_there[0] = True
    assert await store.promotion.promote([A]) == [Outcome.PUT]
    await store.close()


# ---------------------------------------------------------------- what is believed


def test_without_a_mark_nothing_is_believed_and_nothing_comes_in(stores: Stores) -> None:
    worker = stores.worker()
    first = worker.write(["A", "B"])

    async def act(store: HotStore) -> None:
        assert await until(store, Tier.HOT, A) == [first]
        worker.drop()
        second = worker.store(["A", "B"])
        for _ in range(3):
            assert await read(store, A, B) == [(second, Tier.WARM)] * 2
            await settled(store)
        assert await store.promotion.promote([A, B]) == [Outcome.NOT_FED] * 2
        assert stores.hot.keys("th:row:*") == [b"th:row:price:A"]
        assert stores.hot.keys("th:lease:*") == []
        worker.begin()
        assert await until(store, Tier.HOT, A, B) == [second] * 2

    using(stores, act)


def test_what_is_void_stays_void_under_a_new_token(stores: Stores) -> None:
    worker = stores.worker()
    worker.write(["A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        second = worker.store(["A"])  # of which hot never hears
        worker.begin()
        assert await read(store, A) == [(second, Tier.WARM)]
        assert await until(store, Tier.HOT, A) == [second]

    using(stores, act)


def test_a_mark_that_ends_is_seen_soon_by_who_reads_marks_now_and_then(stores: Stores) -> None:
    worker = stores.worker()
    worker.write(["A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        worker.drop()
        second = worker.store(["A"])
        begun = asyncio.get_running_loop().time()
        assert await until(store, Tier.WARM, A) == [second]
        assert asyncio.get_running_loop().time() - begun < 1.0
        reads = stores.hot.info("commandstats")["cmdstat_mget"]["calls"]
        assert reads

    using(stores, act, HotOptions())


def test_a_topic_that_was_made_anew(stores: Stores) -> None:
    """Rows of before are void once their mark is, and those of now come in beside it."""
    old = stores.worker(topic_id=b"o" * 16)
    old.write(["A", "A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        new = stores.worker(topic_id=b"n" * 16)
        first = new.store(["A"])
        old.drop()
        assert await read(store, A) == [(first, Tier.WARM)]
        assert await until(store, Tier.HOT, A) == [first]

    using(stores, act)


def test_reads_of_a_group_alone_or_of_nothing_are_counted_too(stores: Stores) -> None:
    """What is read most is counted of the other half of a read, which is empty here."""
    position = RowId("position", ("P1", "A"))
    first = stores.worker().write([entity_id(position.entity)], "position")

    async def act(store: HotStore) -> None:
        for _ in range(3):
            assert await read(store, position) == [(first, Tier.WARM)]
            assert await read(store) == []

    using(stores, act, ALWAYS._replace(most_read=MostRead(every=1)))


@pytest.mark.parametrize("gone", ["row", "mark", "all"])
def test_what_is_evicted_is_read_behind_hot(stores: Stores, gone: str) -> None:
    worker = stores.worker()
    first = worker.write(["A"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        if gone == "all":
            stores.hot.flushall()
        else:
            stores.hot.delete(row_key("price", "A") if gone == "row" else worker.key)
        assert await read(store, A) == [(first, Tier.WARM)]
        worker.begin()
        assert await until(store, Tier.HOT, A) == [first]

    using(stores, act)


def test_values_do_not_step_back_behind_what_was_served_from_warm(stores: Stores) -> None:
    """Another server brings in what warm had before; until the worker has fed hot it is behind."""
    worker = stores.worker()
    first = worker.write(["A", "B"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, B)
        second = worker.store(["A"])  # confirmed, and not fed
        assert await read(store, A) == [(second, Tier.WARM)]
        await settled(store)
        stores.hot.set(row_key("price", "A"), worker.token + first)
        for _ in range(3):
            assert await read(store, A, B) == [(second, Tier.WARM), (first, Tier.HOT)]
        worker.feed()
        assert await until(store, Tier.HOT, A) == [second]

    using(stores, act)


# ---------------------------------------------------------------- promotion against the worker


def test_values_do_not_step_back_after_a_pause_either(stores: Stores) -> None:
    """What was served while hot was not believed counts, however long nothing was read in it."""
    worker = stores.worker()
    first = worker.write(["A", "B"])

    async def act(store: HotStore) -> None:
        await until(store, Tier.HOT, A)
        await settled(store)
        store.trust.is_given = False
        await asyncio.sleep(2 * SECONDS + 0.1)
        second = worker.store(["A"])  # confirmed, and not fed
        assert await read(store, A) == [(second, Tier.WARM)]
        store.trust.is_given = True
        assert await read(store, A) == [(second, Tier.WARM)]
        assert first != second

    using(stores, act)


def test_nothing_is_brought_in_over_what_happened_meanwhile(stores: Stores) -> None:
    """Between the read of warm and the promotion: each thing that can, and nothing at all."""
    lease = lease_key("price", "A")
    worker = stores.worker()
    worker.write(["A"])

    def new_token() -> None:
        worker.store(["A"])
        worker.begin()

    happenings: list[tuple[Callable[[], object], Outcome]] = [
        (lambda: None, Outcome.PUT),
        (lambda: worker.write(["A"]), Outcome.LOST),
        (lambda: stores.hot.delete(lease), Outcome.LOST),
        (lambda: stores.hot.set(lease, "of another", px=LEASE_MS), Outcome.LOST),
        (new_token, Outcome.LOST),
        (worker.drop, Outcome.LOST),
        (lambda: stores.hot.flushall(), Outcome.LOST),
    ]

    async def one(happens: Callable[[], object], expected: Outcome) -> None:
        stores.hot.delete(lease, row_key("price", "A"))
        worker.begin()
        warm = WarmStore(stores.warm_url)
        held = HeldStore(warm)
        store = HotStore(stores.hot_url, held, ALWAYS)
        held.go_on.set()
        await store.promotion.promote([B, A])  # the partition is known from now on
        stores.hot.delete(row_key("price", "A"))
        held.go_on.clear()
        held.has_read.clear()
        promoting = asyncio.create_task(store.promotion.promote([A]))
        await held.has_read.wait()
        happens()
        held.go_on.set()
        assert await promoting == [expected]
        there = stores.hot.get(row_key("price", "A"))
        live = stores.hot.get(worker.key)
        assert (there is not None) == (expected is Outcome.PUT)
        if there is not None:
            assert there == live + stores.warm.hget("tw:3:{b0}:rows:price", "A")
        await store.close()

    for happens, expected in happenings:
        asyncio.run(one(happens, expected))


def test_a_row_that_is_brought_in_before_the_worker_feeds_is_fed(stores: Stores) -> None:
    worker = stores.worker()
    worker.write(["A"])

    async def act(store: HotStore) -> None:
        await store.promotion.promote([A])
        second = worker.store(["A"])
        worker.feed()
        assert await read(store, A) == [(second, Tier.HOT)]

    using(stores, act)


@pytest.mark.parametrize("damaged", [b"", b"\1", bytes(HEADER.size - 1)])
def test_a_damaged_row_does_not_come_in(stores: Stores, damaged: bytes) -> None:
    """Nobody can say where it comes from; beside it others come in."""
    worker = stores.worker()
    whole = worker.write(["A"])
    store_row(stores.warm, "price", "B", damaged)

    async def act(store: HotStore) -> None:
        assert await store.promotion.promote([A, B]) == [Outcome.PUT, Outcome.NO_ROW]
        assert (await read(store, A, B))[1] == (damaged, Tier.WARM)
        await settled(store)
        assert await until(store, Tier.HOT, A) == [whole]
        assert stores.hot.keys("th:row:*") == [b"th:row:price:A"]
        assert stores.hot.keys("th:lease:*") == []

    using(stores, act)


def test_two_servers_do_not_bring_in_the_same_row(stores: Stores) -> None:
    worker = stores.worker()
    worker.write(["A"])
    stores.hot.set(lease_key("price", "A"), "of another", px=LEASE_MS)

    async def act(store: HotStore) -> None:
        assert await store.promotion.promote([A, B]) == [Outcome.PRESENT, Outcome.NO_ROW]
        stores.hot.delete(lease_key("price", "A"))
        assert await store.promotion.promote([A, B]) == [Outcome.PUT, Outcome.NO_ROW]
        assert await store.promotion.promote([A]) == [Outcome.PRESENT]

    using(stores, act)


def test_many_rows_come_in_and_no_more_wait_than_may(stores: Stores) -> None:
    symbols = [f"S{number}" for number in range(20_000)]
    rows = [RowId("price", (symbol,)) for symbol in symbols]
    stored = stores.worker().write(symbols[:3000])

    async def act(store: HotStore) -> None:
        done: list[int] = []
        outcomes = await warm(store.promotion, rows[:3100], done.append)
        assert outcomes == {Outcome.PUT: 3000, Outcome.NO_ROW: 100}
        assert sum(done) == 3100
        assert await until(store, Tier.HOT, *rows[:3000]) == [stored] * 3000
        store.promotion.want(rows)
        assert store.promotion.outcomes[Outcome.DROPPED] > 0
        await settled(store)

    using(stores, act)


# ---------------------------------------------------------------- a hot that is gone


@pytest.fixture
def own_hot(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    spec, url = valkey(tmp_path / "hot", "hot")
    process = Process(spec)
    process.start()
    process.wait_ready()
    yield process, url
    process.stop()


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_hot_that_is_gone_delays_one_read_and_is_believed_again_once_it_is_back(
    redis_database: str, own_hot: tuple[Process, str], how: str
) -> None:
    process, url = own_hot
    assert process.pid is not None
    with redis.Redis.from_url(redis_database) as warm, redis.Redis.from_url(url) as hot:
        stores = Stores(redis_database, url, warm, hot)
        worker = stores.worker()
        worker.write(["A", "B"])

        async def act(store: HotStore) -> None:
            loop = asyncio.get_running_loop()
            await until(store, Tier.HOT, A)
            assert process.pid is not None
            if how == "paused":
                os.kill(process.pid, signal.SIGSTOP)
            else:
                kill(process)
            second = worker.store(["A"])
            slow = 0
            for _ in range(200):
                begun = loop.time()
                assert await read(store, A) == [(second, Tier.WARM)]
                slow += loop.time() - begun > 0.2
            assert slow <= 1
            lost_at = loop.time()
            if how == "paused":
                os.kill(process.pid, signal.SIGCONT)
            else:
                process.start()
                process.wait_ready()
            worker.begin()
            third = worker.store(["A"])
            worker.feed()
            found = await until(store, Tier.HOT, A)
            assert found == [third]
            assert loop.time() - lost_at > 1.0
            assert store.trust.times_lost == 1

        try:
            using(stores, act)
        finally:
            os.kill(process.pid, signal.SIGCONT)


@in_a_loop
async def test_a_hot_that_never_was(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    stored = stores.worker().write(["A"])
    warm = WarmStore(stores.warm_url)
    store = HotStore("redis://127.0.0.1:1/0", warm, ALWAYS, warm.named)
    for _ in range(3):
        assert await read(store, A) == [(stored, Tier.WARM)]
    assert await store.promotion.promote([A]) == [Outcome.UNANSWERED]
    await store.close()
    assert "rows cannot be read from" in caplog.text
    assert "is not asked any more" not in caplog.text, "as if it were warm"


@in_a_loop
async def test_all_is_gone(stores: Stores) -> None:
    """What hot has is answered while what is behind it does not answer."""
    first = stores.worker().write(["A"])
    warm = WarmStore(stores.warm_url)
    store = HotStore(stores.hot_url, warm, ALWAYS, warm.named)
    await until(store, Tier.HOT, A)
    await warm.close()
    assert await read(store, A, B) == [(first, Tier.HOT), (UNAVAILABLE, Tier.NONE)]
    assert await store.named_rows([("price", [store.name(B)])]) is UNAVAILABLE
    await store.close()
