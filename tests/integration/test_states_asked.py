"""Versions in every state, asked for in every way: by name, alias, pin, set, derived, and in SQL.

One set-up serves all of it: for each state a feature, a set that pins the version in that state,
and a feature that is derived of it. An active version can be neither deprecated nor retired, so
those states are of a second version, and the name means the first one. A version of which no row is
stored was recorded after the last tick.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import psycopg2
import pyarrow as pa
import pytest
import redis
from psycopg2.errors import UndefinedColumn
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT
from starlette.testclient import TestClient

from registry.database.engine import connect
from registry.features_file import Text, read
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from serving.app import ServerOptions, create_app
from tests.support.both_stores import log_of
from tests.support.served import beating

PRICES = [100.0, 101.0, 102.0, 103.0, 104.0, 115.0]
FIRST, SECOND = sum(PRICES[-2:]) / 2, sum(PRICES[-3:]) / 3
"""What the first and the second version of a feature are of these, where they have a value."""

STATES = ("active", "standby", "deprecated", "retired", "warming", "unstored", "absent")
TWO_VERSIONS = ("standby", "deprecated", "retired")


class Said(NamedTuple):
    """What is answered: an HTTP status, and what is said of the value."""

    code: int
    status: str | None = None
    value: float | None = None


OK_FIRST, OK_SECOND = Said(200, "ok", FIRST), Said(200, "ok", SECOND)
WARMING, MISSING = Said(200, "warming"), Said(200, "missing")
GONE, NOT_THERE = Said(410), Said(404)

NAMED = {
    **dict.fromkeys(("active", *TWO_VERSIONS), OK_FIRST),
    "warming": WARMING,
    "unstored": MISSING,
    "absent": NOT_THERE,
}
PINNED = NAMED | {"standby": OK_SECOND, "deprecated": OK_SECOND, "retired": GONE}
ANSWERS = {"name": NAMED, "alias": NAMED, "pin": PINNED, "set": PINNED, "derived": PINNED}
"""By the way in which it is asked for. What pins a retired version is retired before it."""

IN_SQL = {state: said.value for state, said in NAMED.items() if state != "absent"}
"""A column is of the active version, and NULL where that has no value."""


def asked_as(way: str, state: str) -> str:
    version = "2.0.0" if state in TWO_VERSIONS else "1.0.0"
    return {
        "name": f"of_{state}",
        "alias": f"other_{state}",
        "pin": f"of_{state}@{version}",
        "set": f"set:{state}_set@1",
        "derived": f"from_{state}@1.0.0",
    }[way]


def answered_as(way: str, state: str) -> str:
    """The name under which it is answered."""
    return f"of_{state}" if way == "set" else asked_as(way, state)


def declare(registry: Registry, state: str, expression: str) -> None:
    """A feature whose version in question is in a state that recording it leaves it in."""
    settings = {"source": "price", "expression": expression, "aliases": [f"other_{state}"]}
    registry.create_feature_version(f"of_{state}", "1.0.0", settings)
    if state in TWO_VERSIONS:
        longer = {"expression": "mean(price, 3)"}
        registry.create_feature_version(f"of_{state}", "2.0.0", longer, "1.0.0")
    pin = asked_as("pin", state)
    derived = {"entity": ["symbol"], "expression": f"of_{state} * 1", "parts": [pin]}
    registry.create_feature_version(f"from_{state}", "1.0.0", derived)
    pinned = f'[[set]]\nname = "{state}_set"\nversion = "1"\nfeatures = ["{pin}"]\n'
    registry.apply(Text("sets.toml", registry.export() + pinned))


def give_up(registry: Registry) -> None:
    registry.deprecate("of_deprecated@2.0.0")
    # a first version is active, and only another one lets it be given up
    other = {"entity": ["symbol"], "expression": "of_retired * 2", "parts": ["of_retired@1.0.0"]}
    registry.create_feature_version("from_retired", "2.0.0", other)
    registry.activate("from_retired@2.0.0", without_history=True)
    for ref in ("set:retired_set@1", "from_retired@1.0.0", "of_retired@2.0.0"):
        registry.deprecate(ref)
        registry.retire(ref)


@pytest.fixture(scope="module")
def database_of_all(postgres: str, template: str) -> Iterator[str]:
    """A database of the module's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with closing(psycopg2.connect(postgres)) as connection:
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            yield f"{postgres.rsplit('/', 1)[0]}/{name}"
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def client(database_of_all: str, warm_redis: str) -> Iterator[TestClient]:
    """A server that has read versions in all states, and six ticks of one symbol in both stores."""
    with redis.Redis.from_url(warm_redis) as store:
        store.flushall()
    engine = connect(database_of_all)
    record(engine, read(), "ann")
    registry = Registry(engine, By("ann"))
    for state in ("active", *TWO_VERSIONS):
        declare(registry, state, "mean(price, 2)")
    declare(registry, "warming", "mean(price, 50)")
    with log_of(registry.catalog(), warm_redis, database_of_all) as log:
        log.add("price", *({"symbol": "A", "price": price} for price in PRICES))
    declare(registry, "unstored", "mean(price, 2)")
    give_up(registry)
    engine.dispose()
    options = ServerOptions(warm_redis, "", database_of_all)
    with (
        beating(warm_redis),
        TestClient(create_app(options), raise_server_exceptions=False) as made,
    ):
        yield made


