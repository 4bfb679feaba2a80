"""A registry that fails says nothing of a message; one that answers is asked once."""

from __future__ import annotations

import base64
import json
import pickle
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import pytest
import trustme

from pipelines.errors import SchemaRegistryUnavailable
from pipelines.ticks.wire.schema_registry import (
    RegistryConnection,
    SchemaRegistry,
    SchemaTooLarge,
    SchemaUnknown,
)
from tests.support.registry_server import RegistryServer

PASSWORD = "se-cr:et"


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    server = RegistryServer()
    yield server
    server.stop()


def asked_as(server: RegistryServer, **more: Any) -> SchemaRegistry:
    return SchemaRegistry.of(RegistryConnection(server.url, **more))


def test_a_schema_by_its_id_and_by_its_guid(server: RegistryServer) -> None:
    number = server.register('"long"')
    for name in (number, UUID(server.schemas[number]["guid"])):
        registry = asked_as(server)
        for _ in range(2):
            assert registry.schema(name) == ("AVRO", '"long"', ())
    assert [path.partition("?")[0] for path, _ in server.asked] == [
        f"/schemas/ids/{number}",
        f"/schemas/guids/{server.schemas[number]['guid']}",
    ]


def test_what_a_schema_refers_to_comes_before_it(server: RegistryServer) -> None:
    def reference(name: str, number: int) -> dict[str, Any]:
        return {"name": name, "subject": f"subject-{number}", "version": 1}

    bottom = server.register("bottom01", "PROTOBUF")
    left = server.register("left", "PROTOBUF", [reference("bottom", bottom)])
    right = server.register("right001", "PROTOBUF", [reference("bottom", bottom)])
    top = server.register("topp", "PROTOBUF", [reference("left", left), reference("right", right)])
    found = asked_as(server).schema(top, "serialized")
    assert found.references == (
        ("bottom", "bottom01"), ("left", "left"), ("right", "right001"),
    )  # fmt: skip
    assert all("format=serialized" in path for path, _ in server.asked)
    missing = server.register('"x"', references=[reference("gone", 99)])
    with pytest.raises(SchemaRegistryUnavailable, match="it has no version 1 of subject-99, which"):
        asked_as(server).schema(missing)


def test_the_user_is_sent_and_never_shown(server: RegistryServer) -> None:
    number = server.register('"long"')
    connection = RegistryConnection(server.url, "user", PASSWORD)
    SchemaRegistry.of(connection).schema(number)
    sent = f"user:{PASSWORD}".encode()
    assert server.asked[-1][1] == f"Basic {base64.b64encode(sent).decode()}"
    server.failure = 401, {"error_code": 40101, "message": "Unauthorized"}
    with pytest.raises(SchemaRegistryUnavailable) as error:
        SchemaRegistry.of(connection).schema(number + 1)
    assert "answers 401: Unauthorized (TICKWELL_SCHEMA_REGISTRY_USERNAME" in str(error.value)
    for shown in (str(error.value), repr(connection)):
        assert PASSWORD not in shown
    assert pickle.loads(pickle.dumps(connection)) == connection


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            (500, {"error_code": 50001, "message": "Error in\nthe backend"}),
            "answers 500: Error in the",
        ),
        ((503, b"<html>no</html>"), "answers 503"),
        ((403, {"error_code": 40301, "message": "Forbidden"}), "and …_PASSWORD say who asks"),
        ((404, b"<html>nothing here</html>"), "(TICKWELL_SCHEMA_REGISTRY is to be the registry's"),
        ((404, {"error_code": 404, "message": "HTTP 404 Not Found"}), "answers 404: HTTP 404"),
        ((404, {"message": "no such route"}), "answers 404"),
        ((200, b"<html>log in</html>"), "(TICKWELL_SCHEMA_REGISTRY is to be the registry's own"),
        ((200, {"hello": "world"}), "its answer holds no schema"),
        ((200, ["hello"]), "the schema registry at"),
        ((302, b""), "(TICKWELL_SCHEMA_REGISTRY is to be the URL that it redirects to)"),
    ],
)
def test_an_answer_that_is_none(server: RegistryServer, failure: Any, said: str) -> None:
    number = server.register('"long"')
    registry = SchemaRegistry(server.url, connect_to(server))
    server.failure = failure
    for _ in range(2):
        with pytest.raises(SchemaRegistryUnavailable) as error:
            registry.schema(number)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    server.failure = None
    assert registry.schema(number).text == '"long"'


