"""The Python client against a real server on real stores."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import redis

from registry import catalog
from registry.definitions import Catalog
from registry.formats.redis_keys import CATALOG_KEY
from serving.app import ServerOptions, create_app
from tests.support.pipeline import wait_for
from tests.support.running_server import running
from tests.support.served import beating, tick
from tickwell import AsyncClient, Client
from tickwell.client.batch import Detail
from tickwell.client.errors import UnknownFeature, WrongEntity
from tickwell.client.questions import ARROW_FROM

FEATURES = ["current_price", "price_sma_5", "volatility", "current_volume", "price_sma_5@1.0.0"]
ROUNDS = 5
WARM, HOT = "~tw:* +get +hscan", "+info +dbsize"
"""Rights of users of `tickwell bench`."""

SYMBOLS = [f"S{number}" for number in range(ARROW_FROM // 2)]


@pytest.fixture
def url(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[str]:
    """A server whose symbols have windows of every state: full, not full, old, and none."""
    old = time.time_ns() // 10**6 - 600_000
    prices: list[dict[str, Any]] = [
        {"symbol": symbol, "price": 100 + n / 7}
        for number, symbol in enumerate(SYMBOLS)
        for n in range(number)
    ]
    prices += [{"symbol": "OLD", "price": 1, "ts": old}]
    tick(redis_database, recorded, "price", sorted(prices, key=lambda one: one.get("ts", 2**60)))
    tick(redis_database, recorded, "volume", [{"symbol": s, "volume": 5} for s in SYMBOLS[::3]])
    options = ServerOptions(redis_database, hot_redis, postgres_database)
    with beating(redis_database), running(create_app(options)) as address:
        yield address


def entities_of(number: int) -> list[dict[str, str]]:
    names = [*SYMBOLS, "OLD", "NONE"]
    return [{"symbol": names[n % len(names)]} for n in range(number)]


def raw(url: str, entities: list[dict[str, str]]) -> list[dict[str, Any]]:
    """What the server answers in JSON, 500 entities at a time."""
    found: list[dict[str, Any]] = []
    for first in range(0, len(entities), 500):
        body = {"features": FEATURES, "entities": entities[first : first + 500]}
        found += httpx.post(f"{url}/features/batch", json=body).raise_for_status().json()["results"]
    return found


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the ages, which differ between two of them."""
    features = {
        name: {**value, "age_seconds": value["age_seconds"] is None}
        for name, value in answer["features"].items()
    }
    return {**answer, "features": features}


@pytest.mark.parametrize("number", [1, ARROW_FROM - 1, ARROW_FROM, 1201])
def test_the_client_says_what_the_server_says(url: str, number: int) -> None:
    """Whatever the form that it asks for, in one request or several, and in both clients."""
    entities = entities_of(number)

    async def ask() -> Any:
        async with AsyncClient(url, deadline_seconds=60) as other:
            return await other.get_batch_features(FEATURES, entities)

    for _ in range(ROUNDS):
        expected = [timeless(answer) for answer in raw(url, entities)]
        with Client(url, deadline_seconds=60) as client:
            batch = client.get_batch_features(FEATURES, entities)
        other = asyncio.run(ask())
        if expected == [timeless(answer) for answer in raw(url, entities)]:
            break  # else a value became old or a worker was late meanwhile
    for found in (batch, other):
        assert [timeless(answer.as_answer()) for answer in found] == expected
    table = batch.to_arrow(get_args(Detail)).to_pylist()
    for row, answer in zip(table, expected, strict=True):
        assert row["symbol"] == answer["entity"]["symbol"]
        for name, value in answer["features"].items():
            assert row[name] == value["value"]
            assert row[f"{name}.status"] == value["status"]
            assert row[f"{name}.tier"] == value["tier"]
            assert row[f"{name}.version"] == value["version"]
            assert (row[f"{name}.event_time"] is None) is (value["event_time"] is None)
    statuses = {v["status"] for answer in expected for v in answer["features"].values()}
    if number > 1:
        assert statuses >= {"ok", "stale", "warming", "missing"}


def test_one_entity(url: str) -> None:
    with Client(url, deadline_seconds=60) as client:
        answer = client.get_online_features(["current_price", "price_sma_5"], "symbol", SYMBOLS[-1])
        assert answer["current_price"].is_ok
        assert answer["current_price"].version == "1.0.0"
        assert 0 <= (answer["current_price"].age_seconds or -1) < 600
        assert answer.to_dict() == {name: answer[name].value for name in answer}
        named = {"portfolio": "P1", "symbol": "AAPL"}
        assert client.get_online_features(["position_size"], entity=named).entity == named
        with pytest.raises(UnknownFeature, match="price_sma_5") as unknown:
            client.get_online_features(["price_sma_6"], "symbol", "A")
        assert (unknown.value.status, unknown.value.context["feature"]) == (404, "price_sma_6")
        with pytest.raises(WrongEntity) as wrong:
            client.get_online_features(["current_price"], "portfolio", "P1")
        assert wrong.value.context["entity"] == ["symbol"]
        wait_for("the server is well", lambda: client.health()["status"] == "ok")


