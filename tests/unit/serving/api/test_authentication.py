"""No request passes without a key that allows it, whatever its headers are."""

from __future__ import annotations

import asyncio
import json
import logging
import tracemalloc
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.api_keys import ApiKey, Scope
from registry.formats import api_key
from serving.api.authentication import Authentication
from serving.api.request_log import KEY_NAME
from serving.errors import NotReady
from serving.metrics import Metrics
from serving.watch.api_keys import Keyring

NOW = datetime(2026, 11, 30, tzinfo=UTC)
ONLINE = ("POST", "/features/online")
RECORD = ("POST", "/features/price_sma_5/versions")
MAKE = ("POST", "/keys")
LIVE = ("GET", "/health/live")


class Counted(dict[bytes, ApiKey]):
    """Keys, and how often one was looked up."""

    looked_up = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        self.looked_up += 1
        return super().get(key, default)


class Keys:
    """Keys that are known, with their texts by name; none at first."""

    def __init__(self) -> None:
        self.known: Keyring | None = None
        self.texts: dict[str, bytes] = {}

    @property
    def keyring(self) -> Keyring:
        if self.known is None:
            raise NotReady("no keys are known yet")
        return self.known

    def add(self, name: str, *scopes: str, expires_at: datetime | None = None) -> bytes:
        """Adds a key, and returns its text."""
        text = api_key.make().encode()
        key = ApiKey(len(self.texts), name, api_key.digest(text), scopes, expires_at)
        self.known = Counted({**(self.known or {}), key.sha256: key})
        self.texts[name] = text
        return text


class Answer(NamedTuple):
    status: int
    headers: Mapping[bytes, bytes]
    document: Any
    key: str | None


class Asked:
    """The middleware in front of an application that answers 200 to everything."""

    def __init__(self, keys: Keys) -> None:
        self.now = NOW
        self.metrics = Metrics(list)
        self.app = Authentication(
            self._answer, keys, self.metrics, clock=lambda: self.now.timestamp()
        )

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"null"})

    def __call__(self, request: tuple[str, str], *headers: tuple[bytes, bytes]) -> Answer:
        return asyncio.run(self.ask(request, *headers))

    async def ask(self, request: tuple[str, str], *headers: tuple[bytes, bytes]) -> Answer:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        method, path = request
        given = [(b"host", b"a"), *headers, (b"accept", b"*/*")]
        scope = {"type": "http", "method": method, "path": path, "headers": given}
        await self.app(scope, self._receive, send)
        start, body = sent
        named = dict(start["headers"])
        document = json.loads(body["body"])
        return Answer(start["status"], named, document, scope.get(KEY_NAME))  # type: ignore[arg-type]

    async def _receive(self) -> Any:
        raise AssertionError("nothing needs the body")


def bearer(text: bytes) -> tuple[bytes, bytes]:
    return b"authorization", b"Bearer " + text


def x_api_key(text: bytes) -> tuple[bytes, bytes]:
    return b"x-api-key", text


@pytest.fixture
def keys() -> Keys:
    made = Keys()
    made.add("model", "read")
    made.add("deployment", "read", "write")
    made.add("ann", "admin")
    return made


@pytest.fixture
def asked(keys: Keys) -> Asked:
    return Asked(keys)


REQUESTS = {
    ONLINE: "read",
    RECORD: "write",
    MAKE: "admin",
    LIVE: None,
    ("GET", "/features"): "read",
}


@given(st.sets(st.sampled_from(Scope)), st.sampled_from(list(REQUESTS)), st.booleans())
def test_a_request_passes_with_the_scope_that_it_needs_and_no_other(
    scopes: set[Scope], request: tuple[str, str], as_bearer: bool
) -> None:
    keys = Keys()
    text = keys.add("one", *scopes)
    needed = REQUESTS[request]
    asked = Asked(keys)
    for _ in range(2):  # the second time from memory
        answer = asked(request, (bearer if as_bearer else x_api_key)(text))
        if needed is None:
            assert (answer.status, answer.key) == (200, None)
            continue
        assert answer.key == "one"
        assert answer.status == (200 if needed in scopes else 403)
        if answer.status == 403:
            assert answer.document["scope"] == needed
            assert needed in answer.document["detail"]
            assert b"insufficient_scope" in answer.headers[b"www-authenticate"]


def test_without_a_key_it_is_said_how_one_is_sent(asked: Asked) -> None:
    answer = asked(ONLINE)
    assert answer.status == 401
    assert answer.headers[b"www-authenticate"] == b'Bearer realm="tickwell"'
    assert answer.headers[b"content-type"] == b"application/problem+json"
    assert "Authorization: Bearer" in answer.document["detail"]
    assert "tickwell keys create" in answer.document["detail"]
    assert asked(LIVE).status == 200


def variants(text: bytes) -> Iterator[tuple[list[tuple[bytes, bytes]], int]]:
    """Headers that hold a key in some way, and the status of the answer."""
    right, other = bearer(text), bearer(api_key.make().encode())
    basic = (b"authorization", b"Basic dTpw")
    yield [right], 200
    yield [x_api_key(text)], 200
    yield [(b"authorization", b"bearer " + text)], 200
    yield [(b"authorization", b"BEARER   " + text)], 200
    yield [basic, x_api_key(text)], 200
    yield [x_api_key(text), basic], 200
    for headers in (
        *([right, right], [right, other], [other, right], [right, x_api_key(text)]),
        *([x_api_key(text), x_api_key(text)], [basic, basic, x_api_key(b"")]),
        *([basic], [basic, basic], [(b"authorization", text)], [(b"authorization", b"")]),
        *([(b"authorization", b"Bearer")], [(b"authorization", b"Bearer ")], [x_api_key(b"")]),
        *([x_api_key(b"Bearer " + text)], [(b"authorization", b"Bearer\t" + text)]),
        *([bearer(text[:-1])], [bearer(text + b" ,")], [bearer(text + b" " + text)]),
        *([bearer(text.swapcase())], [bearer(b'"' + text + b'"')], [other]),
        *([bearer(b"\xff" * 51)], [bearer(b"\x00" + text)], [bearer("tw_ключ".encode())]),
        *([bearer(b"a" * 60_000)], [(b"authorization", b"a" * 60_000)], [x_api_key(b"," * 60_000)]),
        *([(b"x-api-keys", text)], [(b"cookie", b"x-api-key=" + text)]),
    ):
        yield headers, 401


