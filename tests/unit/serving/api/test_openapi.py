"""The description of the API says what the server does."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.api.openapi import document
from serving.api.requests import BatchRequest, OnlineRequest, parse
from serving.api.scopes import READING_POSTS
from serving.app import ServerOptions, create_app
from serving.errors import InvalidRequest

DOCUMENT = json.loads(msgspec.json.encode(document()))


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_every_route_is_described_and_nothing_else() -> None:
    url = "redis://127.0.0.1:1/0"
    app = create_app(ServerOptions(url, url, "postgresql://u:p@127.0.0.1:1/none"))
    routes = set()
    for route in app.routes:
        assert isinstance(route, Route)
        path = re.sub(r":\w+}", "}", route.path)
        routes |= {(path, method.lower()) for method in route.methods or () if method != "HEAD"}
    files = {("/docs/begin.js", "get"), ("/docs/{file}", "get")}
    described = {(path, method) for path, of in DOCUMENT["paths"].items() for method in of}
    assert described == routes - files


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        found = DOCUMENT
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]


def test_every_operation_is_named_once_and_identified() -> None:
    operations = [one for of in DOCUMENT["paths"].values() for one in of.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
    for one in operations:
        for answer in one["responses"].values():
            assert answer["description"]
            assert "X-Request-Id" in answer["headers"]


def test_what_is_posted_may_be_too_late_and_too_much() -> None:
    every = {"Not ready", "Not in time", "Too many requests at once"}
    for path, of in DOCUMENT["paths"].items():
        if "post" in of:
            told = of["post"]["responses"]["503"]["description"]
            reading = {"No value could be read"} if path in READING_POSTS else set()
            assert set(told.split("; ")) == every | reading


def test_the_health_of_a_server_has_the_described_form() -> None:
    url = "redis://127.0.0.1:1/0"
    app = create_app(ServerOptions(url, url, "postgresql://u:p@127.0.0.1:1/none"))
    health = TestClient(app).get("/health").json()
    described = DOCUMENT["components"]["schemas"]["Health"]
    assert set(health) == set(described["properties"]) == set(described["required"])


def validator_of(name: str) -> Any:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(schema)


texts = st.sampled_from(["", "symbol", "AAPL", "a\n", "\x00", "ü", "x" * 128, "x" * 129, "x" * 256])
entities = st.dictionaries(texts, texts, max_size=3) | st.just({str(i): "a" for i in range(9)})
features = st.lists(texts, max_size=3) | st.just(["a"] * 100) | st.just(["a"] * 101)
online = st.fixed_dictionaries(
    {},
    optional={
        "features": features,
        "entity_type": st.none() | texts,
        "entity_value": st.none() | texts,
        "entity": st.none() | entities | texts,
        "more": st.none(),
    },
)
batch = st.fixed_dictionaries(
    {},
    optional={
        "features": features,
        "entities": st.lists(entities, max_size=3) | st.just([{"a": "b"}] * 501),
        "entity": entities,
    },
)


@given(online)
def test_a_body_about_one_entity_is_valid_where_the_server_takes_it(body: Any) -> None:
    try:
        parse(json.dumps(body).encode(), OnlineRequest).key()
    except InvalidRequest:
        is_taken = False
    else:
        is_taken = True
    assert validator_of("OnlineRequest").is_valid(body) == is_taken


@given(batch)
def test_a_body_about_many_is_valid_where_the_server_takes_it(body: Any) -> None:
    try:
        parse(json.dumps(body).encode(), BatchRequest)
    except InvalidRequest:
        is_taken = False
    else:
        is_taken = True
    assert validator_of("BatchRequest").is_valid(body) == is_taken


@pytest.mark.parametrize(("path", "name"), [("online", "OnlineRequest"), ("batch", "BatchRequest")])
def test_the_examples_are_valid(path: str, name: str) -> None:
    body = DOCUMENT["paths"][f"/features/{path}"]["post"]["requestBody"]["content"]
    assert validator_of(name).is_valid(body["application/json"]["example"])


def test_docstrings_are_plain_texts() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        assert "\n" not in schema["description"]