def one(client: TestClient, name: str, answered: str) -> Said:
    body = {"features": [name], "entity": {"symbol": "A"}}
    found = client.post("/features/online", json=body)
    if found.status_code != 200:
        return Said(found.status_code)
    value = found.json()["features"][answered]
    return Said(200, value["status"], value["value"])


def batch(client: TestClient, name: str, answered: str) -> Said:
    found = client.post("/features/batch", json=of_twenty(name))
    if found.status_code != 200:
        return Said(found.status_code)
    each = [result["features"][answered] for result in found.json()["results"]]
    (said,) = {Said(200, value["status"], value["value"]) for value in each}
    return said


def compact(client: TestClient, name: str, answered: str) -> Said:
    found = client.post("/features/batch?compact", json=of_twenty(name))
    if found.status_code != 200:
        return Said(found.status_code)
    column = found.json()["features"][answered]
    (value,), status = set(column["value"]), column["status"]
    if not isinstance(status, str):
        (status,) = set(status)
    return Said(200, status, value)


def arrow(client: TestClient, name: str, answered: str) -> Said:
    headers = {"accept": "application/vnd.apache.arrow.stream"}
    found = client.post("/features/batch", json=of_twenty(name), headers=headers)
    if found.status_code != 200:
        return Said(found.status_code)
    table = pa.ipc.open_stream(found.content).read_all()
    (value,) = set(table[answered].to_pylist())
    (status,) = set(table[f"{answered}.status"].to_pylist())
    return Said(200, status, value)


def of_twenty(name: str) -> dict[str, Any]:
    """A question that is answered by columns: few entities are answered one by one."""
    return {"features": [name], "entities": [{"symbol": "A"}] * 20}


FEAST = {"PRESENT": "ok", "NULL_VALUE": "warming", "NOT_FOUND": "missing"}


def feast(client: TestClient, name: str, answered: str) -> Said:
    """A set is what Feast calls a feature service, a source a view."""
    body: dict[str, Any] = {"entities": {"symbol": ["A"]}}
    if name.startswith("set:"):
        body["feature_service"] = name
    else:
        body["features"] = [f"price:{name}"]
    found = client.post("/get-online-features", json=body)
    if found.status_code != 200:
        return Said(found.status_code)
    answer = found.json()
    column = answer["results"][answer["metadata"]["feature_names"].index(answered)]
    return Said(200, FEAST[column["statuses"][0]], column["values"][0])


@pytest.mark.parametrize("form", [one, batch, compact, arrow, feast])
@pytest.mark.parametrize("way", ANSWERS)
@pytest.mark.parametrize("state", STATES)
def test_what_is_answered(
    client: TestClient, state: str, way: str, form: Callable[[TestClient, str, str], Said]
) -> None:
    assert form(client, asked_as(way, state), answered_as(way, state)) == ANSWERS[way][state]


@pytest.mark.parametrize("state", STATES)
def test_what_sql_says(client: TestClient, database_of_all: str, state: str) -> None:
    """`client` has the rows stored."""
    statement = f"SELECT of_{state} FROM features.price ORDER BY event_time, sequence"
    with closing(psycopg2.connect(database_of_all)) as connection, connection.cursor() as cursor:
        if state == "absent":
            with pytest.raises(UndefinedColumn):
                cursor.execute(statement)
            return
        cursor.execute(statement)
        found = [value for (value,) in cursor.fetchall()]
    assert len(found) == len(PRICES)
    assert found[-1] == IN_SQL[state]


def test_only_what_is_deprecated_says_so(client: TestClient) -> None:
    """Under the names that mean it; what is derived of it is not deprecated."""
    body = {"entity": {"symbol": "A"}}
    for state in ("active", "standby", "deprecated", "warming", "unstored"):
        for way in ("name", "pin", "set", "derived"):
            asked = {**body, "features": [asked_as(way, state)]}
            found = client.post("/features/online", json=asked).json()["features"]
            is_pinned = way in ("pin", "set")
            says = "deprecated" in found[answered_as(way, state)]
            assert says == (state == "deprecated" and is_pinned), (state, way)
