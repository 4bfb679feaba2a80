"""The read API over a real Redis and Postgres: values, statuses, and unavailable stores."""

from __future__ import annotations

import math
import time
from typing import Any

import pyarrow as pa
import pytest
import redis
from starlette.testclient import TestClient

from registry import catalog
from registry.definitions import Catalog
from registry.formats.heartbeat import Verified, VerifiedPlace
from registry.formats.redis_keys import CATALOG_KEY
from serving.app import ServerOptions, create_app
from serving.watch.workers import Lag, Sink, WorkersWatch
from tests.oracle.times import rfc_3339
from tests.support.pipeline import wait_for
from tests.support.served import beat, online, tick
from tests.support.stored import store_row, stored_row


def test_values_versions_times_and_aliases(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    prices = [100 + i * 0.25 for i in range(21)]
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": p} for p in prices])
    features = ["current_price", "price_sma_5", "volatility", "price_volatility@1.0.0"]
    answer = client.post(
        "/features/online",
        json={"features": features, "entity_type": "symbol", "entity_value": "AAPL"},
    ).json()
    values = answer["features"]
    assert answer["entity"] == {"symbol": "AAPL"}
    assert values["current_price"]["value"] == prices[-1]
    assert values["price_sma_5"]["value"] == math.fsum(prices[-5:]) / 5
    assert values["volatility"] == values["price_volatility@1.0.0"]
    assert {value["status"] for value in values.values()} == {"ok"}
    assert {value["version"] for value in values.values()} == {"1.0.0"}
    assert values["current_price"]["event_time"].endswith("Z")
    assert 0 <= values["current_price"]["age_seconds"] < 60


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


def test_answers_by_columns(client: TestClient, recorded: Catalog, redis_database: str) -> None:
    """The same as by objects, for entities that are known and one that is not."""
    for symbol, price in (("AAPL", 100.5), ("MSFT", 7.25)):
        tick(redis_database, recorded, "price", [{"symbol": symbol, "price": price}])
    symbols = ["AAPL", "MSFT", "NONE", "AAPL"]
    body = {
        "features": ["current_price", "volatility"],
        "entities": [{"symbol": symbol} for symbol in symbols],
    }
    objects = client.post("/features/batch", json=body).json()["results"]
    compact = client.post("/features/batch?compact", json=body).json()
    assert compact["entities"] == body["entities"]
    accept = {"accept": "application/vnd.apache.arrow.stream"}
    stream = client.post("/features/batch", json=body, headers=accept)
    assert stream.headers["content-type"] == accept["accept"]
    table = pa.ipc.open_stream(stream.content).read_all()
    assert table["symbol"].to_pylist() == symbols
    for name in body["features"]:
        values = [one["features"][name] for one in objects]
        column = compact["features"][name]
        times = compact["event_time"][column["event_time"]]
        assert column["value"] == [one["value"] for one in values]
        assert times == [one["event_time"] for one in values]
        statuses = [one["status"] for one in values]
        assert column["status"] == (statuses if len(set(statuses)) > 1 else statuses[0])
        assert table[name].to_pylist() == column["value"]
        assert table[f"{name}.status"].to_pylist() == statuses
    assert compact["features"]["current_price"]["value"] == [100.5, 7.25, None, 100.5]
    assert client.post("/features/batch?wide", json=body).status_code == 422


@pytest.mark.parametrize(
    "state",
    [
        {"state": "retrying"},
        {"behind": 60.0},
        {"unseen": 60.0},
        {"partitions": 2},
        {"partitions": 0},
    ],
    ids=[
        "its store is unavailable",
        "it is behind",
        "the broker is unavailable",
        "no worker reads a partition",
        "no worker knows the topic",
    ],
)
def test_lagging(
    client: TestClient, recorded: Catalog, redis_database: str, state: dict[str, Any]
) -> None:
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": 1}])
    assert online(client, "current_price", symbol="AAPL")["status"] == "ok"
    beat(redis_database, **state)
    deadline = time.monotonic() + 10
    while online(client, "current_price", symbol="AAPL")["status"] != "lagging":
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Wavering(WorkersWatch):
    """Says that everything is lagging from the second time on that it is asked of lag."""

    asked: int

    @property
    def lag(self) -> Lag:
        self.asked += 1
        return Decided(math.inf if self.asked == 1 else 0.0)


class Decided(Lag):
    """All topics are on time until the same moment."""

    def __init__(self, until: float) -> None:
        super().__init__([])
        self._same = until

    def on_time_until(self, topic: str, sink: Sink = "online") -> float:
        return self._same


def test_lag_is_decided_once_in_a_request(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> None:
    tick(redis_database, recorded, "price", [{"symbol": s, "price": 1} for s in ("AAPL", "ES")])
    workers = Wavering({"redis": redis_database})
    workers.asked = 0
    options = ServerOptions(redis_database, hot_redis, postgres_database)
    body = {"features": ["current_price"], "entities": [{"symbol": "AAPL"}, {"symbol": "ES"}]}
    with TestClient(create_app(options, workers)) as client:
        for status in ("ok", "lagging"):  # the next request decides again
            results = client.post("/features/batch", json=body).json()["results"]
            found = [result["features"]["current_price"]["status"] for result in results]
            assert found == [status] * 2
    assert workers.asked == 2


def test_of_two_heartbeats_of_a_partition_the_better_one_counts(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    """As when one is stopped, and the other has taken over: both describe what is stored."""
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
        for key in store.scan_iter("tw:3:*:price"):
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


def test_positions_that_end(client: TestClient, recorded: Catalog, redis_database: str) -> None:
    now = time.time_ns() // 10**6
    log = [
        {"portfolio": "FLAT", "symbol": "GONE", "quantity": 0},
        {"portfolio": "FLAT", "symbol": "ES", "quantity": -0.0, "multiplier": 50},
        {"portfolio": "CLOSED", "symbol": "GONE", "quantity": 7},
        {"portfolio": "CLOSED", "symbol": "ES", "quantity": 7},
        {"portfolio": "CLOSED", "symbol": "GONE", "op": "close", "ts": now + 2},
        {"portfolio": "CLOSED", "symbol": "ES", "op": "close", "ts": now + 1},
        {"portfolio": "CLOSED", "symbol": "ES", "op": "reset", "ts": now + 5},
        {"portfolio": "OPEN", "symbol": "GONE", "op": "close"},
        {"portfolio": "OPEN", "symbol": "ES", "op": "close", "ts": now + 1},
        {"portfolio": "OPEN", "symbol": "ES", "quantity": -2, "ts": now + 1},
    ]
    tick(redis_database, recorded, "position", [each | {"ts": each.get("ts", now)} for each in log])
    tick(redis_database, recorded, "price", [{"symbol": "ES", "price": 4500.25}])
    for feature in ("portfolio_exposure", "portfolio_exposure_net"):
        flat = online(client, feature, portfolio="FLAT")
        assert (str(flat["value"]), flat["status"]) == ("0.0", "ok")
        closed = online(client, feature, portfolio="CLOSED")
        assert (closed["value"], closed["status"]) == (0, "ok")
        assert rfc_3339(closed["event_time"]) == (now + 5) * 10**6
        opened = online(client, feature, portfolio="OPEN")
        net = -9000.5 if feature.endswith("net") else 9000.5
        assert (opened["value"], opened["status"]) == (net, "ok")
        assert online(client, feature, portfolio="CLOSDE")["status"] == "missing"
    gone = online(client, "position_size", portfolio="CLOSED", symbol="GONE")
    assert (gone["value"], gone["status"]) == (None, "missing")
    assert rfc_3339(gone["event_time"]) == (now + 2) * 10**6


def test_what_is_no_row_spoils_nothing_else(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    tick(redis_database, recorded, "price", [{"symbol": s, "price": 1} for s in "ABCDE"])
    with redis.Redis.from_url(redis_database) as store:
        good = stored_row(store, "price", "A")
        store_row(store, "price", "B", b"junk")
        store_row(store, "price", "C", good[:61] + b"\x09" + good[62:])
        store_row(store, "price", "D", good[:1] + (99).to_bytes(4, "big") + good[5:])
    entities = [{"symbol": symbol} for symbol in "ABCDE"]
    body = {"features": ["current_price"], "entities": entities}
    results = client.post("/features/batch", json=body).json()["results"]
    statuses = [result["features"]["current_price"]["status"] for result in results]
    assert statuses == ["ok", "unavailable", "unavailable", "unavailable", "ok"]


def test_what_workers_say_of_their_broker_is_in_health(
    client: TestClient, redis_database: str
) -> None:
    """Each sentence once. A stranger in the group is no good health, a warning is none of it."""
    said = {"warnings": ("t loses ticks",), "strangers": ()}
    for strangers, status in ((), "ok"), (("t[1] is held",), "degraded"):
        for instance in ("one", "two"):
            beat(redis_database, instance=instance, **{**said, "strangers": strangers})
        health = wait_for(
            "the server has read it",
            lambda: (
                (found := client.get("/health").json())["strangers"] == list(strangers)  # noqa: B023
                and found["status"] == status  # noqa: B023
                and found["warnings"]
                and found
            ),
        )
        assert health["warnings"] == ["t loses ticks"]


def test_a_value_that_differs_is_no_good_health(client: TestClient, redis_database: str) -> None:
    places = (VerifiedPlace("rows", "price", 100, 0, 1, 5.0),)
    beat(redis_database, verified=Verified(places, 0.5, ("rows: value of f of A",)))
    health = wait_for(
        "the server has read it",
        lambda: (found := client.get("/health").json())["differences"] and found,
    )
    assert health["differences"] == ["rows: value of f of A"]
    assert health["status"] == "degraded"
    assert 'tickwell_verify_differences{instance="one",part="rows"' in client.get("/metrics").text


def test_health_and_metrics(client: TestClient, redis_database: str) -> None:
    assert client.get("/health/live").json() == {"status": "ok"}
    assert client.get("/health/ready").json() == {"status": "ok"}
    health = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["stores"] == {"postgres": "ok", "redis": "ok", "redis_hot": "ok"}
    assert health["breakers"] == {"Redis": "closed", "Postgres": "closed"}
    assert health["workers"]["online"][0]["state"] == "running"
    online(client, "current_price", symbol="A")
    text = client.get("/metrics").text
    assert 'tickwell_requests_total{route="/features/online",status="200"} 1.0' in text
    assert 'tickwell_values_total{status="missing"} 1.0' in text
    assert "tickwell_worker_lag_messages" in text


def test_an_unavailable_redis_is_reported_and_postgres_asked(
    recorded: Catalog, hot_redis: str, postgres_database: str
) -> None:
    """What Postgres has no rows of is missing there, too."""
    options = ServerOptions("redis://127.0.0.1:1/0", hot_redis, postgres_database)
    with TestClient(create_app(options)) as client:
        value = online(client, "current_price", symbol="A")
        assert (value["status"], value["value"], value["tier"]) == ("missing", None, "cold")
        assert online(client, "portfolio_exposure", portfolio="P1")["status"] == "missing"
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["breakers"]["Redis"].startswith(("open", "half-open"))
        assert client.get("/health/ready").status_code == 200


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