def told(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tickwell", *arguments],
        env={"COLUMNS": "200", "HOME": "/nonexistent", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_get_asks_the_server(url: str) -> None:
    done = told("get", SYMBOLS[-1], "current_price", "--json", TICKWELL_URL=url)
    value = json.loads(done.stdout)["features"]["current_price"]
    assert value["tier"] == "warm"
    assert value["value"] is not None
    done = told("get", "P1", "portfolio_exposure", TICKWELL_URL=url)
    assert "missing" in done.stdout
    done = told("get", "P1", "portfolio_exposur", TICKWELL_URL=url)
    assert done.returncode == 1
    assert "portfolio_exposure" in done.stderr


def test_bench_needs_the_rights_that_the_readme_names_and_shows_figures_without_hots(
    url: str, recorded: Catalog, redis_database: str, hot_redis: str
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    assert f"| of `tickwell bench` | `{WARM}`, and in the second Redis `{HOT}` |" in readme
    with redis.Redis.from_url(redis_database) as store:
        store.set(CATALOG_KEY, catalog.encode(recorded))
    short = ("--connections", "5", "--seconds", "0.5", "--warm-up", "0", "--processes", "1")
    with user(redis_database, WARM) as warm, user(hot_redis, HOT) as hot:
        done = told("bench", *short, TICKWELL_URL=url, TICKWELL_REDIS=warm, TICKWELL_REDIS_HOT=hot)
        assert done.returncode == 0, done.stderr
        assert "README" not in done.stderr
    with user(redis_database, "~tw:* +get") as warm:
        done = told("bench", *short, TICKWELL_URL=url, TICKWELL_REDIS=warm)
        assert done.returncode == 1
        assert "TICKWELL_REDIS: its user may not do what `tickwell bench` needs" in done.stderr
    with user(hot_redis, "+info") as hot:
        stores = {"TICKWELL_REDIS": redis_database, "TICKWELL_REDIS_HOT": hot}
        done = told("bench", *short, "--check", TICKWELL_URL=url, **stores)
    assert done.returncode == 1
    assert "answered well" in done.stdout
    assert "missed (TICKWELL_REDIS_HOT is set, and no answer was" in done.stdout
    assert "no ideal beside the hits: TICKWELL_REDIS_HOT: its user may not" in done.stderr


@contextmanager
def user(url: str, rights: str) -> Iterator[str]:
    """The URL of a user of a Redis who has certain rights, and may go to the tests' database."""
    parts = urlsplit(url)
    name = f"bench{parts.path.removeprefix('/')}"
    with redis.Redis.from_url(url) as client:
        client.execute_command(
            "ACL", "SETUSER", name, "reset", "on", ">pw", "+select", *rights.split()
        )
        try:
            where = parts.netloc.rpartition("@")[2]
            yield parts._replace(netloc=f"{name}:pw@{where}").geturl()
        finally:
            client.acl_deluser(name)


def test_bench_measures_what_the_server_does(
    url: str, recorded: Catalog, redis_database: str, hot_redis: str, tmp_path: Path
) -> None:
    """It finds features and entities in Redis, and its figures are what the server has counted."""
    with redis.Redis.from_url(redis_database) as store:
        store.set(CATALOG_KEY, catalog.encode(recorded))
    short = ("--connections", "20", "--seconds", "1", "--warm-up", "0", "--processes", "2")
    stores = {"TICKWELL_URL": url, "TICKWELL_REDIS": redis_database}
    done = told("bench", *short, "--json", "--png", str(tmp_path / "run.png"), **stores)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == {}
    assert found["success"] == 1
    assert found["sent"] > 20
    assert found["tiers"] == {"warm": 1.0}
    assert found["run"]["entities"] == len(SYMBOLS)  # the first has no price, and there is OLD
    assert set(found["run"]["features"]) >= {"current_price", "price_sma_5", "current_volume"}
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    counted = httpx.get(f"{url}/metrics").text
    (line,) = (
        line for line in counted.splitlines() if "requests_total" in line and "online" in line
    )
    assert float(line.rsplit(" ", 1)[1]) >= found["sent"]
    names = tmp_path / "names"
    names.write_text("\n".join(SYMBOLS))
    missed = told(
        *("bench", *short, "--check", "--feature", "current_price", "--entities", str(names)),
        *("--rate", "50", "--batch", "3"),
        TICKWELL_URL=url,
    )
    assert missed.returncode == 1, missed.stderr  # for it asks 50 times a second
    assert "open loop: 50 requests a second" in missed.stdout
    assert "missed" in missed.stdout
    assert msgspec.json.decode(done.stdout)["run"]["rate"] is None
