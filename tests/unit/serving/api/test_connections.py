"""Requests are answered in order; connections on which none comes do not stay."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.api.connections import Connection
from serving.api.exchanges import EXCHANGE
from tests.support.raw_http import Address, Answer, answers, exchange, listening, run

KEEP_ALIVE = 2
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
GET = HEAD + b"\r\n"
LAST = HEAD + b"Connection: close\r\n\r\n"
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what was asked; a path that begins with /slow is answered late."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await asyncio.sleep(1.5 * KEEP_ALIVE if scope["path"] == "/slow" else 0)
    names = [name.decode() for name, _ in scope["headers"]]
    asked = [scope["method"], scope["path"], scope["query_string"].decode(), names, body.decode()]
    answer = json.dumps(asked).encode()
    headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def answered(*packets: bytes, app: Any = echo, **config: Any) -> list[Answer]:
    async with listening(app, **config) as address:
        return answers(await exchange(address, *packets))


def asked(answer: Answer) -> tuple[str, str, str, str]:
    """The method, path, query and body that the application saw."""
    method, path, query, _, body = json.loads(answer.body)
    return method, path, query, body


async def counted(address: Address, *pieces: bytes) -> int:
    """How many answers come until the server closes; the answer to a whole request is awaited."""
    reader, writer = await asyncio.open_connection(*address)
    count = 0
    for piece in pieces:
        writer.write(piece)
        if piece.endswith(b"\r\n\r\n"):
            await reader.readuntil(b'""]')
            count += 1
    assert await asyncio.wait_for(reader.read(), 4 * KEEP_ALIVE) == b""
    writer.close()
    return count


async def answer_first(scope: Any, receive: Any, send: Any) -> None:
    """Answers before the body has come."""
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5 * KEEP_ALIVE)
    headers = [(b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'""]'})


@LOOPS
def test_a_connection_without_another_request_is_closed(loop: Any) -> None:
    async def all_at_once() -> list[int]:
        async with listening(answer_first, timeout_keep_alive=KEEP_ALIVE) as address:
            conversations = (
                counted(address),
                counted(address, HEAD),
                counted(address, GET, GET),
                counted(address, GET.replace(b"/", b"/slow", 1), HEAD),
                counted(address, HEAD + b"Content-Length: 9\r\n\r\n", b"x"),
                counted(address, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0\r\nA"),
            )
            return list(await asyncio.gather(*conversations))

    assert run(all_at_once(), loop) == [0, 0, 2, 1, 1, 1]


def test_single_bytes_do_not_postpone_the_end() -> None:
    async def seconds(address: Address, first: bytes) -> float:
        clock = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(*address)
        if first:
            writer.write(first)
            await reader.readuntil(b'""]')
        began, ended = clock.time(), asyncio.create_task(reader.read())
        for byte in HEAD + b"A: " + b"a" * 1000:
            if (await asyncio.wait([ended], timeout=0.05))[0]:
                break
            writer.write(bytes([byte]))
        assert ended.done()
        writer.close()
        return clock.time() - began

    async def both() -> tuple[float, float]:
        async with listening(echo, timeout_keep_alive=KEEP_ALIVE) as address:
            return await asyncio.gather(seconds(address, b""), seconds(address, GET))

    for took in run(both(), None):
        assert 0.9 * KEEP_ALIVE < took < 1.5 * KEEP_ALIVE


def test_a_body_may_take_longer_than_the_timer() -> None:
    async def slowly() -> list[Answer]:
        async with listening(echo, timeout_keep_alive=1) as address:
            head = LAST.replace(b"GET", b"POST")[:-2] + b"Content-Length: 15\r\n\r\n"
            reader, writer = await asyncio.open_connection(*address)
            writer.write(head)
            for _ in range(15):
                await asyncio.sleep(0.1)
                writer.write(b"x")
            received = await reader.read()
            writer.close()
            return answers(received)

    (answer,) = run(slowly(), None)
    assert asked(answer) == ("POST", "/", "", "x" * 15)


@LOOPS
def test_requests_of_one_packet_are_answered_in_their_order(loop: Any) -> None:
    paths = [f"/{number}" for number in range(1_000)]
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths)
    found = run(answered(requests + LAST), loop)
    assert [asked(answer)[1] for answer in found] == [*paths, "/"]


def test_requests_that_wait_are_not_parsed_all_at_once() -> None:
    waiting = asyncio.Event()
    begun = 0

    class Counted(Connection):
        def on_message_begin(self) -> None:
            nonlocal begun
            begun += 1
            super().on_message_begin()

    async def wait(scope: Any, receive: Any, send: Any) -> None:
        await waiting.wait()
        await echo(scope, receive, send)

    async def flooded() -> tuple[int, int]:
        async with listening(wait, Counted) as address:
            answering = asyncio.create_task(exchange(address, GET * 2_000 + LAST))
            await asyncio.sleep(0.5)
            before = begun
            waiting.set()
            return before, len(answers(await answering))

    before, count = run(flooded(), None)
    assert 1 < before <= 4_096 // len(GET) + 1
    assert count == 2_001


def test_a_url_as_target_is_routed_by_its_path() -> None:
    targets = [b"http://h:80/p%20q?x=1", b"http://h", b"HTTP://h?x=1", b"//h/p", b"/a?b?c"]
    requests = [HEAD.replace(b"/", target, 1) + b"\r\n" for target in targets]
    found = run(answered(*requests, LAST), None)
    assert [asked(answer)[1:3] for answer in found[:-1]] == [
        ("/p q", "x=1"),
        ("/", ""),
        ("/", "x=1"),
        ("//h/p", ""),
        ("/a", "b?c"),
    ]


@LOOPS
def test_head_has_the_length_of_get_and_no_body(loop: Any) -> None:
    async def live(request: Request) -> Response:
        return Response(b"well", media_type="text/plain")

    app = Starlette(routes=[Route("/", live)])

    async def both() -> bytes:
        async with listening(app) as address:
            return await exchange(address, GET.replace(b"GET", b"HEAD") + LAST)

    head, get = answers(run(both(), loop), ["HEAD", "GET"])
    assert (head.status, head.length, head.body) == (200, "4", b"")
    assert (get.status, get.length, get.body) == (200, "4", b"well")


UPGRADE = (
    b"Connection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
)


@pytest.mark.parametrize("cut", [1, 40, 10_000])
def test_an_upgrade_is_not_made_and_the_request_answered(cut: int) -> None:
    post = HEAD.replace(b"GET", b"POST") + UPGRADE
    sent = b"".join(
        [
            HEAD.replace(b"/", b"/ws", 1) + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            post + b"Content-Length: 14\r\n\r\nGET /x HTTP/1.",
            post + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            LAST,
        ]
    )
    cuts = range(0, len(sent), cut)
    found = run(answered(*(sent[start : start + cut] for start in cuts)), None)
    assert [asked(answer) for answer in found] == [
        ("GET", "/ws", "", ""),
        ("POST", "/", "", "GET /x HTTP/1."),
        ("POST", "/", "", "abc"),
        ("GET", "/", "", ""),
    ]


def test_trailers_do_not_pass_for_headers() -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n"
    first, _ = run(answered(chunked, LAST), None)
    assert json.loads(first.body)[3] == ["host", "transfer-encoding"]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request, of one of the kinds that differ in how they are framed."""
    path = draw(st.sampled_from([b"/", b"/a%20b?c=d", b"/long/" + b"p" * 5_000]))
    body = draw(st.sampled_from([b"", b"{}", b"x" * 9_000, b"GET / HTTP/1.1\r\n\r\n"]))
    kind = draw(st.sampled_from(["get", "post", "chunked", "expect"]))
    if kind == "get":
        return b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nAccept:  text/html\r\n"
    if kind == "chunked":
        half = len(body) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:half], body[half:]) if c)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nT: 1\r\n\r\n"
    expect = b"Expect: 100-continue\r\n" if kind == "expect" else b""
    return head + expect + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@given(st.lists(requests(), max_size=4), st.lists(st.integers(0, 10_000), max_size=6))
