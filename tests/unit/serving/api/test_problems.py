"""Errors as problem documents."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from starlette.requests import Request

from serving.api import problems
from serving.errors import ServingError, UnknownFeature

REQUEST = Request({"type": "http", "method": "GET", "path": "/x", "headers": []})


@pytest.mark.parametrize("kind", ServingError.__subclasses__())
def test_every_error_has_a_status_and_a_title(kind: type[ServingError]) -> None:
    error = kind("what was wrong")
    response = asyncio.run(problems.of_serving(REQUEST, error))
    document = msgspec.json.decode(response.body)
    assert 400 <= response.status_code == problems.status_of(error) == document["status"] < 600
    assert document["title"]
    assert document["detail"] == "what was wrong"


def test_the_context_of_an_error_extends_its_document() -> None:
    error = UnknownFeature("there is no feature 'x'", feature="x")
    response = asyncio.run(problems.of_serving(REQUEST, error))
    assert response.media_type == "application/problem+json"
    assert response.body == (
        b'{"type":"about:blank","title":"Unknown feature","status":404,'
        b'"detail":"there is no feature \'x\'","feature":"x"}'
    )


def test_a_bug_shows_the_client_no_internals() -> None:
    response = asyncio.run(problems.of_mistake(REQUEST, ValueError("secret")))
    assert response.status_code == 500
    assert b"secret" not in response.body