def connect_to(server: RegistryServer, **more: Any) -> Any:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    return lambda: SchemaRegistryClient({"url": server.url, "max.retries": 0, **more})


def test_a_registry_that_is_away_or_silent(server: RegistryServer) -> None:
    number = server.register('"long"')
    registry = asked_as(server)
    server.stop()
    with pytest.raises(SchemaRegistryUnavailable, match="ConnectError"):
        registry.schema(number)
    server.start()
    assert registry.schema(number).text == '"long"'
    answering = Event()
    server.failure = lambda: (answering.wait(5), (500, {}))[1]
    silent = SchemaRegistry(server.url, connect_to(server, timeout=0.2))
    with pytest.raises(SchemaRegistryUnavailable, match="ReadTimeout"):
        silent.schema(number)
    answering.set()


def test_a_certificate_of_an_authority_of_ones_own(tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = RegistryServer(context)
    try:
        number = server.register('"long"')
        with pytest.raises(SchemaRegistryUnavailable, match="TICKWELL_SCHEMA_REGISTRY_CA names"):
            asked_as(server).schema(number)
        assert asked_as(server, ca=str(tmp_path / "ca.pem")).schema(number).text == '"long"'
    finally:
        server.stop()


def test_a_call_that_takes_long_is_told_while_it_lasts(server: RegistryServer) -> None:
    """A worker says what it waits for before the call has failed."""
    number = server.register('"long"')
    registry, answering, arrived = asked_as(server), Event(), Event()

    def answer() -> tuple[int, Any]:
        arrived.set()
        answering.wait(60)
        return server.answer(f"/schemas/ids/{number}")

    server.failure = answer
    thread = Thread(target=registry.schema, args=[number])
    thread.start()
    arrived.wait(30)
    until = time.monotonic() + 30
    while registry.patience.reason is None and time.monotonic() < until:
        time.sleep(0.05)
    assert "the schema registry has not answered for" in str(registry.patience.reason)
    answering.set()
    thread.join()
    assert registry.patience.reason is None


def test_an_id_that_is_unknown_is_asked_for_each_time(server: RegistryServer) -> None:
    """What a registry has not today it may have tomorrow."""
    registry = asked_as(server)
    for _ in range(3):
        with pytest.raises(SchemaUnknown, match="it has no schema 1"):
            registry.schema(1)
    assert len(server.asked) == 3
    assert registry.schema(server.register('"long"')).text == '"long"'


def test_a_registry_that_gives_protobuf_as_text(server: RegistryServer) -> None:
    """That says nothing of a message, and may be mended while the worker waits."""
    number = server.register('syntax = "proto3"; message Trade {}', "PROTOBUF")
    registry = asked_as(server)
    for _ in range(2):
        with pytest.raises(SchemaRegistryUnavailable, match="takes no `format=serialized`"):
            registry.schema(number, "serialized")
    server.schemas[number]["schema"] = "CgR0ZXN0"
    assert registry.schema(number, "serialized").text == "CgR0ZXN0"
    other = server.register('"long"')
    assert registry.schema(other, "serialized") == ("AVRO", '"long"', ())


def test_a_schema_that_is_too_large(server: RegistryServer) -> None:
    large = server.register(json.dumps("x" * (1 << 20)))
    half = server.register(json.dumps("x" * (1 << 19)))
    reference = {"subject": f"subject-{half}", "version": 1}
    both = server.register('"x"', references=[{**reference, "name": n} for n in "ab"])
    for number in (large, both):
        with pytest.raises(SchemaTooLarge, match="over 1048576 bytes"):
            asked_as(server).schema(number)
