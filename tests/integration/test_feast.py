"""Feast's clients on a real server: requests of the form that they send, and Feast's own SDK."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from starlette.testclient import TestClient
from typer.testing import CliRunner

from registry.definitions import Catalog
from tests.oracle.times import rfc_3339
from tests.support.feast_sdk import feast_sdk
from tests.support.pipeline import wait_for
from tests.support.served import beat, health, tick
from tests.support.stored import store_row
from tickwell.cli import app
from tickwell.embedded.ports import keep_port
from tickwell.settings import ADDRESSES
from tickwell.up import state

PRICES = ["current_price", "price_sma_5", "price_sma_20", "price_volatility"]
IN_FEAST = {
    "ok": "PRESENT",
    "stale": "OUTSIDE_MAX_AGE",
    "lagging": "OUTSIDE_MAX_AGE",
    "warming": "NULL_VALUE",
    "undefined": "NULL_VALUE",
    "missing": "NOT_FOUND",
}
SYMBOLS = ["AAPL", "OLD", "NEW", "NEG", "NONE", "AAPL"]
"""One of each status but `lagging`, and one twice."""


def ticks(url: str, recorded: Catalog) -> None:
    """Ticks that leave a value of every status but `lagging`, and a portfolio of two positions."""
    old = time.time_ns() // 10**6 - 120_000
    prices = [{"symbol": "AAPL", "price": 100 + math.sin(i) / 3} for i in range(21)]
    prices += [{"symbol": "OLD", "price": 190.5, "ts": old}, {"symbol": "NEW", "price": 190}]
    prices += [{"symbol": "NEG", "price": price} for price in [1, -1] * 11]
    tick(url, recorded, "price", prices)
    held = [{"symbol": "AAPL", "quantity": -300}, {"symbol": "NEW", "quantity": 0.1}]
    tick(url, recorded, "position", [{"portfolio": "P1", **one} for one in held])


def batch(client: Any, features: Sequence[str], entities: Sequence[dict[str, str]]) -> Any:
    """The values of `POST /features/batch`, a list for each feature."""
    body = {"features": list(features), "entities": list(entities)}
    answer = client.post("/features/batch", json=body)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    return {name: [one["features"][name] for one in results] for name in features}


def value_of(expected: dict[str, Any]) -> float | None:
    """What Feast's client is to hand out of a served value."""
    value: float | None = expected["value"] if expected["status"] == "ok" else None
    return value


