"""Every answer says which request it is of."""

from __future__ import annotations

import http.client
import io
import json
import os
from typing import Any

import pytest
import uvloop

from serving.api.request_ids import REQUEST_ID, RequestIds, id_of
from tests.support.raw_http import exchange, listening, run

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
LAST = HEAD + b"Connection: close\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the id in the scope."""
    answer = scope[REQUEST_ID].encode()
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def found(received: bytes) -> list[tuple[str, bytes]]:
    """The id in the head and the body of each answer."""
    file = io.BytesIO(received)
    file.makefile = lambda mode: file  # type: ignore[attr-defined]
    file.close = lambda: None  # type: ignore[method-assign]
    answers = []
    while file.tell() < len(received):
        response = http.client.HTTPResponse(file)  # type: ignore[arg-type]
        response.begin()
        ids = response.headers.get_all("x-request-id")
        assert ids is not None
        assert len(ids) == 1
        answers.append((ids[0], response.read()))
    return answers


async def answered(*packets: bytes) -> list[tuple[str, bytes]]:
    async with listening(echo) as address:
        return found(await exchange(address, *packets))


@pytest.mark.parametrize(
    "given", [b"a", b"0b6d3b5e-6d5a-4c0b-8d5c-2a1f6f3c9b1e", b"!" * 128, b'"{}\\~']
)
def test_a_sane_id_of_the_client_is_kept(given: bytes) -> None:
    sent = LAST + b"X-Request-ID: " + given + b"\r\n\r\n"
    assert run(answered(sent), uvloop.new_event_loop) == [(given.decode(), given)]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"X-Request-Id:\r\n",
        b"X-Request-Id: a b\r\n",
        b"X-Request-Id: \xc3\xbc\r\n",
        b"X-Request-Id: a\tb\r\n",
        b"X-Request-Id: " + b"a" * 129 + b"\r\n",
        b"X-Request-Id: a\r\nX-Request-Id: a\r\n",
    ],
    ids=["none", "empty", "a blank", "no ASCII", "a control", "long", "two"],
)
def test_else_one_is_made(header: bytes) -> None:
    pipelined = (HEAD + header + b"\r\n") * 3 + LAST + header + b"\r\n"
    answers = run(answered(pipelined), None)
    ids = [one for one, _ in answers]
    assert len(set(ids)) == 4
    assert all(one.isascii() and 16 < len(one) <= 128 for one in ids)
    assert [body.decode() for _, body in answers] == ids


def test_what_is_refused_has_one_too() -> None:
    """In its head, whether the refused head, its body or nothing of it had come."""
    given = b"X-Request-Id: mine\r\n"
    long = HEAD + given + b"A: " + b"a" * 70_000 + b"\r\n\r\n"
    chunked = HEAD + given + b"Transfer-Encoding: chunked\r\n\r\nnone\r\n"
    for sent, expected in ((long, "mine"), (chunked, "mine"), (b"\r\n\x00", None)):
        (identity, body), *more = run(answered(sent), None)
        assert more == []
        assert json.loads(body)["request_id"] == identity
        assert identity == expected or (expected is None and len(identity) > 16)


def test_a_refusal_does_not_have_the_id_of_the_request_before() -> None:
    first, second = run(answered(HEAD + b"X-Request-Id: one\r\n\r\n", b"NONE\r\n\r\n"), None)
    assert first[0] == "one"
    assert second[0] != "one"


def test_a_process_that_is_forked_makes_others() -> None:
    ids = RequestIds()
    ids.make()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, ids.make())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        other = pipe.read()
    mine = ids.make()
    assert other.split(b"-")[0] != mine.split(b"-")[0]
    assert (mine.split(b"-")[1], other.split(b"-")[1]) == (b"2", b"1")


def test_other_headers_do_not_count() -> None:
    headers = [(b"x-request-idx", b"a"), (b"request-id", b"b")]
    assert id_of([name for name, _ in headers], headers) not in (b"a", b"b")
