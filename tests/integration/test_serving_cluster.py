"""A server that reads a Redis Cluster: its answers, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from starlette.testclient import TestClient

from pipelines.replay.throttle import Throttle
from registry import catalog
from registry.definitions import Catalog
from registry.formats.origin import Origin
from registry.formats.redis_keys import CATALOG_KEY, WORKERS_KEY, bucket, rows_key, worker_key
from registry.formats.row import Row, pack
from serving.app import ServerOptions, create_app
from serving.watch.workers import WorkersWatch
from tests.support.both_stores import log_of
from tests.support.cluster import Cluster
from tests.support.pipeline import wait_for
from tests.support.served import beat, beating, online
from tests.support.stored import store_row

NOBODY = "postgresql://u:p@127.0.0.1:1/none"
SYMBOLS = [f"S{number}" for number in range(30)]
DOWN = 1


@pytest.fixture
def filled(three: Cluster, recorded: Catalog) -> Iterator[Cluster]:
    """A cluster with a row of each symbol in the schema that is recorded, and heartbeats."""
    schema = recorded.schemas[recorded.writing["price"]]
    features = len(schema.features)
    with redis.RedisCluster.from_url(three.url) as client:
        for number, symbol in enumerate(SYMBOLS):
            row = Row(
                *(schema.id, 2**60, 0, 2**60, Origin(bytes(16), 0, 0, 0)),
                status=bytes(features),
                values=(float(number),) * features,
            )
            store_row(client, "price", symbol, pack(row))
        client.set(CATALOG_KEY, catalog.encode(recorded))
    beat(three.url, cluster=True)
    yield three
    with redis.RedisCluster.from_url(three.url) as client:
        client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)


@pytest.fixture
def lost(filled: Cluster) -> set[str]:
    """The symbols whose rows are on the node with the number `DOWN`."""
    found = {
        symbol
        for symbol in SYMBOLS
        if filled.node_of(rows_key("price", bucket(symbol, cluster=True))) == DOWN
    }
    assert 0 < len(found) < len(SYMBOLS)
    return found


def answers(client: TestClient) -> dict[str, tuple[float | None, str | None]]:
    """The value of each symbol, and its tier; both None where it is unavailable."""
    body = {"features": ["current_price"], "entities": [{"symbol": symbol} for symbol in SYMBOLS]}
    answer = client.post("/features/batch", json=body)
    assert answer.status_code == 200, answer.text
    found = [result["features"]["current_price"] for result in answer.json()["results"]]
    return {s: (f["value"], f["tier"]) for s, f in zip(SYMBOLS, found, strict=True)}


@pytest.mark.timeout(180)
def test_a_server_of_a_cluster(filled: Cluster, hot_redis: str, lost: set[str]) -> None:
    """There is no Postgres: what is on a node that hangs is unavailable."""
    beat(hot_redis)
    options = ServerOptions(filled.url, hot_redis, NOBODY, cluster=True)
    with TestClient(create_app(options)) as client:
        whole = answers(client)
        assert {value for value, _ in whole.values()} == set(range(len(SYMBOLS)))
        wait_for(
            "Redis is well", lambda: client.get("/health").json()["stores"].get("redis") == "ok"
        )
        filled.pause(DOWN)
        try:
            found = answers(client)
            assert found == {s: (None, None) if s in lost else whole[s] for s in SYMBOLS}
            health = wait_for(
                "the server says so",
                lambda: (
                    (answer := client.get("/health")).json()["stores"]["redis"] != "ok" and answer
                ),
            )
            assert health.status_code == 200
            assert health.json()["status"] == "degraded"
            assert health.json()["workers"]["online"], "those of the other tier are known"
        finally:
            filled.resume(DOWN)
        wait_for("all are answered", lambda: whole == answers(client))


@pytest.mark.timeout(180)
def test_cold_answers_for_a_node_that_hangs(
    filled: Cluster,
    hot_redis: str,
    postgres_database: str,
    recorded: Catalog,
    lost: set[str],
) -> None:
    """Postgres has another price of each symbol, so that it is known where a value is from."""
    with log_of(recorded, postgres_database) as log:
        log.add("price", *({"symbol": s, "price": 1_000 + n} for n, s in enumerate(SYMBOLS)))
    of_warm = {s: (n, "warm") for n, s in enumerate(SYMBOLS)}
    expected = {s: (1_000 + n, "cold") if s in lost else (n, "warm") for n, s in enumerate(SYMBOLS)}
    down = "Redis " + filled.urls[DOWN].removeprefix("redis://").removesuffix("/0")
    with beating(hot_redis), filled.reading():
        options = ServerOptions(filled.url, hot_redis, postgres_database, cluster=True, hot=False)
        with TestClient(create_app(options)) as client:
            wait_for("all are of warm", lambda: answers(client) == of_warm)
            filled.pause(DOWN)
            try:
                wait_for("what is lost is of cold", lambda: answers(client) == expected)
                breakers = client.get("/health").json()["breakers"]
                assert breakers.pop(down).startswith(("open", "half-open"))
                assert set(breakers.values()) == {"closed"}
            finally:
                filled.resume(DOWN)
            wait_for("all are of warm again", lambda: answers(client) == of_warm)


def test_the_copy_of_the_catalog_is_read_from_a_cluster(filled: Cluster, hot_redis: str) -> None:
    options = ServerOptions(filled.url, hot_redis, NOBODY, cluster=True)
    with TestClient(create_app(options)) as client:
        assert online(client, "current_price", symbol="S7")["value"] == 7


@pytest.mark.parametrize("cluster", [False, True])
def test_heartbeats_of_either_kind(filled: Cluster, redis_database: str, cluster: bool) -> None:
    url = filled.url if cluster else redis_database
    for instance in ("one", "two", "three", "four"):
        beat(url, instance=instance, cluster=cluster)
    with (redis.RedisCluster if cluster else redis.Redis).from_url(url) as client:
        client.set(worker_key("online", "two"), "no heartbeat")
        client.sadd(WORKERS_KEY, "online:gone")

    async def read(*urls: str) -> WorkersWatch:
        watch = WorkersWatch(
            dict(zip("abc", urls, strict=False)), cluster=urls[0] if cluster else None
        )
        for _ in range(2):
            await watch.refresh()
        await watch.close()
        return watch

    watch = asyncio.run(read(url, "redis://127.0.0.1:1/0"))
    assert {beat.instance for beat in watch.heartbeats if beat.sink == "online"} == {
        *("one", "three", "four")
    }
    assert watch.stores["a"] == "ok"
    assert watch.stores["b"] != "ok"
    assert watch.answering == {"a"}


def test_a_replay_is_slowed_by_the_heartbeats_in_a_cluster(filled: Cluster) -> None:
    beat(filled.url, behind=60.0, cluster=True)
    throttle = Throttle([filled.url], filled.url)
    assert throttle.why() == "the offline worker is 60 s behind"
    throttle.close()


def test_a_replay_goes_on_while_no_node_answers(redis_database: str) -> None:
    """What the other tier says counts."""
    beat(redis_database, behind=60.0)
    nobody = "redis://127.0.0.1:1/0"
    throttle = Throttle([nobody, redis_database], nobody)
    assert throttle.why() == "the offline worker is 60 s behind"
    throttle.close()