def test_as_feasts_client_asks(client: TestClient, recorded: Catalog, redis_database: str) -> None:
    """`RemoteOnlineStore.get_online_features` of 0.67 sends these keys, and reads these."""
    ticks(redis_database, recorded)
    answer = client.post(
        "/get-online-features",
        json={
            "entities": {"symbol": SYMBOLS},
            "full_feature_names": False,
            "include_feature_view_version_metadata": False,
            "features": [f"price:{name}" for name in PRICES],
        },
        headers={"accept": "*/*", "connection": "keep-alive", "accept-encoding": "gzip, deflate"},
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["metadata"]["feature_names"] == ["symbol", *PRICES]
    assert found["results"][0]["values"] == SYMBOLS
    expected = batch(client, PRICES, [{"symbol": symbol} for symbol in SYMBOLS])
    statuses = set()
    for name, column in zip(PRICES, found["results"][1:], strict=True):
        assert column["statuses"] == [IN_FEAST[one["status"]] for one in expected[name]]
        assert column["values"] == [value_of(one) for one in expected[name]]
        assert all(type(value) in (float, type(None)) for value in column["values"])
        statuses |= set(column["statuses"])
    assert statuses == set(IN_FEAST.values())


def test_as_feasts_earlier_clients_ask(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    """`RemoteOnlineStore.online_read`: a request a view, as text without a media type."""
    ticks(redis_database, recorded)
    body = b'{"features": ["price:current_price"], "entities": {"symbol": ["AAPL"]}}'
    found = client.post("/get-online-features", content=body).json()
    moment = found["results"][1]["event_timestamps"][0]
    (expected,) = batch(client, ["current_price"], [{"symbol": "AAPL"}])["current_price"]
    assert found["results"][1]["values"] == [expected["value"]]
    whole = (rfc_3339(expected["event_time"]) or 0) // 1_000 * 1_000
    assert rfc_3339(moment) == whole


def test_a_feature_service_and_full_names(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    ticks(redis_database, recorded)
    body = {
        "entities": {"portfolio": ["P1", "P9"]},
        "full_feature_names": True,
        "feature_service": "portfolio",
    }
    found = client.post("/get-online-features", json=body).json()
    names = ["portfolio_exposure", "portfolio_exposure_net"]
    full = [f"position__{name}" for name in names]
    assert found["metadata"]["feature_names"] == ["portfolio", *full]
    expected = batch(client, names, [{"portfolio": name} for name in ("P1", "P9")])
    values = [column["values"] for column in found["results"][1:]]
    assert values == [[value_of(one) for one in expected[name]] for name in names]
    assert values[0][0] is not None


def test_lag_is_outside_max_age(client: TestClient, recorded: Catalog, redis_database: str) -> None:
    ticks(redis_database, recorded)
    beat(redis_database, behind=60.0)
    body = {"entities": {"symbol": ["AAPL"]}, "features": ["price:current_price"]}

    def answered() -> Any:
        column = client.post("/get-online-features", json=body).json()["results"][1]
        return column if column["statuses"] != ["PRESENT"] else None

    column = wait_for("the server has read it", answered)
    assert (column["statuses"], column["values"]) == (["OUTSIDE_MAX_AGE"], [None])


def test_what_cannot_be_read_is_503(
    client: TestClient, recorded: Catalog, redis_database: str
) -> None:
    ticks(redis_database, recorded)
    with redis.Redis.from_url(redis_database) as store:
        store_row(store, "price", "BAD", b"junk")
    body = {"entities": {"symbol": ["AAPL", "BAD"]}, "features": ["price:current_price"]}
    answer = client.post("/get-online-features", json=body)
    assert answer.status_code == 503
    assert answer.json()["features"] == ["current_price"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"entities": {"symbol": ["A"]}, "features": ["nothing:current_price"]}, 404),
        ({"entities": {"symbol": ["A"]}, "features": ["price:nothing"]}, 404),
        ({"entities": {"symbol": ["A"]}, "feature_service": "nothing"}, 404),
        ({"entities": {"portfolio": ["P"]}, "features": ["position:position_size"]}, 422),
        ({"features": ["price:current_price"]}, 422),
    ],
)
def test_a_callers_mistake(client: TestClient, body: dict[str, Any], status: int) -> None:
    answer = client.post("/get-online-features", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    # what a client that expects Feast's own form of errors gets is no such form, and shown as text
    assert isinstance(answer.json(), dict)


def exported(directory: Path, postgres: str, *arguments: str) -> Any:
    command = ["feast", "export", str(directory), *arguments]
    environment = {"TICKWELL_POSTGRES": postgres, "TICKWELL_URL": "http://127.0.0.1:8001/"}
    return CliRunner().invoke(app, command, env=environment)


def test_export_writes_what_says_where_the_server_is(
    recorded: Catalog, postgres_database: str, tmp_path: Path
) -> None:
    directory = tmp_path / "new" / "feast"
    done = exported(directory, postgres_database)
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in directory.iterdir()) == [
        "feature_store.yaml",
        "registry.db",
    ]
    assert (directory / "feature_store.yaml").read_text().splitlines()[1:] == [
        'project: "tickwell"',
        "provider: local",
        'registry: "registry.db"',
        "online_store:",
        "  type: remote",
        '  path: "http://127.0.0.1:8001"',
        "entity_key_serialization_version: 3",
    ]
    assert f"{len(recorded.active)} features in 3 views" in done.output
    secured = exported(
        directory,
        postgres_database,
        *("--url", "https://features.example:8001", "--ca", "/etc/ca.pem"),
        *("--key-variable", "FEATURES_KEY", "--project", "market"),
    )
    assert secured.exit_code == 0, secured.output
    lines = (directory / "feature_store.yaml").read_text().splitlines()
    assert {'  cert: "/etc/ca.pem"', '  token_env_var: "FEATURES_KEY"'} <= set(lines)


