"""What servers count of reads is what they have answered, whatever is killed or away meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from sqlalchemy import Engine, select
from starlette.testclient import TestClient

from registry.api_keys import Scope
from registry.database.tables import usage as table
from registry.database.tables import usage_batches
from registry.definitions import Catalog
from registry.formats.consumer import OTHERS, UNNAMED
from registry.formats.row import unpack
from registry.lifecycle.api_keys import create
from registry.lifecycle.usage import last_read, recent_readers
from registry.lifecycle.usage_recording import RETENTION_DAYS, Batch, Counted, add
from serving.app import ServerOptions, create_app
from serving.usage import CONSUMERS
from tests.support.hot_worker import HotWorker
from tests.support.network import network
from tests.support.pipeline import wait_for
from tests.support.running_server import running
from tests.support.served import beat, tick
from tests.support.server_processes import Clients, running_server
from tests.support.stored import stored_row
from tests.support.usage import stored

STREAM = "application/vnd.apache.arrow.stream"
ONE = {"features": ["current_price"], "entity": {"symbol": "AAPL"}}
PRICE = "current_price@1.0.0"


@pytest.fixture
def options(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> ServerOptions:
    tick(
        redis_database, recorded, "price", [{"symbol": "AAPL", "price": 9.0 + i} for i in range(3)]
    )
    position = {"portfolio": "P1", "symbol": "AAPL", "quantity": 3, "multiplier": 2}
    tick(redis_database, recorded, "position", [position])
    beat(redis_database)
    return ServerOptions(redis_database, hot_redis, postgres_database)


def answered(catalog: Catalog, answer: Mapping[str, Any]) -> Counter[str]:
    """The values of an answer with objects, by version."""
    aliases = {
        alias: feature.name for feature in catalog.features.values() for alias in feature.aliases
    }
    found: Counter[str] = Counter()
    for one in answer.get("results", [answer]):
        for asked, value in one["features"].items():
            name = asked.split("@")[0]
            found[f"{aliases.get(name, name)}@{value['version']}"] += 1
    return found


BODIES: Sequence[tuple[str, dict[str, Any]]] = [
    ("online", {"features": ["price_sma_5", "volatility"], "entity": {"symbol": "AAPL"}}),
    ("online", {"features": ["price_sma_5@1.0.0", "price_sma_5"], "entity": {"symbol": "AAPL"}}),
    ("online", {"features": ["current_price"], "entity": {"symbol": "NONE"}}),
    ("online", {"features": ["portfolio_exposure"], "entity": {"portfolio": "P1"}}),
    ("batch", {"features": ["current_price"], "entities": [{"symbol": "AAPL"}] * 3}),
    (
        "batch",
        {
            "features": ["current_price", "position_size", "volume_sma_10"],
            "entities": [{"symbol": s} for s in "ABCDEFGHIJKLMNO"]
            + [{"portfolio": "P1", "symbol": "AAPL"}],
        },
    ),
    (
        "batch",
        {
            "features": ["current_price", "portfolio_exposure"],
            "entities": [{"symbol": "AAPL"}, {"portfolio": "P1"}, {"portfolio": "P2"}],
        },
    ),
]
"""What is prepared and what is not; aliases, pins, values that are missing, several kinds."""

REFUSED: Sequence[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("/features/online", {"features": ["nothing"], "entity": {"symbol": "AAPL"}}, {}),
    ("/features/online", {"features": ["current_price"], "entity": {"portfolio": "P1"}}, {}),
    ("/features/online", ONE, {"x-deadline-ms": "soon"}),
    ("/features/online", ONE, {"x-consumer": "no name"}),
    ("/features/batch?all", {"features": ["current_price"], "entities": [{"symbol": "A"}]}, {}),
    ("/get-online-features", {"features": ["price:nothing"], "entities": {"symbol": ["A"]}}, {}),
]


def test_what_was_answered_is_counted_by_version_and_consumer(
    options: ServerOptions, recorded: Catalog, engine: Engine
) -> None:
    """In every form, asked once and again; what is refused is in no count."""
    expected: Counter[tuple[str, str]] = Counter()
    with running(create_app(options)) as url, httpx.Client(base_url=url) as client:
        for consumer in (None, "a-model", "b", "a-model"):
            headers = {} if consumer is None else {"X-Consumer": consumer}
            for route, body in BODIES:
                answer = client.post(f"/features/{route}", json=body, headers=headers).json()
                forms = 1
                if route == "batch":
                    compact = client.post("/features/batch?compact", json=body, headers=headers)
                    accepted = {**headers, "accept": STREAM}
                    arrow = client.post("/features/batch", json=body, headers=accepted)
                    assert (compact.status_code, arrow.status_code) == (200, 200)
                    assert arrow.headers["content-type"] == STREAM
                    forms = 3
                for ref, values in answered(recorded, answer).items():
                    expected[ref, consumer or UNNAMED] += values * forms
            feast = {
                "features": ["price:current_price", "position:position_size"],
                "entities": {"symbol": ["AAPL", "B"], "portfolio": ["P1", "P1"]},
            }
            assert client.post("/get-online-features", json=feast, headers=headers).is_success
            expected[PRICE, consumer or UNNAMED] += 2
            expected["position_size@1.0.0", consumer or UNNAMED] += 2
        for path, body, more in REFUSED:
            refused = client.post(path, json=body, headers={"x-consumer": "nobody", **more})
            assert 400 <= refused.status_code < 500, refused.text
        assert client.get("/features/current_price").is_success
    assert stored(engine) == expected
    with engine.connect() as connection:
        assert recent_readers(connection, PRICE, datetime.now(UTC) - timedelta(minutes=10)) == [
            "a-model",
            "b",
            UNNAMED,
        ]
        assert recent_readers(connection, PRICE, datetime.now(UTC) + timedelta(minutes=1)) == []
        assert last_read(connection, "price_sma_5@9.0.0") is None
        read = last_read(connection, PRICE)
        assert read is not None
        assert timedelta(0) <= datetime.now(UTC) - read < timedelta(minutes=10)


def test_an_answer_in_which_nothing_could_be_read_is_no_read(
    recorded: Catalog, hot_redis: str, postgres_database: str, engine: Engine
) -> None:
    """Neither store of rows answers; the counts of what was answered before go to a third one."""
    with network(postgres_database) as between:
        options = ServerOptions("redis://127.0.0.1:1/0", hot_redis, between.url)
        with TestClient(create_app(options)) as client:
            cold = client.post("/features/online", json=ONE).json()
            assert cold["features"]["current_price"]["tier"] == "cold"
            wait_for("it is stored", lambda: stored(engine) == {(PRICE, UNNAMED): 1})
            between.cut()
            for _ in range(3):
                assert client.post("/features/online", json=ONE).status_code == 503
            between.heal()
    assert stored(engine) == {(PRICE, UNNAMED): 1}


def test_reads_from_hot_and_from_warm_count_alike(options: ServerOptions, engine: Engine) -> None:
    with (
        redis.Redis.from_url(options.redis) as warm,
        redis.Redis.from_url(options.redis_hot) as hot,
    ):
        hot.flushall()
        origin = unpack(stored_row(warm, "price", "AAPL")).origin
        HotWorker(warm, hot, origin.partition, origin.topic_id).begin()
        tiers: Counter[str] = Counter()
        with TestClient(create_app(options)) as client:

            def ask() -> bool:
                answer = client.post("/features/online", json=ONE).json()
                tiers[answer["features"]["current_price"]["tier"]] += 1
                return tiers["hot"] > 0

            wait_for("it is in hot", ask)
    assert set(tiers) == {"warm", "hot"}
    assert stored(engine) == {(PRICE, UNNAMED): tiers.total()}


def test_where_keys_are_needed_their_names_count_and_no_header(
    options: ServerOptions, engine: Engine
) -> None:
    keys = {name: create(engine, name, [Scope.READ], "test").text for name in ("model", "report")}
    writing = create(engine, "writing", [Scope.WRITE], "test").text
    with TestClient(create_app(replace(options, needs_keys=True))) as client:
        for name, key in keys.items():
            for said in ("model", "report", "no name at all"):
                headers = {"x-api-key": key, "x-consumer": said}
                assert client.post("/features/online", json=ONE, headers=headers).is_success, name
        for key, status in ((writing, 403), ("tw_no", 401)):
            headers = {"x-api-key": key, "x-consumer": "model"}
            refused = client.post("/features/online", json=ONE, headers=headers)
            assert refused.status_code == status
            assert client.get("/features/x/usage", headers=headers).status_code == status
    assert stored(engine) == {(PRICE, "model"): 3, (PRICE, "report"): 3}


def test_clients_cannot_make_the_table_large(options: ServerOptions, engine: Engine) -> None:
    with TestClient(create_app(options)) as client:
        for number in range(CONSUMERS + 50):
            headers = {"x-consumer": f"c{number}"}
            assert client.post("/features/online", json=ONE, headers=headers).is_success
    found = stored(engine)
    assert len(found) == CONSUMERS + 1
    assert found[PRICE, OTHERS] == 50


@pytest.fixture
def environment(options: ServerOptions) -> dict[str, str]:
    return {
        **os.environ,
        "TICKWELL_REDIS": options.redis,
        "TICKWELL_REDIS_HOT": options.redis_hot,
        "TICKWELL_POSTGRES": options.postgres,
    }


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_add_up_to_what_was_answered(
    environment: dict[str, str], engine: Engine, tmp_path: Path, processes: int
) -> None:
    with running_server(tmp_path, processes, environment) as server:
        clients = Clients(server.port)
        asyncio.run(clients.run(20, 2_000))
    assert (clients.lost, clients.refused) == ([], 0)
    assert stored(engine) == {(PRICE, UNNAMED): clients.answers[200]}
    with engine.connect() as connection:
        assert 1 <= len(connection.execute(select(usage_batches)).all()) <= processes


def test_a_killed_process_loses_what_it_has_not_stored_and_nothing_else(
    environment: dict[str, str], engine: Engine, tmp_path: Path
) -> None:
    with running_server(tmp_path, 2, environment) as server:
        before = Clients(server.port)
        asyncio.run(before.run(10, 500))
        asked = before.answers[200]
        wait_for("all is stored", lambda: stored(engine) == {(PRICE, UNNAMED): asked})
        later = Clients(server.port)
        asyncio.run(later.run(10, 500))
        for pid in server.children():
            os.kill(pid, signal.SIGKILL)
        wait_for("it serves again", lambda: server.status("/health/ready") == 200)
        at_last = Clients(server.port)
        asyncio.run(at_last.run(10, 500))
    kept = sum(stored(engine).values()) - asked - at_last.answers[200]
    assert 0 <= kept <= later.answers[200]


def test_while_postgres_is_away_answers_are_given_and_counts_wait(
    options: ServerOptions, postgres_database: str, engine: Engine
) -> None:
    with network(postgres_database) as between:
        app = create_app(replace(options, postgres=between.url))
        with TestClient(app) as client:

            def metric(name: str) -> float:
                lines = client.get("/metrics").text.splitlines()
                (value,) = [line.split()[1] for line in lines if line.split()[0] == name]
                return float(value)

            between.cut()
            for _ in range(20):
                answer = client.post("/features/online", json=ONE)
                assert answer.json()["features"]["current_price"]["tier"] == "warm"
            wait_for("it was tried", lambda: metric("tickwell_usage_failures_total") > 0)
            assert metric("tickwell_usage_waiting") == 20
            unread = client.get("/features/current_price/usage")
            assert (unread.status_code, unread.headers["retry-after"]) == (503, "1")
            between.heal()
            wait_for("it is stored", lambda: stored(engine) == {(PRICE, UNNAMED): 20})
            wait_for("that is known", lambda: metric("tickwell_usage_waiting") == 0)
            assert metric("tickwell_usage_dropped_total") == 0


def test_a_database_without_the_table_says_what_to_do(
    options: ServerOptions, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        table.drop(connection)
    with caplog.at_level(logging.WARNING), TestClient(create_app(options)) as client:
        assert client.post("/features/online", json=ONE).is_success
        unread = client.get("/features/current_price/usage")
        assert unread.status_code == 503
        assert "tickwell migrate" in unread.json()["detail"]
    assert "run `tickwell migrate`" in caplog.text


def test_a_server_deletes_what_is_old(options: ServerOptions, engine: Engine) -> None:
    today = datetime.now(UTC).date()
    old = today - timedelta(days=RETENTION_DAYS + 2)
    with engine.connect() as connection:
        counted = Counted("old@1.0.0", "c", old, 1, datetime.now(UTC))
        add(connection, Batch(uuid4(), 1, [counted]))
    with TestClient(create_app(options)) as client:
        assert client.post("/features/online", json=ONE).is_success
        wait_for("it is stored", lambda: (PRICE, UNNAMED) in stored(engine))
        wait_for("it is deleted", lambda: len(stored(engine)) == 1)


@pytest.fixture
def read_client(options: ServerOptions) -> Iterator[TestClient]:
    with TestClient(create_app(options)) as made:
        yield made


def test_usage_over_http(read_client: TestClient, engine: Engine) -> None:
    headers = {"x-consumer": "a-model"}
    body = {"features": ["volatility"], "entities": [{"symbol": "A"}, {"symbol": "B"}]}
    assert read_client.post("/features/batch", json=body, headers=headers).is_success
    wait_for("it is stored", lambda: stored(engine))
    with engine.connect() as connection:
        (today,) = set(connection.execute(select(table.c.day)).scalars())
    for name in ("price_volatility", "volatility", "price_volatility@1.0.0"):
        found = read_client.get(f"/features/{name}/usage", params={"days": 2}).json()
        assert found["name"] == "price_volatility"
        assert found["days"] == [str(today - timedelta(1)), str(today)]
        (one,) = found["usage"]
        assert datetime.fromisoformat(one.pop("last_read")).date() == today
        told = {"version": "1.0.0", "consumer": "a-model", "reads": [0, 2], "total": 2}
        assert one == told
    assert len(read_client.get("/features/current_price/usage").json()["days"]) == 30
    assert read_client.get("/features/nothing/usage").status_code == 404
    for query in ("days=0", "days=401", "days=x", "days=", "days=1&days=2", "day=1", "days=-1"):
        refused = read_client.get(f"/features/current_price/usage?{query}")
        assert (refused.status_code, "?days=" in refused.json()["detail"]) == (422, True), query
    assert read_client.post("/features/current_price/usage").status_code == 405
