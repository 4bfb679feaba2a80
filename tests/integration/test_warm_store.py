"""Rows, members and last closes read from one Redis, and from a Redis Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from registry import redis_clients
from registry.formats.last_close import LAST_CLOSE
from registry.formats.redis_keys import (
    CLUSTER_BUCKETS,
    bucket,
    closed_key,
    members_key,
    rows_key,
)
from serving.errors import TooLarge
from serving.stores.cluster_reads import ClusterReads
from serving.stores.redis_reads import MAX_ROWS
from serving.stores.row_store import UNAVAILABLE, Group, MemberSet, Packed, RowId, Tier
from serving.stores.warm import WarmStore
from tests.support.apps import in_a_loop
from tests.support.cluster import SLOTS, Cluster, cluster
from tests.support.pipeline import wait_for
from tests.support.services import kill
from tests.support.stored import store_row

SYMBOLS = [f"S{number}" for number in range(100)]
PORTFOLIOS = [f"P{number}" for number in range(20)]
WANTED = [RowId("price", (symbol,)) for symbol in SYMBOLS] + [
    RowId("position", (portfolio, "S1")) for portfolio in PORTFOLIOS
]
ROWS = [f"row of {symbol}".encode() for symbol in SYMBOLS] + [
    f"row of {portfolio}/S1".encode() for portfolio in PORTFOLIOS
]
SETS = [MemberSet("position", portfolio) for portfolio in PORTFOLIOS]
GROUPS = [Group("position", (portfolio,)) for portfolio in PORTFOLIOS]

Stored = tuple[str, bool]
"""The URL of a Redis, and whether it is a cluster."""


def fill(client: Any) -> None:
    """A row of each of `WANTED`, and of each portfolio two members and a last close."""
    for symbol in SYMBOLS:
        store_row(client, "price", symbol, f"row of {symbol}")
    for portfolio in PORTFOLIOS:
        store_row(client, "position", f"{portfolio}\x1fS1", f"row of {portfolio}/S1")
        client.sadd(members_key("position", portfolio), "S2", "S1")
        client.set(closed_key("position", portfolio), LAST_CLOSE.struct.pack(7) + b"S9")


@pytest.fixture(params=["single", "cluster"])
def stored(request: pytest.FixtureRequest) -> Iterator[Stored]:
    """A Redis of either kind that is filled."""
    if request.param == "single":
        url = request.getfixturevalue("redis_database")
        with redis.Redis.from_url(url) as client:
            fill(client)
        yield url, False
    else:
        yield request.getfixturevalue("filled").url, True


@pytest.fixture(scope="module")
def filled(three: Cluster) -> Cluster:
    """The cluster, filled."""
    with redis.RedisCluster.from_url(three.url) as client:
        fill(client)
    return three


def using(url: str, cluster: bool, act: Callable[[WarmStore], Awaitable[Any]]) -> Any:
    """What `act` returns of a store, which is closed then."""

    async def run() -> Any:
        store = WarmStore(url, cluster=cluster)
        try:
            async with asyncio.timeout(60):
                return await act(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def read(store: WarmStore, wanted: Sequence[RowId]) -> list[Packed]:
    """The rows, which are all from the warm tier."""
    found = await store.rows(wanted)
    assert found.tier is Tier.WARM
    return list(found.rows)


async def until(store: WarmStore, wanted: Sequence[RowId], expected: Sequence[Any]) -> None:
    """Reads until the rows are the expected ones; some may come late, none is wrong."""
    while (found := await read(store, wanted)) != expected:
        for row, right in zip(found, expected, strict=True):
            assert row in (right, UNAVAILABLE)


def test_each_row_is_found(stored: Stored) -> None:
    nobody = [RowId("price", ("nobody",)), RowId("volume", ("S1",)), RowId("position", ("P1",))]
    found = using(*stored, lambda store: read(store, [*nobody, *WANTED]))
    assert found == [None, None, None, *ROWS]


def test_members_and_last_closes_are_found(stored: Stored) -> None:
    none = MemberSet("position", "none")
    members = using(*stored, lambda store: store.members([*SETS, none], 40))
    assert members == [*([(one.message_key, "S1"), (one.message_key, "S2")] for one in SETS), []]
    groups = [*GROUPS, Group("position", ("none",))]
    closed = using(*stored, lambda store: store.last_closed(groups))
    assert closed == [*((portfolio, "S9") for portfolio in PORTFOLIOS), None]


def test_more_members_than_may_be_added_up_are_refused(stored: Stored) -> None:
    with pytest.raises(TooLarge, match="there are 40 members to add up, 2 of them in P0"):
        using(*stored, lambda store: store.members(SETS, 39))


def test_nothing_is_asked_for_nothing(stored: Stored) -> None:
    async def ask(store: WarmStore) -> list[Any]:
        return [await read(store, []), await store.members([], 1), await store.last_closed([])]

    assert using(*stored, ask) == [[], [], []]


@pytest.mark.parametrize("cluster", [False, True])
def test_a_redis_that_is_gone(cluster: bool) -> None:
    async def ask(store: WarmStore) -> list[Any]:
        wanted = WANTED[:2]
        return [await read(store, wanted), await store.members(SETS, 1), await read(store, wanted)]

    found = using("redis://127.0.0.1:1/0", cluster, ask)
    assert found == [[UNAVAILABLE] * 2, [UNAVAILABLE] * len(SETS), [UNAVAILABLE] * 2]


def test_all_that_wait_in_a_moment_are_one_read_of_each_source(redis_database: str) -> None:
    with redis.Redis.from_url(redis_database) as client:
        fill(client)
        client.config_resetstat()
        found = using(
            redis_database,
            False,
            lambda store: asyncio.gather(*(read(store, [row, WANTED[0]]) for row in WANTED)),
        )
        assert found == [[row, ROWS[0]] for row in ROWS]
        assert client.info("commandstats")["cmdstat_hmget"]["calls"] == 2


def test_a_read_blocks_redis_for_so_many_rows_and_no_more(redis_database: str) -> None:
    wanted = [RowId("price", (f"S{number}",)) for number in range(2 * MAX_ROWS + 1)]
    reads: list[int] = []

    async def ask() -> Any:
        store = WarmStore(redis_database, reads.append)
        try:
            return await read(store, wanted)
        finally:
            await store.close()

    assert asyncio.run(ask()) == [None] * len(wanted)
    assert reads == [MAX_ROWS, MAX_ROWS, 1]


def test_what_is_no_hash_spoils_no_other_source(redis_database: str) -> None:
    with redis.Redis.from_url(redis_database) as client:
        fill(client)
        client.set(rows_key("volume", 0), "no hash")
    broken = RowId("volume", ("S1",))
    found = using(redis_database, False, lambda store: read(store, [broken, *WANTED]))
    assert found == [UNAVAILABLE, *ROWS]
    assert using(redis_database, False, lambda store: read(store, [broken])) == [UNAVAILABLE]


def node_of(three: Cluster, row: RowId) -> int:
    return three.node_of(rows_key(row.source, bucket(row.entity[0], cluster=True)))


def without(three: Cluster, down: int) -> list[Any]:
    """The rows of `WANTED` that a cluster without one node answers."""
    found = [
        UNAVAILABLE if node_of(three, wanted) == down else row
        for wanted, row in zip(WANTED, ROWS, strict=True)
    ]
    assert len(set(map(type, found))) == 2
    return found


@pytest.fixture
def reading(filled: Cluster) -> Iterator[Cluster]:
    """A cluster whose nodes answer reads also while it knows that one is down."""
    with filled.reading():
        yield filled


@pytest.mark.timeout(180)
@pytest.mark.parametrize("down", [0, 1, 2])
def test_a_node_that_hangs_is_unavailable_for_its_rows_alone(reading: Cluster, down: int) -> None:
    """For a server that reads already, for one that begins now, and again when it goes on."""
    three, expected = reading, without(reading, down)
    here = [members_key("position", portfolio) for portfolio in PORTFOLIOS]
    gone = [three.node_of(key) == down for key in here]
    assert set(gone) == {False, True}

    async def ask(store: WarmStore) -> None:
        await until(store, WANTED, ROWS)
        three.pause(down)
        await until(store, WANTED, expected)
        members = await store.members(SETS, 2 * gone.count(False))
        assert [one is UNAVAILABLE for one in members] == gone
        closed = await store.last_closed(GROUPS)
        assert [one is UNAVAILABLE for one in closed] == gone
        fresh = WarmStore(three.urls[down - 1], cluster=True)
        await until(fresh, WANTED, expected)
        await fresh.close()
        with redis.Redis.from_url(three.urls[down - 1]) as other:
            wait_for(
                "the others know that it is down",
                lambda: other.execute_command("CLUSTER INFO")["cluster_state"] == "fail",
            )
        await until(store, WANTED, expected)
        three.resume(down)
        while await read(store, WANTED) != ROWS:
            await asyncio.sleep(0.05)

    try:
        using(three.url, True, ask)
    finally:
        three.resume(down)


@pytest.mark.timeout(120)
def test_a_node_that_is_gone_is_unavailable_for_its_rows_alone(tmp_path: Path) -> None:
    """It refuses every connection."""
    with cluster(tmp_path / "cluster") as three, redis.RedisCluster.from_url(three.url) as client:
        fill(client)

        async def ask(store: WarmStore) -> None:
            await until(store, WANTED, ROWS)
            kill(three.nodes[2])
            await until(store, WANTED, without(three, 2))
            fresh = WarmStore(three.url, cluster=True)
            await until(fresh, WANTED, without(three, 2))
            await fresh.close()

        using(three.url, True, ask)


def test_rows_of_others_do_not_wait_for_a_node_that_hangs(reading: Cluster) -> None:
    three, down = reading, 1
    lost = [row for row in WANTED if node_of(three, row) == down]
    others = [row for row in WANTED if node_of(three, row) != down]

    async def ask(store: WarmStore) -> None:
        await read(store, WANTED)
        three.pause(down)
        waiting = asyncio.create_task(read(store, lost))
        await asyncio.sleep(0)
        assert await read(store, others) == [ROWS[WANTED.index(row)] for row in others]
        assert not waiting.done()
        assert await waiting == [UNAVAILABLE] * len(lost)

    try:
        using(three.url, True, ask)
    finally:
        three.resume(down)


def test_a_cluster_that_answers_only_as_a_whole_says_so(filled: Cluster) -> None:
    """As Redis is set when nothing is set: no row is answered from a cluster without a node."""

    async def ask(store: WarmStore) -> None:
        await until(store, WANTED, ROWS)
        filled.pause(2)
        while await read(store, WANTED) != [UNAVAILABLE] * len(WANTED):
            await asyncio.sleep(0.05)
        filled.resume(2)
        while await read(store, WANTED) != ROWS:
            await asyncio.sleep(0.05)

    try:
        using(filled.url, True, ask)
    finally:
        filled.resume(2)


@pytest.mark.timeout(180)
def test_rows_are_found_while_slots_move_and_afterwards(filled: Cluster) -> None:
    """Of a bucket after the other the slot moves from the first node to the last, and back."""
    clients = [redis.Redis.from_url(url) for url in filled.urls]
    ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
    wanted = [row for row in WANTED if node_of(filled, row) == 0]
    rows = [ROWS[WANTED.index(row)] for row in wanted]
    keys = {rows_key(row.source, bucket(row.entity[0], cluster=True)): row for row in wanted}
    key = next(iter(keys))
    slot = clients[0].execute_command("CLUSTER KEYSLOT", key)
    assert 0 <= slot < SLOTS

    def tell(number: int, *what: Any) -> None:
        clients[number].execute_command("CLUSTER SETSLOT", slot, *what)

    async def move(store: WarmStore, begin: int, end: int) -> None:
        tell(end, "IMPORTING", ids[begin])
        tell(begin, "MIGRATING", ids[end])
        for name in clients[begin].execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            port = int(filled.urls[end].rpartition(":")[2].split("/")[0])
            clients[begin].execute_command("MIGRATE", "127.0.0.1", port, name, 0, 5000)
        await until(store, wanted, rows)  # the slot is of the one, the rows of the other
        for number in (end, begin, 1):
            tell(number, "NODE", ids[end])
        await until(store, wanted, rows)

    async def ask(store: WarmStore) -> None:
        await until(store, wanted, rows)
        await move(store, 0, 2)
        await move(store, 2, 0)

    try:
        using(filled.url, True, ask)
    finally:
        for client in clients:
            client.close()


@pytest.mark.timeout(60)
@in_a_loop
async def test_a_slot_that_has_moved_is_looked_up_again(three: Cluster) -> None:
    """Not only followed: the node that had it before may go."""
    key = "{no row is in the slot of this}"
    begin, end = three.node_of(key), (three.node_of(key) + 1) % 3
    clients = [redis.Redis.from_url(url) for url in three.urls]
    ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
    slot = clients[0].execute_command("CLUSTER KEYSLOT", key)
    reads = ClusterReads(three.url, redis_clients.rows)
    assert await reads.each([("EXISTS", key)]) == [0]
    try:
        for node in (end, begin):
            for client in clients:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[node])
            while reads.server_of(key) != redis_clients.address_of(three.urls[node]):
                assert await reads.each([("EXISTS", key)]) == [0]
                await asyncio.sleep(0.05)
    finally:
        await reads.close()
        for client in clients:
            client.close()


def test_every_node_has_buckets(three: Cluster) -> None:
    """So that a key of a bucket is a key of each node (`serving.watch.workers.PROBES`)."""
    keys: Sequence[str] = [rows_key("price", number) for number in range(CLUSTER_BUCKETS)]
    assert {three.node_of(key) for key in keys} == {0, 1, 2}
