"""What is too large or no request is refused with a problem document, in its turn."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import uvloop

from serving.api.request_heads import MAX_HEAD_BYTES, MAX_HEADERS
from tests.support.raw_http import Answer, answers, exchange, listening, run

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
GET = HEAD + b"\r\n"
LAST = HEAD + b"Connection: close\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
FITS = MAX_HEAD_BYTES - len(b"/" + b"Host: a\r\n" + b"A: \r\n")
"""Bytes that the value of a header A may have beside HEAD."""

LARGE = {
    "target": b"GET /" + b"p" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "header": HEAD + b"A: " + b"a" * (FITS + 1) + b"\r\n\r\n",
    "name": HEAD + b"a" * MAX_HEAD_BYTES + b": a\r\n\r\n",
    "headers": HEAD + (b"A: " + b"a" * 1_000 + b"\r\n") * 66 + b"\r\n",
    "number": HEAD + b"A:\r\n" * MAX_HEADERS + b"\r\n",
    "upgrade": HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + b"A:\r\n" * 98 + b"\r\n",
    "trailer": CHUNKED + b"A: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
    "trailers": CHUNKED + (b"A: " + b"a" * 1_000 + b"\r\n") * 66 + b"\r\n",
    "number of trailers": CHUNKED + b"A:\r\n" * (MAX_HEADERS + 1) + b"\r\n",
}
BROKEN = {
    "request line": b"GET\r\n\r\n",
    "method": b"NONE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "header": HEAD + b"a b: c\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"Host: b\r\n\r\n",
    "target": HEAD.replace(b"/", b"a:80", 1) + b"\r\n",
    "proxy": b"CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
    "framing": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
}
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
CUTS = pytest.mark.parametrize("cut", [1_000_000, 5_000, 997])


async def polite(scope: Any, receive: Any, send: Any) -> None:
    """Answers `ok` to a whole request, after a moment."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    await asyncio.sleep(0.05)
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


async def answered(sent: bytes, cut: int, app: Any = polite) -> list[Answer]:
    async with listening(app) as address:
        cuts = range(0, len(sent), cut)
        return answers(await exchange(address, *(sent[at : at + cut] for at in cuts)))


def assert_refused(answer: Answer, status: int) -> None:
    assert (answer.status, answer.kind) == (status, "application/problem+json")
    assert answer.connection == "close"
    document = json.loads(answer.body)
    assert list(document) == ["type", "title", "status", "detail", "request_id"]
    assert document["status"] == status
    assert document["detail"]


@LOOPS
@CUTS
@pytest.mark.parametrize("sent", LARGE.values(), ids=LARGE)
def test_a_head_over_a_limit_is_refused(sent: bytes, cut: int, loop: Any) -> None:
    (answer,) = run(answered(sent, cut), loop)
    assert_refused(answer, 431)


@CUTS
@pytest.mark.parametrize("sent", LARGE.values(), ids=LARGE)
def test_so_is_one_behind_another_request_which_has_its_answer(sent: bytes, cut: int) -> None:
    first, second = run(answered(GET + sent, cut), None)
    assert (first.status, first.body) == (200, b"ok")
    assert_refused(second, 431)


@CUTS
def test_heads_at_the_limits_are_answered(cut: int) -> None:
    large = HEAD + b"A: " + b"a" * FITS + b"\r\n\r\n"
    many = HEAD + b"A:\r\n" * (MAX_HEADERS - 1) + b"\r\n"
    trailers = CHUNKED + b"A:\r\n" * MAX_HEADERS + b"\r\n"
    found = run(answered(large + many + trailers + LAST, cut), None)
    assert [answer.status for answer in found] == [200] * 4


def test_what_never_ends_is_refused_before_its_end() -> None:
    async def unended() -> list[list[Answer]]:
        more = b"a" * (MAX_HEAD_BYTES + 20_000)
        heads = (b"GET /", HEAD, HEAD + b"A: ", CHUNKED + b"A: ", CHUNKED[:-3] + b"1;a=")
        return list(await asyncio.gather(*(answered(head + more, 5_000) for head in heads)))

    for (answer,) in run(unended(), None):
        assert_refused(answer, 431)


def test_a_large_body_is_no_large_head() -> None:
    body = HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000
    chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    found = run(answered(body + chunks + LAST, 10_000), None)
    assert [answer.status for answer in found] == [200] * 3


@LOOPS
@pytest.mark.parametrize("cut", [1_000, 1])
@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_is_refused(sent: bytes, cut: int, loop: Any) -> None:
    (answer,) = run(answered(sent, cut), loop)
    assert_refused(answer, 400)


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_the_requests_before_have_their_answers(sent: bytes) -> None:
    *before, last = run(answered(GET * 3 + sent + GET, 1_000), None)
    assert [(answer.status, answer.body) for answer in before] == [(200, b"ok")] * 3
    assert_refused(last, 400)


def test_an_answer_that_was_begun_gets_no_second_one() -> None:
    async def early(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

    async def late() -> bytes:
        async with listening(early) as address:
            return await exchange(address, head, b"1\r\n", b"x\r\n", b"no chunk\r\n\r\n")

    (answer,) = answers(run(late(), None))
    assert (answer.status, answer.body) == (200, b"ok")


def test_the_application_learns_that_the_rest_will_not_come() -> None:
    ended = asyncio.Event()

    async def observing(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    async def refused() -> list[Answer]:
        found = await answered(HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 50, observing)
        await asyncio.wait_for(ended.wait(), 5)
        return found

    (answer,) = run(refused(), None)
    assert_refused(answer, 400)


@LOOPS
def test_a_client_that_goes_on_sending_gets_the_answer(loop: Any) -> None:
    (answer,) = run(answered(LARGE["header"] + b"a" * 10_000_000, 1_000_000), loop)
    assert_refused(answer, 431)


async def write_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"a")
        await asyncio.sleep(0.05)
        await writer.drain()


def test_a_refused_client_that_stays_is_closed() -> None:
    async def staying() -> float:
        async with listening(polite, timeout_keep_alive=60) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(BROKEN["method"])
            await reader.read()  # the server has no more to say
            began = asyncio.get_running_loop().time()
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(write_on(writer), 10)
            writer.close()
            return asyncio.get_running_loop().time() - began

    assert 1 < run(staying(), None) < 4