@settings(max_examples=60)
def test_the_cuts_between_packets_change_no_answer(several: list[bytes], cuts: list[int]) -> None:
    sent = b"".join([*several, LAST])
    edges = [0, *sorted({cut % len(sent) for cut in cuts} - {0}), len(sent)]
    packets = [sent[start:end] for start, end in pairwise(edges)]

    async def both() -> tuple[bytes, bytes]:
        async with listening(echo) as ours, listening(echo, H11Protocol) as oracle:
            return await asyncio.gather(exchange(ours, *packets), exchange(oracle, sent))

    ours, oracle = (answers(received) for received in run(both(), None))
    assert len(ours) == len(several) + 1
    assert ours == oracle


async def first_message(scope: Any, receive: Any, send: Any) -> None:
    """Says whether the connection told that the whole body is there, and whether it was."""
    told = EXCHANGE in (scope.get("extensions") or ())
    message = await receive()
    answer = json.dumps([told, not message["more_body"], len(message["body"])]).encode()
    while message["more_body"]:
        message = await receive()
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
SIZED = POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n"
CHUNKED = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
TWO = POST + b"Content-Length: 1\r\n\r\na" + SIZED + b"b"
WHOLE = [True, True]
HALF = [False, False, 1]


@pytest.mark.parametrize(
    ("packets", "expected"),
    [
        ([SIZED + b"ab"], [[*WHOLE, 2]]),
        ([SIZED + b"a", b"b"], [HALF]),
        ([CHUNKED + b"1\r\na\r\n0\r\n\r\n"], [[*WHOLE, 1]]),
        ([CHUNKED + b"1\r\na\r\n", b"0\r\n\r\n"], [HALF]),
        ([b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\na"], [[*WHOLE, 1]]),
        ([TWO, b"c"], [[*WHOLE, 1], HALF]),
    ],
    ids=["whole", "in two", "chunked", "a chunk first", "HTTP/1.0", "pipelined"],
)
def test_an_application_is_told_that_the_whole_body_is_there(
    packets: list[bytes], expected: list[Any]
) -> None:
    """Never where it is not: the application waits for the rest without a timer then."""
    found = run(answered(*packets, app=first_message), uvloop.new_event_loop)
    assert [json.loads(answer.body) for answer in found] == expected


def test_an_application_is_not_told_so_of_a_body_that_comes_after_its_head() -> None:
    found = run(answered(SIZED, b"ab", app=first_message), uvloop.new_event_loop)
    assert not json.loads(found[0].body)[0]
