"""Requests to the read API: mistakes, limits, and what is read once for many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from registry.definitions import Catalog
from registry.formats.redis_keys import members_key
from serving.api.requests import MAX_BODY_BYTES, MAX_ENTITIES
from serving.app import ServerOptions, create_app
from serving.errors import TooLarge
from serving.features.lookup import MAX_FEATURES
from serving.features.reader import MAX_MEMBERS
from serving.stores.row_store import MemberSet, RowId
from serving.stores.warm import WarmStore
from tests.support.served import tick
from tests.support.stored import store_row


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
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
def test_problems(client: TestClient, path: str, body: Any, status: int, detail: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert detail in problem["detail"]


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
    recorded: Catalog, redis_database: str, postgres_database: str
) -> None:
    """Without a hot tier, which reads warm again beside the request to bring rows in."""
    tick(redis_database, recorded, "price", [{"symbol": f"S{i}", "price": i} for i in range(50)])
    entities = [{"symbol": f"S{i}"} for i in range(50)]
    options = ServerOptions(redis_database, "", postgres_database)
    with ExitStack() as stack:
        store = stack.enter_context(redis.Redis.from_url(redis_database))
        client = stack.enter_context(TestClient(create_app(options)))

        def reads() -> int:
            stats = store.info("commandstats").get("cmdstat_hmget", {"calls": 0})
            return int(stats["calls"])

        before = reads()
        body = {"features": ["current_price", "price_sma_5", "volatility"], "entities": entities}
        answer = client.post("/features/batch", json=body).json()
        assert reads() - before == 1
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


def test_an_entity_that_is_named_again_is_answered_again(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    held = [{"portfolio": "P1", "symbol": symbol, "quantity": 3} for symbol in ("AAPL", "ES")]
    tick(redis_database, recorded, "position", held)
    tick(redis_database, recorded, "price", [{"symbol": s, "price": 2} for s in ("AAPL", "ES")])
    gross, net = "portfolio_exposure", "portfolio_exposure_net"
    features = [gross, f"{gross}@1.0.0", net, f"{net}@1.0.0"]
    entities = [{"portfolio": portfolio} for portfolio in ["P1", "P9", *["P1"] * 100]]
    answer = client.post("/features/batch", json={"features": features, "entities": entities})
    results = answer.json()["results"]
    assert [result["entity"] for result in results] == entities
    values = [[result["features"][name]["value"] for name in features] for result in results]
    assert values == [[12] * 4, [None] * 4, *[[12] * 4] * 100]


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
    sets = [MemberSet("position", "P1"), MemberSet("position", "P2")]

    async def members(most: int) -> list[Any]:
        store = WarmStore(redis_database)
        try:
            return await store.members(sets, most)
        finally:
            await store.close()

    with redis.Redis.from_url(redis_database) as store:
        store.sadd(members_key("position", "P1"), "B", "A")
        store.sadd(members_key("position", "P2"), "C")
        store.config_resetstat()
        with pytest.raises(TooLarge, match=r"2 of them in P1; a request may add up 2"):
            asyncio.run(members(2))
        assert "cmdstat_smembers" not in store.info("commandstats")
    assert asyncio.run(members(3)) == [[("P1", "A"), ("P1", "B")], [("P2", "C")]]


def test_all_that_wait_in_a_moment_are_one_read(redis_database: str) -> None:
    wanted = [RowId("price", (f"S{i}",)) for i in range(100)]
    with redis.Redis.from_url(redis_database) as store:
        for i in range(100):
            store_row(store, "price", f"S{i}", str(i))
        store.config_resetstat()

        async def read_all() -> list[Any]:
            warm = WarmStore(redis_database)
            read = await asyncio.gather(*(warm.rows([row, wanted[0]]) for row in wanted))
            found = [of.rows for of in read]
            await warm.close()
            return found

        found = asyncio.run(read_all())
        assert found == [[str(i).encode(), b"0"] for i in range(100)]
        assert store.info("commandstats")["cmdstat_hmget"]["calls"] == 1


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
    assert counted == ['tickwell_requests_total{route="/features/online",status="422"} 1.0']
