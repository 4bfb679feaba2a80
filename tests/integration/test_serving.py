"""The read API over a real Redis and Postgres: values, statuses, errors, limits, coalescing."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from pipelines.materializer import Materializer
from pipelines.online import OnlineSink
from registry import catalog
from registry.database import connect
from registry.definitions import Catalog
from registry.derived import Derived, Part
from registry.features_file import read
from registry.heartbeat import Heartbeat, PartitionLag
from registry.keys import CATALOG_KEY, WORKERS_KEY, members_key, row_key, worker_key
from registry.program import compile_program
from serving.answers import MAX_MEMBERS
from serving.app import ServerOptions, create_app
from serving.errors import TooLarge
from serving.reads import Rows
from serving.requests import MAX_BODY_BYTES, MAX_ENTITIES, MAX_FEATURES
from serving.watch import Watch
from tests.logs import runs
from tests.oracle.messages import Record


@pytest.fixture
def recorded(postgres_database: str) -> Catalog:
    engine = connect(postgres_database)
    try:
        return catalog.record(engine, read(), "test")
    finally:
        engine.dispose()


@pytest.fixture
def client(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[TestClient]:
    beat(redis_database)
    options = ServerOptions(redis_database, hot_redis, postgres_database)
    with TestClient(create_app(options), raise_server_exceptions=False) as made:
        yield made


def beat(
    url: str,
    state: str = "running",
    behind: float = 0.0,
    unseen: float = 0.0,
    partitions: int = 1,
    instance: str = "one",
) -> None:
    """A worker's word, as `pipelines.heartbeats` writes it; it reads one partition of each topic.

    Of no partitions it knows no topic.
    """
    now = time.time()
    topics = ("ticks.price", "ticks.volume", "ticks.position") if partitions else ()
    lag = tuple(PartitionLag(topic, 0, 1, 2, 1, behind, unseen) for topic in topics)
    with redis.Redis.from_url(url) as store:
        for sink in ("online", "offline"):
            word = Heartbeat(
                *(sink, instance, 1, now + 60, state, now),
                lag=lag,
                partitions=dict.fromkeys(topics, partitions),
            )
            store.set(worker_key(sink, instance), msgspec.json.encode(word))
            store.sadd(WORKERS_KEY, f"{sink}:{instance}")


def tick(url: str, recorded: Catalog, source: str, ticks: list[dict[str, Any]]) -> None:
    """Bring ticks into Redis by the real sink."""
    schema = recorded.schemas[recorded.writing[source]]
    program = compile_program(recorded, schema)
    sink = OnlineSink(url)
    now = time.time_ns() // 10**6
    records = [
        Record(
            "t", 0, i, now, next(iter(t.values())).encode(), json.dumps({"ts": now, **t}).encode()
        )
        for i, t in enumerate(ticks)
    ]
    with redis.Redis.from_url(url) as store:
        for key in store.scan_iter("tw:watermark:*"):
            store.delete(key)
    (run,) = runs(records, ())
    Materializer(recorded.sources[source], schema, program, sink, 1000).materialize(run, Event())
    sink.close()


def online(client: TestClient, feature: str, **entity: str) -> dict[str, Any]:
    answer = client.post("/features/online", json={"features": [feature], "entity": entity})
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()["features"][feature]
    return value


def test_values_versions_times_and_aliases(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    prices = [100 + i * 0.25 for i in range(21)]
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": p} for p in prices])
    asked = ["current_price", "price_sma_5", "volatility", "price_volatility@1.0.0"]
    answer = client.post(
        "/features/online",
        json={"features": asked, "entity_type": "symbol", "entity_value": "AAPL"},
    ).json()
    features = answer["features"]
    assert answer["entity"] == {"symbol": "AAPL"}
    assert features["current_price"]["value"] == prices[-1]
    assert features["price_sma_5"]["value"] == math.fsum(prices[-5:]) / 5
    assert features["volatility"] == features["price_volatility@1.0.0"]
    assert {value["status"] for value in features.values()} == {"ok"}
    assert {value["version"] for value in features.values()} == {"1.0.0"}
    assert features["current_price"]["event_time"].endswith("Z")
    assert 0 <= features["current_price"]["age_seconds"] < 60


def test_statuses(client: TestClient, recorded: Catalog, redis_database: str) -> None:
    assert online(client, "current_price", symbol="AAPL")["status"] == "missing"
    old = time.time_ns() // 10**6 - 120_000
    tick(
        redis_database,
        recorded,
        "price",
        [{"symbol": "OLD", "price": 1, "ts": old}]
        + [{"symbol": "NEG", "price": p} for p in [1, -1] * 11]
        + [{"symbol": "NEW", "price": 1}],
    )
    assert online(client, "current_price", symbol="OLD")["status"] == "stale"
    assert online(client, "current_price", symbol="OLD")["value"] == 1
    warming = online(client, "price_sma_5", symbol="NEW")
    assert (warming["status"], warming["value"]) == ("warming", None)
    undefined = online(client, "volatility", symbol="NEG")
    assert (undefined["status"], undefined["value"]) == ("undefined", None)


@pytest.mark.parametrize(
    "told",
    [
        {"state": "retrying"},
        {"behind": 60.0},
        {"unseen": 60.0},
        {"partitions": 2},
        {"partitions": 0},
    ],
    ids=[
        "its store is away",
        "it is behind",
        "the broker is away",
        "nobody reads a partition",
        "nobody knows the topic",
    ],
)
def test_lagging(
    client: TestClient, recorded: Catalog, redis_database: str, told: dict[str, Any]
) -> None:
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": 1}])
    assert online(client, "current_price", symbol="AAPL")["status"] == "ok"
    beat(redis_database, **told)
    deadline = time.monotonic() + 10
    while online(client, "current_price", symbol="AAPL")["status"] != "lagging":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_lag_is_decided_once_in_a_request(
    client: TestClient, recorded: Catalog, redis_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(redis_database, recorded, "price", [{"symbol": s, "price": 1} for s in ("AAPL", "ES")])
    asked: list[str] = []

    def wavering(watch: Watch, source: str) -> bool:
        asked.append(source)
        return len(asked) > 1

    monkeypatch.setattr(Watch, "lagging", wavering)
    body = {"features": ["current_price"], "entities": [{"symbol": "AAPL"}, {"symbol": "ES"}]}
    for status in ("ok", "lagging"):  # of the next request it is decided anew
        results = client.post("/features/batch", json=body).json()["results"]
        found = [result["features"]["current_price"]["status"] for result in results]
        assert found == [status] * 2
    assert asked == ["price"] * 2


def test_of_two_who_tell_of_a_partition_the_better_one_is_believed(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    """As when one is stopped, and the other has taken over: both speak of what is stored."""
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": 1}])
    beat(redis_database, unseen=60.0, instance="stopping")
    deadline = time.monotonic() + 10
    while len(client.get("/health").json()["workers"]["online"]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert online(client, "current_price", symbol="AAPL")["status"] == "ok"


def test_exposure(client: TestClient, recorded: Catalog, redis_database: str) -> None:
    held = {"AAPL": (-300, 1, 189.5), "ES": (2, 50, 4500.25), "MSFT": (10, 1, 410.0)}
    tick(
        redis_database,
        recorded,
        "position",
        [
            {"portfolio": "P1", "symbol": symbol, "quantity": quantity, "multiplier": multiplier}
            for symbol, (quantity, multiplier, _) in held.items()
        ],
    )
    prices = [{"symbol": symbol, "price": price} for symbol, (_, _, price) in held.items()]
    tick(redis_database, recorded, "price", prices[:2])
    missing = online(client, "portfolio_exposure", portfolio="P1")
    assert (missing["status"], missing["value"]) == ("missing", None)
    with redis.Redis.from_url(redis_database) as store:
        for key in store.scan_iter("tw:*:price:*"):
            store.delete(key)
    tick(redis_database, recorded, "price", prices)
    products = [quantity * multiplier * price for quantity, multiplier, price in held.values()]
    gross = online(client, "portfolio_exposure", portfolio="P1")
    net = online(client, "portfolio_exposure_net", portfolio="P1")
    assert gross["value"] == pytest.approx(math.fsum(map(abs, products)), rel=1e-15)
    assert net["value"] == pytest.approx(math.fsum(products), rel=1e-15)
    assert gross["status"] == "ok"
    size = online(client, "position_size", portfolio="P1", symbol="AAPL")
    assert size["value"] == -300
    assert online(client, "portfolio_exposure", portfolio="P9")["status"] == "missing"


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/features/online", {"features": ["nope"], "entity": {"symbol": "A"}}, 404, "no feature"),
        (
            "/features/online",
            {"features": ["price_sma_50"], "entity": {"symbol": "A"}},
            404,
            "near",
        ),
        (
            "/features/online",
            {"features": ["position_size"], "entity": {"symbol": "A"}},
            422,
            "name",
        ),
        ("/features/online", {"features": ["current_price"]}, 422, "entity_type"),
        ("/features/online", {"features": []}, 422, "length"),
        ("/features/online", {"features": ["x"] * (MAX_FEATURES + 1)}, 422, str(MAX_FEATURES)),
        ("/features/online", {"features": ["a"], "entity": {"symbol": "A\x1fB"}}, 422, "regex"),
        (
            "/features/batch",
            {"features": ["current_price"], "entities": [{"symbol": "A"}] * (MAX_ENTITIES + 1)},
            422,
            str(MAX_ENTITIES),
        ),
        ("/features/batch", {"features": ["current_price"], "more": 1}, 422, "more"),
        ("/nowhere", {}, 404, "no /nowhere"),
        ("/health", {}, 405, "does not take POST"),
    ],
)
def test_problems(client: TestClient, path: str, body: Any, status: int, said: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert said in problem["detail"]


def test_a_body_is_read_no_further_than_its_limit(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 1000 + 10):
            yield b" " * 1000

    answer = client.post("/features/online", content=endless())
    assert answer.status_code == 413
    assert str(MAX_BODY_BYTES) in answer.json()["detail"]


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(
    st.binary(max_size=40)
    | st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=4)
        | st.sampled_from(["current_price", "symbol"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["features", "entity", "entities", "entity_type", "entity_value"]),
                inner,
            )
        ),
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["/features/online", "/features/batch"]),
)
def test_no_body_is_a_mistake_of_the_server(client: TestClient, body: bytes, path: str) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code in (200, 404, 422)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"


def test_reads_that_wait_together_are_one(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    tick(redis_database, recorded, "price", [{"symbol": f"S{i}", "price": i} for i in range(50)])
    entities = [{"symbol": f"S{i}"} for i in range(50)]
    with redis.Redis.from_url(redis_database) as store:

        def mgets() -> int:
            stats = store.info("commandstats").get("cmdstat_mget", {"calls": 0})
            return int(stats["calls"])

        before = mgets()
        body = {"features": ["current_price", "price_sma_5", "volatility"], "entities": entities}
        answer = client.post("/features/batch", json=body).json()
        background = 3  # the server's own look at heartbeats, once a second
        assert mgets() - before <= 1 + background
    values = [result["features"]["current_price"]["value"] for result in answer["results"]]
    assert values == list(range(50))
    with ThreadPoolExecutor(8) as pool:
        ask = {"features": ["current_price"], "entity": {"symbol": "S7"}}
        answers = list(pool.map(lambda _: client.post("/features/online", json=ask), range(40)))
    assert {a.json()["features"]["current_price"]["value"] for a in answers} == {7}


def test_as_many_sums_as_entities_in_a_request(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    held = [{"portfolio": f"P{i}", "symbol": "AAPL", "quantity": i} for i in range(MAX_ENTITIES)]
    tick(redis_database, recorded, "position", held)
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": 2}])
    entities = [{"portfolio": position["portfolio"]} for position in held]
    body = {"features": ["portfolio_exposure"], "entities": entities}
    results = client.post("/features/batch", json=body).json()["results"]
    values = [result["features"]["portfolio_exposure"]["value"] for result in results]
    assert values == [2 * i for i in range(MAX_ENTITIES)]


def test_what_is_asked_many_times_is_worked_out_once(
    client: TestClient, recorded: Catalog, redis_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [{"portfolio": "P1", "symbol": symbol, "quantity": 3} for symbol in ("AAPL", "ES")]
    tick(redis_database, recorded, "position", held)
    tick(redis_database, recorded, "price", [{"symbol": s, "price": 2} for s in ("AAPL", "ES")])
    evaluate, evaluated = Derived.evaluate, []

    def counted(derived: Derived, entities: Any) -> Part:
        evaluated.append(derived)
        return evaluate(derived, entities)

    monkeypatch.setattr(Derived, "evaluate", counted)
    gross, net = "portfolio_exposure", "portfolio_exposure_net"
    features = [gross, f"{gross}@1.0.0", net, f"{net}@1.0.0"]
    entities = [{"portfolio": portfolio} for portfolio in ["P1", "P9", *["P1"] * 100]]
    answer = client.post("/features/batch", json={"features": features, "entities": entities})
    results = answer.json()["results"]
    assert [result["entity"] for result in results] == entities
    values = [[result["features"][name]["value"] for name in features] for result in results]
    assert values == [[12] * 4, [None] * 4, *[[12] * 4] * 100]
    assert len(evaluated) == 4  # two features of two portfolios


def test_members_are_counted_over_the_whole_request(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    with redis.Redis.from_url(redis_database) as store:
        for portfolio, count in (("P1", MAX_MEMBERS), ("P2", 1)):
            symbols = [f"S{i}" for i in range(count)]
            store.sadd(members_key("position", portfolio), *symbols)
        body = {"features": ["portfolio_exposure", "portfolio_exposure_net"]}
        one = {**body, "entities": [{"portfolio": "P1"}] * 2}
        assert client.post("/features/batch", json=one).status_code == 200
    two = {**body, "entities": [{"portfolio": "P1"}, {"portfolio": "P2"}]}
    answer = client.post("/features/batch", json=two)
    assert answer.status_code == 413
    assert f"{MAX_MEMBERS + 1} members" in answer.json()["detail"]


def test_members_are_counted_before_they_are_read(redis_database: str) -> None:
    keys = [members_key("position", "P1"), members_key("position", "P2")]

    async def members(most: int) -> list[Any]:
        rows = Rows(redis_database)
        try:
            return await rows.members(keys, most)
        finally:
            await rows.close()

    with redis.Redis.from_url(redis_database) as store:
        store.sadd(keys[0], "B", "A")
        store.sadd(keys[1], "C")
        store.config_resetstat()
        with pytest.raises(TooLarge, match=r"2 of them in P1; a request may add up 2"):
            asyncio.run(members(2))
        assert "cmdstat_smembers" not in store.info("commandstats")
    assert asyncio.run(members(3)) == [["A", "B"], ["C"]]


def test_all_that_wait_in_a_moment_are_one_read(redis_database: str) -> None:
    with redis.Redis.from_url(redis_database) as store:
        store.mset({f"k{i}": str(i) for i in range(100)})
        store.config_resetstat()

        async def read_all() -> list[Any]:
            rows = Rows(redis_database)
            found = await asyncio.gather(*(rows.get([f"k{i}", "k0"]) for i in range(100)))
            await rows.close()
            return found

        found = asyncio.run(read_all())
        assert found == [[str(i).encode(), b"0"] for i in range(100)]
        assert store.info("commandstats")["cmdstat_mget"]["calls"] == 1


def test_what_is_no_row_spoils_nothing_else(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    tick(redis_database, recorded, "price", [{"symbol": s, "price": 1} for s in "ABCDE"])
    with redis.Redis.from_url(redis_database) as store:
        good = store.get(row_key("price", "A"))
        store.set(row_key("price", "B"), b"junk")
        store.set(row_key("price", "C"), good[:61] + b"\x09" + good[62:])
        store.set(row_key("price", "D"), good[:1] + (99).to_bytes(4, "big") + good[5:])
    entities = [{"symbol": symbol} for symbol in "ABCDE"]
    body = {"features": ["current_price"], "entities": entities}
    results = client.post("/features/batch", json=body).json()["results"]
    statuses = [result["features"]["current_price"]["status"] for result in results]
    assert statuses == ["ok", "unavailable", "unavailable", "unavailable", "ok"]


def test_health_and_metrics(client: TestClient, redis_database: str) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json() == {"status": "ok"}
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["stores"] == {"postgres": "ok", "redis": "ok", "redis_hot": "ok"}
    assert health["workers"]["online"][0]["state"] == "running"
    online(client, "current_price", symbol="A")
    text = client.get("/metrics").text
    assert 'tickwell_requests_total{route="/features/online",status="200"} 1.0' in text
    assert 'tickwell_values_total{status="missing"} 1.0' in text
    assert "tickwell_worker_lag_messages" in text


def call(client: TestClient, message: dict[str, Any], **scope: Any) -> list[str]:
    """Post to /features/online as a server of HTTP may; what is counted then."""

    async def receive() -> dict[str, Any]:
        return message

    async def send(answer: Any) -> None:
        pass

    assert client.portal is not None
    post = {"type": "http", "method": "POST", "path": "/features/online", "headers": [], **scope}
    client.portal.call(client.app, post, receive, send)
    lines = client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("tickwell_requests_total")]


def test_a_client_that_hangs_up_is_no_mistake_of_the_server(client: TestClient) -> None:
    counted = call(client, {"type": "http.disconnect"})
    assert counted == ['tickwell_requests_total{route="/features/online",status="400"} 1.0']


def test_a_route_is_counted_by_its_own_path_whatever_the_url(client: TestClient) -> None:
    body = b'{"features": ["current_price"], "entity": {"symbol": "A"}}'
    counted = call(client, {"type": "http.request", "body": body}, query_string=b"\xff")
    assert counted == ['tickwell_requests_total{route="/features/online",status="200"} 1.0']


def test_a_redis_that_is_away_is_said(
    recorded: Catalog, hot_redis: str, postgres_database: str
) -> None:
    options = ServerOptions("redis://127.0.0.1:1/0", hot_redis, postgres_database)
    with TestClient(create_app(options)) as client:
        value = online(client, "current_price", symbol="A")
        assert (value["status"], value["value"]) == ("unavailable", None)
        exposure = online(client, "portfolio_exposure", portfolio="P1")
        assert exposure["status"] == "unavailable"
        assert client.get("/health").status_code == 503
        assert client.get("/health/ready").status_code == 503


def test_without_postgres_the_copy_of_the_catalog_is_used(
    recorded: Catalog, redis_database: str, hot_redis: str
) -> None:
    options = ServerOptions(redis_database, hot_redis, "postgresql://u:p@127.0.0.1:1/none")
    with TestClient(create_app(options)) as client:
        ask = {"features": ["current_price"], "entity": {"symbol": "A"}}
        assert client.post("/features/online", json=ask).status_code == 503
    with redis.Redis.from_url(redis_database) as store:
        store.set(CATALOG_KEY, catalog.encode(recorded))
    beat(redis_database)
    with TestClient(create_app(options)) as client:
        assert online(client, "current_price", symbol="A")["status"] == "missing"
        assert client.get("/health").json()["status"] == "degraded"