def test_export_beside_a_running_stack_takes_its_postgres_whatever_the_url(
    recorded: Catalog, postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ADDRESSES:
        monkeypatch.delenv(f"TICKWELL_{name.upper()}", raising=False)
    monkeypatch.setenv("TICKWELL_DATA", str(tmp_path))
    own = {"TICKWELL_POSTGRES": postgres_database, "TICKWELL_URL": "http://127.0.0.1:2"}
    file = tmp_path / "feast" / "feature_store.yaml"
    with state.locked(tmp_path):
        state.write(tmp_path, state.State(os.getpid(), "running", (), own))
        for arguments, url in (
            ((), own["TICKWELL_URL"]),
            (("--url", "http://h:8001"), "http://h:8001"),
        ):
            done = CliRunner().invoke(app, ["feast", "export", str(file.parent), *arguments])
            assert done.exit_code == 0, done.exception
            assert f'  path: "{url}"' in file.read_text().splitlines()


def test_export_leaves_others_files_alone(
    recorded: Catalog, postgres_database: str, tmp_path: Path
) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: somebodys\n")
    done = exported(tmp_path, postgres_database)
    assert done.exit_code != 0
    assert "was not written by this command" in str(done.exception)
    assert (tmp_path / "feature_store.yaml").read_text() == "project: somebodys\n"
    assert not (tmp_path / "registry.db").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--project", "a-b"), "letters, digits and _"),
        (("--url", "http://user:hunter2@127.0.0.1:1"), "--key-variable"),
    ],
)
def test_export_says_what_it_cannot_write(
    recorded: Catalog,
    postgres_database: str,
    tmp_path: Path,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    done = exported(tmp_path / "feast", postgres_database, *arguments)
    assert done.exit_code != 0
    assert told in str(done.exception)
    assert "hunter2" not in str(done.exception)
    assert not (tmp_path / "feast").exists()


@pytest.fixture
def server(
    recorded: Catalog,
    redis_database: str,
    hot_redis: str,
    postgres_database: str,
    tmp_path: Path,
) -> Iterator[str]:
    """The URL of `tickwell serve` on the stores."""
    beat(redis_database)
    port = keep_port(tmp_path / "port")
    process = subprocess.Popen(
        [sys.executable, "-m", "tickwell", "serve", "--port", str(port)],
        env={
            **os.environ,
            "TICKWELL_REDIS": redis_database,
            "TICKWELL_REDIS_HOT": hot_redis,
            "TICKWELL_POSTGRES": postgres_database,
        },
    )
    try:
        wait_for("the server serves", lambda: health(port)["status"] == "ok")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_feasts_own_sdk(
    server: str, recorded: Catalog, redis_database: str, postgres_database: str, tmp_path: Path
) -> None:
    """It starts from what `tickwell feast export` has written, and gets the bits of a batch."""
    repository = tmp_path / "feast"
    done = exported(repository, postgres_database, "--url", server)
    assert done.exit_code == 0, done.output
    with feast_sdk(repository) as sdk, httpx.Client(base_url=server) as client:
        beat(redis_database)  # it takes seconds until Feast is loaded
        wait_for("all is well", lambda: client.get("/health").json()["status"] == "ok")
        ticks(redis_database, recorded)
        for full in (False, True):
            check_prices(sdk, client, full)
        check_several_kinds(sdk, client)
        check_service(sdk, client)
        check_earlier_form(sdk, client)
        check_mistakes(sdk)
        check_registry(sdk, recorded)


def check_prices(sdk: Any, client: httpx.Client, full: bool) -> None:
    rows = [{"symbol": symbol} for symbol in SYMBOLS]
    features = [f"price:{name}" for name in PRICES]
    found = sdk.ask(kind="online", features=features, rows=rows, full=full)
    expected = batch(client, PRICES, rows)
    assert found["values"]["symbol"] == SYMBOLS
    for name in PRICES:
        shown = f"price__{name}" if full else name
        check_column(found, shown, expected[name])
    assert {one for of in found["statuses"].values() for one in of} == set(IN_FEAST.values())


def check_column(found: Any, name: str, expected: Sequence[dict[str, Any]]) -> None:
    values = [value_of(one) for one in expected]
    assert found["values"][name] == [None if v is None else v.hex() for v in values]
    assert found["statuses"][name] == [IN_FEAST[one["status"]] for one in expected]


def check_several_kinds(sdk: Any, client: httpx.Client) -> None:
    """Rows with the key fields of positions: of each feature those that it needs."""
    rows = [{"portfolio": "P1", "symbol": "AAPL"}, {"portfolio": "P2", "symbol": "NEW"}]
    features = ["position:position_size", "price:current_price", "position:portfolio_exposure"]
    found = sdk.ask(kind="online", features=features, rows=rows)
    kinds = {
        "position_size": ["portfolio", "symbol"],
        "current_price": ["symbol"],
        "portfolio_exposure": ["portfolio"],
    }
    for name, fields in kinds.items():
        entities = [{field: row[field] for field in fields} for row in rows]
        check_column(found, name, batch(client, [name], entities)[name])
    assert found["statuses"]["position_size"] == ["PRESENT", "NOT_FOUND"]


def check_service(sdk: Any, client: httpx.Client) -> None:
    rows = [{"symbol": "AAPL"}, {"symbol": "NONE"}]
    found = sdk.ask(kind="online", service="symbol", rows=rows)
    names = [name for name in found["columns"] if name != "symbol"]
    assert set(names) == {*PRICES, "current_volume", "volume_sma_10"}
    for name, expected in batch(client, names, rows).items():
        check_column(found, name, expected)


def check_earlier_form(sdk: Any, client: httpx.Client) -> None:
    rows = [{"symbol": symbol} for symbol in SYMBOLS]
    found = sdk.ask(kind="online_read", view="price", features=PRICES, rows=rows)
    expected = batch(client, PRICES, rows)
    for i, row in enumerate(found):
        for name in PRICES:
            value = value_of(expected[name][i])
            assert row["values"][name] == (None if value is None else value.hex())
        assert set(row["kinds"]) <= {"double_val", "None"}
        # Feast gives every row the time of the first
        whole = (rfc_3339(expected["current_price"][0]["event_time"]) or 0) // 1_000 * 1_000
        assert rfc_3339(row["time"]) == whole


def check_mistakes(sdk: Any) -> None:
    """The text of what is wrong reaches the user."""
    for features, told in (
        (["volume:current_price"], "ask for price:current_price"),
        (["position:position_size"], "entities have no column portfolio"),
    ):
        wrong = sdk.ask(kind="online", features=features, rows=[{"symbol": "AAPL"}])
        assert told in wrong["text"], wrong
    position = {"portfolio": "P1", "symbol": "AAPL"}  # of which earlier clients send the first key
    wrong = sdk.ask(
        kind="online_read", view="position", features=["position_size"], rows=[position]
    )
    assert "entities have no column symbol" in wrong["text"], wrong


def check_registry(sdk: Any, recorded: Catalog) -> None:
    """What is recorded is what Feast lists."""
    listed = sdk.ask(kind="listed")
    views = listed["views"]
    assert {name: view["entities"] for name, view in views.items()} == {
        name: list(source.key) for name, source in recorded.sources.items()
    }
    assert {name: view["keys"] for name, view in views.items()} == {
        name: list(source.key) for name, source in recorded.sources.items()
    }
    features = [name for view in views.values() for name in view["features"]]
    assert sorted(features) == sorted(recorded.active)
    assert {kind for view in views.values() for kind in view["features"].values()} == {"Float64"}
    assert views["price"]["ttl"] == 60
    assert views["position"]["ttl"] in (None, 0)
    tags = views["price"]["tags"]["price_volatility"]
    assert tags == {
        "version": "1.0.0",
        "entity": "symbol",
        "max_age_seconds": "60",
        "aliases": "volatility",
    }
    assert listed["entities"] == {name: [name, "STRING"] for name in ("symbol", "portfolio")}
    assert set(listed["services"]) == {"symbol", "portfolio", "portfolio-symbol"}
    assert set(listed["services"]["portfolio"]) == {
        "position:portfolio_exposure",
        "position:portfolio_exposure_net",
    }
    assert listed["projects"] == ["tickwell"]
