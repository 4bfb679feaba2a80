"""What logs say of a request, and how often."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.requests import Request

from serving.api import problems
from serving.api.request_ids import REQUEST_ID
from serving.api.request_log import KEY_NAME, BoundedLog, described

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/features/online",
    "client": ("10.0.0.7", 4711),
    "headers": [(b"authorization", b"Bearer tw_secret"), (b"cookie", b"secret")],
    "query_string": b"key=secret",
    KEY_NAME: "model",
    REQUEST_ID: "r-1",
}


def test_a_request_is_described_without_secrets() -> None:
    assert described(SCOPE) == {
        "method": "POST",
        "path": "/features/online",
        "client": "10.0.0.7",
        "request_id": "r-1",
        "key": "model",
    }


def test_what_a_client_makes_long_is_cut_and_what_is_not_there_is_left_out() -> None:
    found = described({"type": "http", "method": "A" * 999, "path": "/" * 9_999, "client": None})
    assert {name: len(value) for name, value in found.items()} == {"method": 200, "path": 200}


def test_a_bug_is_logged_with_its_request() -> None:
    error = ValueError("a bug")
    asyncio.run(problems.of_mistake(Request(SCOPE), error))
    assert getattr(error, "fields") == described(SCOPE)  # noqa: B009


def test_a_flood_is_counted_and_not_written(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = BoundedLog(logging.getLogger("test"), burst=3, seconds=10, clock=lambda: now)

    def written() -> list[object]:
        for _ in range(100):
            log.warning("refused", {"status": 401})
        found = [record.__dict__["fields"].get("left_out") for record in caplog.records]
        caplog.clear()
        return found

    assert written() == [None, None, None]
    now = 9.9
    assert written() == []
    now = 10.1
    assert written() == [197]
    now = 1_000.0
    assert written() == [99, None, None]
