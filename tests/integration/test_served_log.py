"""Servers over a real Redis log what they serve; each of several processes in a file of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from starlette.testclient import TestClient

from registry.definitions import Catalog
from registry.formats.entity_name import entity_id
from registry.formats.row import unpack
from registry.formats.served_log import Served, bits_of, read_served
from serving.app import ServerOptions, create_app
from tests.support.pipeline import wait_for
from tests.support.running_server import running
from tests.support.served import beat, tick
from tests.support.server_processes import ASK, running_server
from tests.support.stored import stored_row

PRICES = [100 + i * 0.1 for i in range(21)]
KEYS = [("price", ("AAPL",)), ("position", ("P1", "AAPL"))]
POSITION = {"portfolio": "P1", "symbol": "AAPL", "quantity": 3, "multiplier": 2}


@pytest.fixture
def options(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str, tmp_path: Path
) -> ServerOptions:
    """Of a server that logs every request."""
    tick(redis_database, recorded, "price", [{"symbol": "AAPL", "price": p} for p in PRICES])
    tick(redis_database, recorded, "position", [POSITION])
    beat(redis_database)
    directory = tmp_path / "served"
    urls = redis_database, hot_redis, postgres_database
    return ServerOptions(*urls, served_log=directory, served_log_every=1)


def logged(options: ServerOptions) -> list[Served]:
    assert options.served_log is not None
    return list(read_served(options.served_log))


def as_logged(value: dict[str, Any]) -> tuple[str | None, str, str | None]:
    number = value["value"]
    return None if number is None else bits_of(number), value["status"], value["tier"]


def test_what_was_answered_is_logged_with_the_origins_of_the_rows(options: ServerOptions) -> None:
    """Of what is prepared, of sums, and of several kinds of entities in one request."""
    features = ["current_price", "price_sma_5", "volume_sma_10", "portfolio_exposure"]
    entities = [{"symbol": "AAPL"}, {"portfolio": "P1"}, {"symbol": "NONE"}]
    bodies = [
        ("online", {"features": features[:3], "entity": entities[0]}),
        ("online", {"features": features[3:], "entity": entities[1]}),
        ("batch", {"features": features, "entities": entities}),
        ("batch", {"features": features[:3], "entities": [entities[0], entities[2]]}),
    ]
    with running(create_app(options)) as url, httpx.Client(base_url=url) as client:
        for number in range(2):  # what is asked again takes another way through the server
            for which, (route, body) in enumerate(bodies):
                sent = {"X-Request-Id": f"{number}-{which}"}
                answer = client.post(f"/features/{route}", json=body, headers=sent).json()
                (served,) = wait_for(
                    "it is logged",
                    lambda sent=sent: [
                        one for one in logged(options) if one.request_id == sent["X-Request-Id"]
                    ],
                )
                told = [
                    (name, one["entity"], *as_logged(value))
                    for one in answer.get("results", [answer])
                    for name, value in one["features"].items()
                ]
                assert told == [
                    (v.feature.split("@")[0], v.entity, v.bits, v.status.value, v.tier)
                    for v in served.values
                ]
                check_origins(options, served)
        metrics = client.get("/metrics").text
    assert "tickwell_served_log_requests_total 8.0" in metrics
    assert "tickwell_served_log_dropped_total 0.0" in metrics


def check_origins(options: ServerOptions, served: Served) -> None:
    """Each row has the origin that Redis has, and each value rows of its own entity."""
    with redis.Redis.from_url(options.redis) as store:
        stored = {
            (source, key): unpack(stored_row(store, source, entity_id(key))) for source, key in KEYS
        }
    for row in served.rows:
        known = stored.get((row.source, row.entity))
        assert row.origin == (None if known is None else known.origin)
        assert row.schema_id == (None if known is None else known.schema_id)
        assert (row.tier, row.lagging) == ("warm", False)
    for value in served.values:
        sources = sorted(served.rows[number].source for number in value.rows)
        if value.feature.startswith("portfolio_exposure"):
            assert sources == ["position", "price"]
        else:
            assert sources == ["volume" if "volume" in value.feature else "price"]


def test_a_directory_that_cannot_be_written_to_costs_no_request(
    options: ServerOptions, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with TestClient(create_app(replace(options, served_log=tmp_path / "file" / "served"))) as made:
        for _ in range(5):
            body = {"features": ["current_price"], "entity": {"symbol": "AAPL"}}
            answer = made.post("/features/online", json=body).json()
            assert answer["features"]["current_price"]["value"] == PRICES[-1]
        wait_for(
            "they are counted",
            lambda: "tickwell_served_log_dropped_total 5.0" in made.get("/metrics").text,
        )


@pytest.mark.parametrize("every", [0, 1])
def test_processes_of_a_server_write_files_of_their_own(
    recorded: Catalog,
    redis_database: str,
    hot_redis: str,
    postgres_database: str,
    tmp_path: Path,
    every: int,
) -> None:
    stores = {
        **os.environ,
        "TICKWELL_REDIS": redis_database,
        "TICKWELL_REDIS_HOT": hot_redis,
        "TICKWELL_POSTGRES": postgres_database,
    }
    directory = tmp_path / "served"
    with running_server(tmp_path, 2, stores, data=tmp_path, served_log_every=every) as server:
        clients = [httpx.Client(base_url=server.url) for _ in range(10)]
        for number, client in enumerate(clients):
            sent = {"X-Request-Id": str(number)}
            assert client.post("/features/online", content=ASK, headers=sent).status_code == 200
        for client in clients:
            client.close()
        name = "tickwell_served_log_requests_total"
        wait_for("all are counted", lambda: server.metrics()[name] == 10 * every)
    served = list(read_served(directory))
    assert {one.request_id for one in served} == set(map(str, range(10 * every)))
    assert len(list(directory.glob("*.jsonl"))) == 2 * every
