"""Explanations over HTTP, and through the clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from serving.app import ServerOptions, create_app
from tests.support.past import Market
from tests.support.rebuilds import Stores
from tests.support.running_server import running
from tests.support.served import beating
from tickwell import AsyncClient, Client
from tickwell.client.errors import WrongEntity


@pytest.fixture
def server(stores: Stores, hot_redis: str) -> Iterator[str]:
    market = Market(stores, random.Random(4), stores.catalog)
    for _ in range(12):
        market.tick("price", 8)
        market.tick("position", 3)
    options = ServerOptions(stores.redis_url, hot_redis, stores.postgres)
    with beating(stores.redis_url), running(create_app(options)) as url:
        yield url


def test_both_clients_are_told_how_a_value_came_about(server: str) -> None:
    async def asked() -> dict[str, object]:
        async with AsyncClient(server) as store:
            return await store.explain("portfolio_exposure", entity={"portfolio": "P"})

    with Client(server) as store:
        found = store.explain("price_sma_5@1.0.0", "symbol", "A")
        served = store.get_online_features(["price_sma_5"], "symbol", "A")["price_sma_5"]
        assert (found["status"], found["event_time"]) == (served.status, served.event_time)
        assert (found["value"] or {}).get("value") == served.value
        assert found["same"] is True
        assert len(found["ticks"]) == 5
        assert found["proofs"][0]["expected"] == found["proofs"][0]["found"]
        position = store.explain("position_size", entity={"portfolio": "P", "symbol": "B"})
        assert position["entity"] == {"portfolio": "P", "symbol": "B"}
        before = store.explain("current_price", "symbol", "A", at=datetime(2001, 1, 1, tzinfo=UTC))
        assert (before["status"], before["ticks"]) == ("missing", [])
        with pytest.raises(WrongEntity):
            store.explain("current_price", "portfolio", "P")
        with pytest.raises(ValueError, match="time zone"):
            store.explain("current_price", "symbol", "A", at=datetime(2001, 1, 1))
    exposure = asyncio.run(asked())
    assert exposure["same"] is True
    assert exposure["terms"]


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ("", 422, "entity_type"),
        ("?entity_type=symbol", 422, "entity_value"),
        ("?entity_type=symbol&entity_value=A&entity_value=B", 422, "both once"),
        ("?entity_type=symbol&entity_value=A&x=1", 422, "nothing else"),
        ("?entity_type=symbol&entity_value=A&at=now", 422, "at now"),
        ("?entity_type=symbol&entity_value=A&at=2001-01-01", 422, "time zone"),
        ("?entity_type=symbol&entity_value=A&at=2999-01-01T00:00:00Z", 422, "second ago"),
        ("?entity_type=portfolio&entity_value=P", 422, "symbol"),
        ("?entity_type=symbol&entity_type=symbol&entity_value=A&entity_value=A", 422, "both once"),
        ("?entity_type=symbol&entity_value=%00", 422, "entity_value"),
    ],
)
def test_mistakes_are_told(client: TestClient, asked: str, status: int, told: str) -> None:
    answer = client.get(f"/features/current_price/explain{asked}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.json()["detail"]


def test_a_feature_that_nobody_knows_is_a_404(client: TestClient) -> None:
    answer = client.get("/features/current_prise/explain?entity_type=symbol&entity_value=A")
    assert answer.status_code == 404
    assert "current_price" in answer.json()["detail"]


def test_an_entity_that_was_never_seen_is_explained(client: TestClient) -> None:
    answer = client.get("/features/price_sma_5/explain?entity_type=symbol&entity_value=Nobody")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["status"] == "missing"
    assert found["because"].startswith("no tick of it is stored")


def test_a_deadline_ends_it(client: TestClient) -> None:
    asked = "/features/price_sma_5/explain?entity_type=symbol&entity_value=A"
    answer = client.get(asked, headers={"X-Deadline-Ms": "0"})
    assert answer.status_code == 422
    assert "X-Deadline-Ms" in answer.json()["detail"]
