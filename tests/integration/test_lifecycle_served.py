"""What servers answer of versions in every state: by name, by pin and by set; changes by HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from registry.api_keys import Scope
from registry.definitions import Arm, Experiment
from registry.experiments import arm_of
from registry.features_file import Text, read
from registry.lifecycle import api_keys
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from serving.app import ServerOptions, create_app
from tests.support.pipeline import wait_for
from tests.support.served import beat, beating, online, tick

OLD, NEW = "price_sma_5@1.0.0", "price_sma_5@2.0.0"
ARROW = {"accept": "application/vnd.apache.arrow.stream"}
PRICES = [100.0, 101.0, 102.0, 103.0, 104.0, 115.0]
FIVE, SIX = sum(PRICES[-5:]) / 5, sum(PRICES) / 6


@pytest.fixture
def registry(engine: Engine, redis_database: str) -> Registry:
    """The shipped features and a second version on standby, and prices of one symbol."""
    record(engine, read(), "ann")
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )
    ticks = [{"symbol": "A", "price": price} for price in PRICES]
    tick(redis_database, registry.catalog(), "price", ticks)
    return registry


@pytest.fixture
def client(
    registry: Registry, redis_database: str, hot_redis: str, database: str
) -> Iterator[TestClient]:
    options = ServerOptions(redis_database, hot_redis, database)
    with (
        beating(redis_database),
        TestClient(create_app(options), raise_server_exceptions=False) as made,
    ):
        yield made


@pytest.fixture
def guarded(
    registry: Registry, redis_database: str, hot_redis: str, database: str
) -> Iterator[TestClient]:
    """A server that needs keys, and a client that may write."""
    beat(redis_database)
    made = api_keys.create(registry.engine, "deploy", [Scope.READ, Scope.WRITE], "ann")
    options = ServerOptions(redis_database, hot_redis, database, needs_keys=True)
    with TestClient(create_app(options), raise_server_exceptions=False) as client:
        client.headers["x-api-key"] = made.text
        wait_for("the key is known", lambda: client.get("/features").status_code == 200)
        yield client


def answered(client: TestClient, name: str) -> Any:
    """The status code of a question, and the value under each name."""
    body = {"features": [name], "entity": {"symbol": "A"}}
    found = client.post("/features/online", json=body)
    if found.status_code != 200:
        return found.status_code
    return {name: one["value"] for name, one in found.json()["features"].items()}


def comes(client: TestClient, name: str, expected: Any) -> None:
    """A server follows by itself."""
    wait_for(f"{name} is {expected}", lambda: answered(client, name) == expected)


def test_a_name_moves_and_pins_do_not(client: TestClient, registry: Registry) -> None:
    assert answered(client, "price_sma_5") == {"price_sma_5": FIVE}
    assert answered(client, NEW) == {NEW: SIX}
    registry.activate(NEW)
    comes(client, "price_sma_5", {"price_sma_5": SIX})
    assert online(client, "price_sma_5", symbol="A")["version"] == "2.0.0"
    assert answered(client, OLD) == {OLD: FIVE}
    registry.roll_back("price_sma_5")
    comes(client, "price_sma_5", {"price_sma_5": FIVE})
    assert answered(client, NEW) == {NEW: SIX}


def test_a_deprecated_version_says_so_and_a_retired_one_is_gone(
    client: TestClient, registry: Registry
) -> None:
    assert "deprecated" not in online(client, NEW, symbol="A")
    registry.deprecate(NEW, OLD)
    wait_for("it says so", lambda: "deprecated" in online(client, NEW, symbol="A"))
    value = online(client, NEW, symbol="A")
    assert value["value"] == SIX
    since = value["deprecated"]
    assert since.endswith("Z")
    entities = [{"symbol": "A"}] * 20  # by columns, and few one by one
    for number in (1, 20):
        body = {"features": [NEW, OLD], "entities": entities[:number]}
        for one in client.post("/features/batch", json=body).json()["results"]:
            assert one["features"][NEW]["deprecated"] == since
            assert "deprecated" not in one["features"][OLD]
        compact = client.post("/features/batch?compact", json=body).json()["features"]
        assert compact[NEW]["deprecated"] == since
        assert "deprecated" not in compact[OLD]
        stream = client.post("/features/batch", json=body, headers=ARROW).content
        schema = pa.ipc.open_stream(stream).schema
        assert schema.field(NEW).metadata[b"deprecated"] == since.encode()
        assert b"deprecated" not in schema.field(OLD).metadata
    registry.retire(NEW)
    comes(client, NEW, 410)
    gone = client.post("/features/online", json={"features": [NEW], "entity": {"symbol": "A"}})
    assert gone.json()["replacement"] == OLD
    assert "take price_sma_5@1.0.0" in gone.json()["detail"]
    assert client.get(f"/features/{NEW}").status_code == 410
    # and everything else is answered as before
    assert client.get("/features").status_code == 200
    assert client.get("/features/current_price").status_code == 200
    versions = client.get(f"/features/{NEW}/versions").json()["versions"]
    assert [one["state"] for one in versions] == ["active", "retired"]
    assert answered(client, OLD) == {OLD: FIVE}
    assert answered(client, "price_sma_5@3.0.0") == 404


def test_a_set_is_answered_under_its_names(client: TestClient, registry: Registry) -> None:
    sets = (
        '[[set]]\nname = "momentum"\nversion = "1"\n'
        f'features = ["{NEW}", "price_sma_20", "current_price"]\n'
    )
    registry.apply(Text("sets.toml", registry.export() + sets))
    expected = {"price_sma_5": SIX, "price_sma_20": None, "current_price": PRICES[-1]}
    comes(client, "set:momentum@1", expected)
    body = {"features": ["set:momentum@1", "price_volatility"], "entities": [{"symbol": "A"}] * 2}
    for one in client.post("/features/batch", json=body).json()["results"]:
        assert list(one["features"]) == [*expected, "price_volatility"]
    assert list(client.post("/features/batch?compact", json=body).json()["features"]) == [
        *expected,
        "price_volatility",
    ]
    mixed = {"features": ["set:momentum@1", "price_sma_5"], "entity": {"symbol": "A"}}
    refused = client.post("/features/online", json=mixed)
    assert refused.status_code == 422
    assert f"price_sma_5 would be {NEW} and {OLD}" in refused.json()["detail"]
    feast = {"feature_service": "set:momentum@1", "entities": {"symbol": ["A"]}}
    columns = client.post("/get-online-features", json=feast).json()
    names = columns["metadata"]["feature_names"]
    assert names == ["symbol", *expected]
    assert columns["results"][1]["values"] == [SIX]
    assert answered(client, "set:momentum@2") == 404
    registry.deprecate("set:momentum@1")
    registry.retire("set:momentum@1")
    comes(client, "set:momentum@1", 410)


def test_a_derived_feature_is_of_the_versions_that_it_pins(
    client: TestClient, registry: Registry
) -> None:
    registry.create_feature_version(
        "spread", "1.0.0", {"entity": ["symbol"], "expression": "current_price - price_sma_5"}
    )
    comes(client, "spread", {"spread": PRICES[-1] - FIVE})
    registry.activate(NEW)
    comes(client, "price_sma_5", {"price_sma_5": SIX})
    assert answered(client, "spread") == {"spread": PRICES[-1] - FIVE}
    registry.create_feature_version("spread", "2.0.0", {"parts": [NEW]}, "1.0.0")
    comes(client, "spread@2.0.0", {"spread@2.0.0": PRICES[-1] - SIX})


def test_changes_by_http(guarded: TestClient, registry: Registry) -> None:
    new = {"version": "3.0.0", "parent_version": "1.0.0", "schema": {"max_age": "10s"}}
    made = guarded.post("/features/price_sma_5/versions", json=new)
    assert made.status_code == 200, made.text
    assert made.json()["max_age_seconds"] == 10
    assert made.json()["active"] is False
    moved = guarded.post("/features/price_sma_5/activate", json={"version": "3.0.0"})
    assert moved.json() == {"name": "price_sma_5", "version": "3.0.0", "previous": "1.0.0"}
    # whoever is answered by the server that made a change sees it
    assert guarded.get("/features/price_sma_5").json()["version"] == "3.0.0"
    back = guarded.post("/features/price_sma_5/rollback")
    assert back.json() == {"name": "price_sma_5", "version": "1.0.0", "previous": "3.0.0"}
    audit = guarded.get("/features/price_sma_5/audit").json()
    line = audit["entries"][0]
    assert (line["actor"], line["action"]) == ("key deploy", "roll back")
    assert line["request_id"] == back.headers.get("x-request-id")
    older = guarded.get(f"/features/price_sma_5/audit?below={line['id']}").json()["entries"]
    assert older == audit["entries"][1:]
    edges = guarded.get("/features/portfolio_exposure/lineage").json()["upstream"]
    assert {"kind": "topic", "name": "ticks.position"} in [edge["used"] for edge in edges]


@pytest.mark.parametrize(
    ("path", "body", "status", "what"),
    [
        ("price_sma_5/activate", {"version": "9.0.0"}, 404, "there is no price_sma_5@9.0.0"),
        ("nothing/activate", {"version": "1.0.0"}, 404, "there is no feature 'nothing'"),
        ("price_sma_5/activate", {}, 422, "missing required field `version`"),
        ("price_sma_5/activate", {"version": "2.0.0", "x": 1}, 422, "unknown field `x`"),
        ("price_sma_20/rollback", {}, 409, "had no other version before"),
        ("price_sma_5/versions", {"version": "2.0"}, 422, "expression"),
        (
            "price_sma_5/versions",
            {"version": "2.0.0", "parent_version": "1.0.0"},
            409,
            "a version never changes",
        ),
        (
            "price_sma_5/versions",
            {"version": "4.0.0", "parent_version": "1.0.0", "schema": {"expression": "x" * 3000}},
            422,
            "3000 characters",
        ),
        ("price_sma_5/versions", {"version": "4.0.0", "schema": {"x": "y" * 300_000}}, 413, ""),
    ],
)
def test_changes_that_are_refused(
    guarded: TestClient, registry: Registry, path: str, body: Any, status: int, what: str
) -> None:
    before = registry.catalog()
    refused = guarded.post(f"/features/{path}", json=body)
    assert refused.status_code == status, refused.text
    assert what in refused.json()["detail"]
    assert registry.catalog() == before


def test_who_may_only_read_changes_nothing(guarded: TestClient, registry: Registry) -> None:
    made = api_keys.create(registry.engine, "model", [Scope.READ], "ann")
    reader = {"x-api-key": made.text}
    wait_for(
        "the key is known",
        lambda: guarded.get("/features", headers=reader).status_code == 200,
    )
    body = {"version": "2.0.0"}
    refused = guarded.post("/features/price_sma_5/activate", json=body, headers=reader)
    assert refused.status_code == 403
    assert guarded.get("/features/price_sma_5/audit", headers=reader).status_code == 200
    assert registry.catalog().active["price_sma_5"] == "1.0.0"


def test_a_server_without_keys_takes_no_changes(client: TestClient, registry: Registry) -> None:
    refused = client.post("/features/price_sma_5/activate", json={"version": "2.0.0"})
    assert refused.status_code == 403
    assert "TICKWELL_KEYS=required" in refused.json()["detail"]
    assert registry.catalog().active["price_sma_5"] == "1.0.0"


def test_an_experiment_decides_what_a_name_means(
    client: TestClient, registry: Registry, redis_database: str
) -> None:
    """By the entity; in every form that an answer has; pins and sets are not touched."""
    symbols = [f"S{number}" for number in range(40)]
    prices = [{"symbol": symbol, "price": price} for symbol in symbols for price in PRICES]
    tick(redis_database, registry.catalog(), "price", prices)
    steady = '[[set]]\nname = "steady"\nversion = "1"\nfeatures = ["price_sma_5@1.0.0"]\n'
    registry.apply(Text("sets.toml", registry.export() + steady))
    arms = (Arm("control", "1.0.0", 60), Arm("longer", "2.0.0", 40))
    experiment = Experiment("sma", "price_sma_5", arms)
    registry.start_experiment(experiment)
    wait_for("it runs", lambda: "variant" in online(client, "price_sma_5", symbol="S0"))
    expected = {symbol: arm_of(experiment, symbol) for symbol in symbols}
    assert len({arm.variant for arm in expected.values()}) == 2
    for symbol, arm in expected.items():
        value = online(client, "price_sma_5", symbol=symbol)
        assert (value["version"], value["variant"]) == (arm.version, arm.variant)
        assert value["experiment"] == "sma"
        assert value["value"] == (FIVE if arm.version == "1.0.0" else SIX)
    body: Any = {
        "features": ["price_sma_5", "current_price", NEW],
        "entities": [{"symbol": symbol} for symbol in symbols],
    }
    for one in client.post("/features/batch", json=body).json()["results"]:
        arm = expected[one["entity"]["symbol"]]
        assert one["features"]["price_sma_5"]["variant"] == arm.variant
        assert one["features"]["price_sma_5"]["version"] == arm.version
        assert one["features"][NEW]["value"] == SIX
        assert "variant" not in one["features"]["current_price"]
    compact = client.post("/features/batch?compact", json=body).json()["features"]
    versions = [expected[symbol].version for symbol in symbols]
    values = [FIVE if version == "1.0.0" else SIX for version in versions]
    assert compact["price_sma_5"]["version"] == versions
    assert compact["price_sma_5"]["value"] == values
    assert compact["price_sma_5"]["experiment"] == "sma"
    table = pa.ipc.open_stream(client.post("/features/batch", json=body, headers=ARROW).content)
    rows = table.read_all()
    assert rows["price_sma_5.version"].to_pylist() == versions
    assert rows["price_sma_5.variant"].to_pylist() == [
        expected[symbol].variant for symbol in symbols
    ]
    assert rows.schema.field("price_sma_5").metadata[b"experiment"] == b"sma"
    mixed = {"features": ["set:steady@1", "price_sma_5"], "entities": body["entities"]}
    assert client.post("/features/batch", json=mixed).status_code == 422
    feast = {"features": ["price:price_sma_5"], "entities": {"symbol": symbols}}
    columns = client.post("/get-online-features", json=feast).json()["results"]
    assert columns[1]["values"] == values
    registry.stop_experiment("sma", winner="longer")
    wait_for("it is over", lambda: "variant" not in online(client, "price_sma_5", symbol="S0"))
    for symbol in symbols:
        assert online(client, "price_sma_5", symbol=symbol)["value"] == SIX


def test_an_experiment_among_consumers(client: TestClient, registry: Registry) -> None:
    arms = (Arm("control", "1.0.0", 1), Arm("longer", "2.0.0", 1))
    experiment = Experiment("sma", "price_sma_5", arms, by="consumer")
    registry.start_experiment(experiment)
    wait_for("it runs", lambda: "variant" in online(client, "price_sma_5", symbol="A"))
    seen = set()
    for number in range(130):  # more than are counted by themselves
        name = f"model-{number}"
        body = {"features": ["price_sma_5"], "entity": {"symbol": "A"}}
        answer = client.post("/features/online", json=body, headers={"X-Consumer": name}).json()
        arm = arm_of(experiment, name)
        assert answer["features"]["price_sma_5"]["variant"] == arm.variant
        assert answer["features"]["price_sma_5"]["value"] == (
            FIVE if arm.version == "1.0.0" else SIX
        )
        seen.add(arm.variant)
    assert seen == {"control", "longer"}
