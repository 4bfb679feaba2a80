"""Rows that are brought into hot, and a hot that is gone, with races that are forced.

What is read between two steps of a promotion is read by a store behind hot that stops there.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from registry.formats.hot import LEASE_MS, lease_key, row_key
from registry.formats.row import HEADER
from serving.stores.hot import HotStore
from serving.stores.hot_promotion import Outcome
from serving.stores.newest_served import SECONDS
from serving.stores.row_store import UNAVAILABLE, RowId, Tier
from serving.stores.warm import WarmStore
from serving.stores.warming import warm
from tests.support.apps import in_a_loop
from tests.support.both_tiers import ALWAYS, A, B, BothTiers, read, settled, until, using
from tests.support.row_stores import HeldStore
from tests.support.services import kill
from tests.support.stored import store_row
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process

pytestmark = pytest.mark.timeout(60)

# ---------------------------------------------------------------- promotion against the worker


def test_values_do_not_step_back_after_a_pause_either(tiers: BothTiers) -> None:
    """What was served while hot was not believed counts, however long nothing was read in it."""
    worker = tiers.worker()
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

    using(tiers, act)


def test_nothing_is_brought_in_over_what_happened_meanwhile(tiers: BothTiers) -> None:
    """Between the read of warm and the promotion: each thing that can, and nothing at all."""
    lease = lease_key("price", "A")
    worker = tiers.worker()
    worker.write(["A"])

    def new_token() -> None:
        worker.store(["A"])
        worker.begin()

    def run() -> None:
        worker.write(["A"])  # the lease says that it is wanted

    happenings: list[tuple[Callable[[], object], Outcome]] = [
        (lambda: None, Outcome.PUT),
        (run, Outcome.LOST),
        (lambda: tiers.hot.delete(lease), Outcome.LOST),
        (lambda: tiers.hot.set(lease, "of another", px=LEASE_MS), Outcome.LOST),
        (new_token, Outcome.LOST),
        (worker.drop, Outcome.LOST),
        (lambda: tiers.hot.flushall(), Outcome.LOST),
    ]

    async def one(happens: Callable[[], object], expected: Outcome) -> None:
        tiers.hot.delete(lease, row_key("price", "A"))
        worker.begin()
        warm = WarmStore(tiers.warm_url)
        held = HeldStore(warm)
        store = HotStore(tiers.hot_url, held, ALWAYS)
        held.go_on.set()
        await store.promotion.promote([B, A])  # the partition is known from now on
        tiers.hot.delete(row_key("price", "A"))
        held.go_on.clear()
        held.has_read.clear()
        promoting = asyncio.create_task(store.promotion.promote([A]))
        await held.has_read.wait()
        happens()
        held.go_on.set()
        assert await promoting == [expected]
        there = tiers.hot.get(row_key("price", "A"))
        live = tiers.hot.get(worker.key)
        assert (there is not None) == (expected is Outcome.PUT or happens is run)
        if there is not None:
            assert there == live + tiers.warm.hget("tw:3:{b0}:rows:price", "A")
        await store.close()

    for happens, expected in happenings:
        asyncio.run(one(happens, expected))


def test_a_row_that_is_brought_in_before_the_worker_feeds_is_fed(tiers: BothTiers) -> None:
    worker = tiers.worker()
    worker.write(["A"])

    async def act(store: HotStore) -> None:
        await store.promotion.promote([A])
        second = worker.store(["A"])
        worker.feed()
        assert await read(store, A) == [(second, Tier.HOT)]

    using(tiers, act)


@pytest.mark.parametrize("damaged", [b"", b"\1", bytes(HEADER.size - 1)])
def test_a_damaged_row_does_not_come_in(tiers: BothTiers, damaged: bytes) -> None:
    """Nobody can say where it comes from; beside it others come in."""
    worker = tiers.worker()
    whole = worker.write(["A"])
    store_row(tiers.warm, "price", "B", damaged)

    async def act(store: HotStore) -> None:
        assert await store.promotion.promote([A, B]) == [Outcome.PUT, Outcome.NO_ROW]
        assert (await read(store, A, B))[1] == (damaged, Tier.WARM)
        await settled(store)
        assert await until(store, Tier.HOT, A) == [whole]
        assert tiers.hot.keys("th:row:*") == [b"th:row:price:A"]
        assert tiers.hot.keys("th:lease:*") == []

    using(tiers, act)


def test_two_servers_do_not_bring_in_the_same_row(tiers: BothTiers) -> None:
    worker = tiers.worker()
    worker.write(["A"])
    tiers.hot.set(lease_key("price", "A"), "of another", px=LEASE_MS)

    async def act(store: HotStore) -> None:
        assert await store.promotion.promote([A, B]) == [Outcome.PRESENT, Outcome.NO_ROW]
        tiers.hot.delete(lease_key("price", "A"))
        assert await store.promotion.promote([A, B]) == [Outcome.PUT, Outcome.NO_ROW]
        assert await store.promotion.promote([A]) == [Outcome.PRESENT]

    using(tiers, act)


def test_many_rows_come_in_and_no_more_wait_than_may(tiers: BothTiers) -> None:
    symbols = [f"S{number}" for number in range(20_000)]
    rows = [RowId("price", (symbol,)) for symbol in symbols]
    stored = tiers.worker().write(symbols[:3000])

    async def act(store: HotStore) -> None:
        done: list[int] = []
        outcomes = await warm(store.promotion, rows[:3100], done.append)
        assert outcomes == {Outcome.PUT: 3000, Outcome.NO_ROW: 100}
        assert sum(done) == 3100
        assert await until(store, Tier.HOT, *rows[:3000]) == [stored] * 3000
        store.promotion.want(rows)
        assert store.promotion.outcomes[Outcome.DROPPED] > 0
        await settled(store)

    using(tiers, act)


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
        tiers = BothTiers(redis_database, url, warm, hot)
        worker = tiers.worker()
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
            using(tiers, act)
        finally:
            os.kill(process.pid, signal.SIGCONT)


@in_a_loop
async def test_a_hot_that_never_was(tiers: BothTiers, caplog: pytest.LogCaptureFixture) -> None:
    stored = tiers.worker().write(["A"])
    warm = WarmStore(tiers.warm_url)
    store = HotStore("redis://127.0.0.1:1/0", warm, ALWAYS, warm.named)
    for _ in range(3):
        assert await read(store, A) == [(stored, Tier.WARM)]
    assert await store.promotion.promote([A]) == [Outcome.UNANSWERED]
    await store.close()
    assert "rows cannot be read from" in caplog.text
    assert "is not asked any more" not in caplog.text, "as if it were warm"


@in_a_loop
async def test_all_is_gone(tiers: BothTiers) -> None:
    """What hot has is answered while what is behind it does not answer."""
    first = tiers.worker().write(["A"])
    warm = WarmStore(tiers.warm_url)
    store = HotStore(tiers.hot_url, warm, ALWAYS, warm.named)
    await until(store, Tier.HOT, A)
    await warm.close()
    assert await read(store, A, B) == [(first, Tier.HOT), (UNAVAILABLE, Tier.NONE)]
    assert await store.named_rows([("price", [store.name(B)])]) is UNAVAILABLE
    await store.close()