def test_headers_that_hold_a_key_in_some_way(
    keys: Keys, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    text = keys.texts["model"]
    for headers, status in variants(text):
        for _ in range(2):
            answer = asked(ONLINE, *headers)
            assert answer.status == status, headers
            assert text.decode() not in json.dumps(answer.document)
            assert answer.status == 200 or b"Bearer" in answer.headers[b"www-authenticate"]
    shown = caplog.text + repr([record.__dict__ for record in caplog.records])
    assert text.decode() not in shown
    assert text[:-1].decode() not in shown


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key"]), st.binary())))
def test_no_bytes_pass_that_hold_no_key(headers: list[tuple[bytes, bytes]]) -> None:
    keys = Keys()
    keys.add("one", *Scope)
    assert Asked(keys)(ONLINE, *headers).status == 401


def test_what_is_wrong_with_a_key_is_said(keys: Keys, asked: Asked) -> None:
    text = keys.texts["model"]

    def detail(sent: bytes) -> str:
        said: str = asked(ONLINE, bearer(sent)).document["detail"]
        return said

    assert "it has 40 characters and a key has 51: it was cut" in detail(text[:40])
    changed = text[:-1] + (b"A" if text[-1:] != b"A" else b"B")
    assert "checksum does not fit" in detail(changed)
    assert "begins with tw_" in detail(b"secret")
    assert "revoked, or is another server's" in detail(api_key.make().encode())


def test_a_key_that_expires_while_it_is_remembered(keys: Keys, asked: Asked) -> None:
    text = keys.add("short", "read", expires_at=NOW + timedelta(seconds=10))
    for seconds, status in ((0, 200), (9.999, 200), (10, 401), (11, 401)):
        asked.now = NOW + timedelta(seconds=seconds)
        answer = asked(ONLINE, bearer(text))
        assert answer.status == status
    assert "'short' expired at 2026-11-30T00:00:10+00:00" in answer.document["detail"]


def test_a_key_that_is_revoked_while_it_is_remembered(keys: Keys, asked: Asked) -> None:
    text = keys.texts["model"]
    assert asked(ONLINE, bearer(text)).status == 200
    before = dict(keys.keyring)
    keys.known = {sha256: key for sha256, key in before.items() if key.name != "model"}
    assert asked(ONLINE, bearer(text)).status == 401
    keys.known = before
    assert asked(ONLINE, bearer(text)).status == 200


def test_while_no_keys_are_known_nobody_passes(caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(Keys())
    for headers in ([], [bearer(api_key.make().encode())]):
        assert asked(ONLINE, *headers).status == 503
    assert asked(LIVE).status == 200
    assert not caplog.text


def test_a_header_is_worked_out_once(keys: Keys, asked: Asked) -> None:
    known = keys.keyring
    assert isinstance(known, Counted)
    right, wrong = bearer(keys.texts["model"]), bearer(api_key.make().encode())
    for header in (right, wrong):
        before = known.looked_up
        for _ in range(10):
            asked(ONLINE, header)
        assert known.looked_up == before + 1


def test_a_flood_of_wrong_keys_takes_neither_memory_nor_disk(
    keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    asked, right = Asked(keys), bearer(keys.texts["model"])

    async def flood() -> None:
        for number in range(20_000):
            length = 60_000 if number % 10 == 0 else 200
            wrong = bearer(api_key.make().encode() if number % 2 else b"%0*d" % (length, number))
            assert (await asked.ask(ONLINE, wrong)).status == 401

    assert asked(ONLINE, right).status == 200
    known = keys.keyring
    assert isinstance(known, Counted)
    tracemalloc.start()
    try:
        asyncio.run(flood())
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 3_000_000
    assert len(caplog.records) < 50
    before = known.looked_up
    assert asked(ONLINE, right).status == 200
    assert known.looked_up == before  # still remembered: wrong keys have a memory of their own


def test_what_is_logged_and_counted(
    keys: Keys, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    other = api_key.make().encode()
    asked(ONLINE)
    asked(ONLINE, bearer(other))
    asked(RECORD, bearer(keys.texts["model"]))
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [one["status"] for one in fields] == [401, 401, 403]
    assert fields[1]["fingerprint"] == api_key.digest(other).hex()[:12]
    assert fields[2]["key"] == "model"
    assert fields[2]["path"] == RECORD[1]
    text = asked.metrics.text().decode()
    for reason in ("no key", "not valid", "no scope"):
        assert f'tickwell_requests_refused_total{{reason="{reason}"}} 1.0' in text


def test_nothing_but_http_passes(asked: Asked) -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    keys: Any = Keys()
    middleware: Any = Authentication(app, keys, Metrics(list))
    for kind in ("lifespan", "websocket", "webtransport"):
        asyncio.run(middleware({"type": kind, "path": "/health", "headers": []}, None, None))
    assert reached == ["lifespan"]
