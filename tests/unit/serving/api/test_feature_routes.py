"""A request of a feature route, as ASGI has it: bodies that come late, queries and forms."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from backports import zstd

from serving.api.answering import Form
from serving.api.feature_routes import FeatureRoute, feature_routes
from serving.metrics import Metrics
from tests.support.raw_http import answers, exchange, listening

BODY = {"type": "http.request", "body": b"{}", "more_body": False}


async def call(app: FeatureRoute, *messages: dict[str, Any], **scope: Any) -> tuple[int, Any]:
    """The status and the body of an answer; after `messages` nothing more comes."""
    sent, coming = [], list(messages)

    async def receive() -> Any:
        if coming:
            return coming.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"type": "http", "method": "POST", "query_string": b"", "headers": [], **scope}
    async with asyncio.timeout(5):
        await app(given, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def echo(scope: Any, body: bytes) -> tuple[bytes, bytes]:
    return body, b"text/plain"


@pytest.mark.parametrize(
    "messages",
    [(), ({"type": "http.request", "body": b"{", "more_body": True},)],
    ids=["nothing but the head", "a part"],
)
def test_a_body_that_does_not_come_is_not_waited_for(messages: Any) -> None:
    metrics = Metrics(list)
    route = FeatureRoute("/a", echo, metrics, body_seconds=0.05)
    status, body = asyncio.run(call(route, *messages))
    assert status == 503
    assert "did not come within 0.05 s" in json.loads(body)["detail"]
    assert b'tickwell_requests_total{route="/a",status="503"} 1.0' in metrics.text()


def test_a_body_in_parts_and_one_in_one() -> None:
    route = FeatureRoute("/a", echo, Metrics(list))
    parts = [{"type": "http.request", "body": b, "more_body": b != b"c"} for b in (b"a", b"", b"c")]
    assert asyncio.run(call(route, *parts)) == (200, b"ac")
    assert asyncio.run(call(route, BODY)) == (200, b"{}")
    assert asyncio.run(call(route, BODY, extensions=None)) == (200, b"{}")


class Answers:
    """Says what it is asked for."""

    async def one(self, body: bytes) -> bytes:
        return b"one"

    async def many(self, body: bytes, form: Form) -> bytes:
        return form.value.encode()


ARROW = b"application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("query", "accept", "form"),
    [
        (b"", b"*/*", b"objects"),
        (b"compact", b"application/json", b"compact"),
        (b"", ARROW, b"arrow"),
        (b"", b"text/html, " + ARROW.upper() + b";q=0.5", b"arrow"),
        (b"", ARROW + b";q=0, */*", b"objects"),
        (b"compact", ARROW + b" ; q=0.0", b"compact"),
        (b"", ARROW + b"s", b"objects"),
    ],
)
def test_the_form_that_is_asked_for(query: bytes, accept: bytes, form: bytes) -> None:
    answers: Any = Answers()
    _, batch = feature_routes(answers, Metrics(list))
    headers = [(b"host", b"a"), (b"accept", accept)]
    found = asyncio.run(call(batch, BODY, query_string=query, headers=headers))
    assert found == (200, form)


@pytest.mark.parametrize("query", [b"compact=false", b"&", b"compct", b"\xff", b"a" * 60_000])
def test_what_a_route_does_not_take_is_refused(query: bytes) -> None:
    answers: Any = Answers()
    for route in feature_routes(answers, Metrics(list)):
        status, body = asyncio.run(call(route, BODY, query_string=query))
        assert (status, b"this route takes" in body) == (422, True)


LARGE = b"[" + b"1," * 10_000 + b"1]"


@pytest.mark.parametrize("compress", [True, False])
def test_a_body_and_a_large_answer_may_be_compressed(compress: bool) -> None:
    async def answer(scope: Any, body: bytes) -> tuple[bytes, bytes]:
        return body, b"application/json"

    route = FeatureRoute("/a", answer, Metrics(list), compress=compress)

    def request(body: bytes) -> bytes:
        coded = gzip.compress(body)
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nAccept-Encoding: zstd\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % len(coded) + coded

    async def asked() -> bytes:
        async with listening(route) as address:
            last = (
                b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]"
            )
            return await exchange(address, request(LARGE), request(b"[1]"), last)

    received = asyncio.run(asked())
    large, small, last = answers(received)
    assert (small.body, last.body) == (b"[1]", b"[]")
    if compress:
        assert zstd.decompress(large.body) == LARGE
        assert len(large.body) < 1_000
    else:
        assert large.body == LARGE
    heads = received.split(b"\r\n\r\n")[0]
    assert (b"content-encoding: zstd" in heads) is compress
    assert (b"vary: accept-encoding" in heads) is compress


def test_what_is_too_large_once_it_is_decoded_is_refused() -> None:
    body = {"type": "http.request", "body": gzip.compress(bytes(300_000)), "more_body": False}
    headers = [(b"content-encoding", b"gzip")]
    route = FeatureRoute("/a", echo, Metrics(list))
    status, answer = asyncio.run(call(route, body, headers=headers))
    assert (status, json.loads(answer)["title"]) == (413, "Too large")
