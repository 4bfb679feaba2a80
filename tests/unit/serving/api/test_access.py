"""Web pages of other origins, as a browser asks for them, with and without keys."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from registry.api_keys import ApiKey
from registry.formats import api_key
from serving.api.access import access
from serving.api.admission import Admission
from serving.api.deadlines import Deadlines
from serving.api.feature_routes import Content, FeatureRoute, ShortCut
from serving.metrics import Metrics
from tests.support.raw_http import exchange, listening

KEY = api_key.make()
PAGE, OTHER = "https://app.example", "https://evil.example"


class Keys:
    def __init__(self) -> None:
        sha256 = api_key.digest(KEY.encode())
        self.keyring = {sha256: ApiKey(1, "a", sha256, ("read",))}


def client(origins: tuple[str, ...], needs_keys: bool = True) -> TestClient:
    keys: Any = Keys() if needs_keys else None
    middleware = access(keys, Metrics(list), origins)

    async def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse("value")

    route = Route("/features/online", answer, methods=["POST"])
    return TestClient(Starlette(routes=[route], middleware=middleware))


def preflight(asked: TestClient, origin: str) -> Any:
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    return asked.options("/features/online", headers=headers)


def test_without_the_setting_no_page_may_ask() -> None:
    assert access(None, Metrics(list), ()) == []
    asked = client(())
    assert preflight(asked, PAGE).status_code == 401
    answer = asked.post("/features/online", headers={"origin": PAGE, "x-api-key": KEY})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("needs_keys", [True, False])
def test_a_page_of_the_setting_may_ask_and_another_may_not(needs_keys: bool) -> None:
    asked = client((PAGE,), needs_keys)
    allowed = preflight(asked, PAGE)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in allowed.headers
    assert preflight(asked, OTHER).status_code == 400
    answer = asked.post("/features/online", headers={"origin": OTHER, "x-api-key": KEY})
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_sees_why_it_is_refused_and_passes_with_a_key() -> None:
    asked = client((PAGE,))
    refused = asked.post("/features/online", headers={"origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE
    answer = asked.post("/features/online", headers={"origin": PAGE, "x-api-key": KEY})
    assert (answer.status_code, answer.text) == (200, "value")


def test_all_pages() -> None:
    assert preflight(client(("*",)), OTHER).headers["access-control-allow-origin"] == "*"


def test_an_answer_that_is_written_whole_has_the_headers_too() -> None:
    """On the server's own protocol, where a feature's answer goes out past what wraps `send`."""

    async def answer(scope: Any, body: bytes, deadline: Any) -> Content:
        return body, b"application/json", ()

    route = FeatureRoute(
        "/features/online", answer, Metrics(list), (Admission(10), Deadlines(60_000))
    )
    keys: Any = Keys()
    middleware = [*access(keys, Metrics(list), (PAGE,)), Middleware(ShortCut, routes=[route])]
    app = Starlette(middleware=middleware)

    async def ask(origin: str) -> bytes:
        head = f"POST /features/online HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{origin}"
        body = f"X-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n[]"
        async with listening(app, lifespan="off") as address:
            return await exchange(address, (head + body).encode())

    assert b"access-control" not in asyncio.run(ask(""))
    answered = asyncio.run(ask(f"Origin: {PAGE}\r\n"))
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"access-control-allow-origin: " + PAGE.encode() in answered
    assert answered.endswith(b"[]")
