"""Requests that are had and answered whole are answered as by ASGI's messages, to the byte."""

from __future__ import annotations

import re
from typing import Any

import pytest
import uvloop

from serving.api.exchanges import EXCHANGE, Exchange, lines_of
from tests.support.raw_http import answers, exchange, listening, run

IDENTIFIED = b"X-Request-Id: mine\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n" + IDENTIFIED + b"Content-Length: 2\r\n\r\n"
LAST = POST.replace(b"Host", b"Connection: close\r\nHost")
OLD = b"POST / HTTP/1.0\r\n" + IDENTIFIED + b"Content-Length: 2\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + IDENTIFIED + b"\r\n"
EXPECTING = LAST.replace(b"Host", b"Expect: 100-continue\r\nHost")
DATE = re.compile(rb"date: [^\r]*\r\n")


async def by_messages(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Whole:
    """The same, whole where it may be; `taken` says of each request whether it was."""

    def __init__(self) -> None:
        self.taken: list[bool] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        known: Exchange = scope["extensions"][EXCHANGE]
        body = known.whole_body()
        head = b"content-length: %d\r\ncontent-type: text/plain\r\n" % len(body)
        self.taken.append(known.answer(head, body))
        if not self.taken[-1]:

            async def again() -> Any:
                return {"type": "http.request", "body": body, "more_body": False}

            await by_messages(scope, again, send)


async def answered(app: Any, packet: bytes) -> bytes:
    async with listening(app) as address:
        return DATE.sub(b"", await exchange(address, packet))


@pytest.mark.parametrize(
    ("packet", "taken"),
    [
        (LAST + b"{}", [True]),
        (OLD + b"{}", [True]),
        (POST + b"{}" + LAST + b"[]", [True, True]),
        (HEAD, [False]),
        (EXPECTING + b"{}", [True]),
    ],
    ids=["the last one", "HTTP/1.0", "two at once", "HEAD", "a client that expects 100"],
)
def test_an_answer_is_that_by_messages(packet: bytes, taken: list[bool]) -> None:
    app = Whole()
    whole = run(answered(app, packet), uvloop.new_event_loop)
    continued = whole.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    expected = run(answered(by_messages, packet), uvloop.new_event_loop)
    assert continued == expected.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert whole.count(b"x-request-id: mine\r\n") == len(taken)
    assert app.taken == taken


async def at_once(scope: Any, receive: Any, send: Any) -> None:
    """Answers before it asks for the body, as whoever refuses a request by its head."""
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b"no"})


@pytest.mark.parametrize("body", [b"", b"{}"], ids=["not sent", "sent"])
def test_a_refusal_in_place_of_100_is_the_last_answer(body: bytes) -> None:
    """Else the next request of a client that keeps its body would pass for that."""
    expecting = POST.replace(b"Host", b"Expect: 100-continue\r\nHost")

    async def asked() -> bytes:
        async with listening(at_once) as address:
            packets = (expecting + body, LAST) if body else (expecting,)
            return await exchange(address, *packets, seconds=2)

    received = run(asked(), uvloop.new_event_loop)
    found = answers(received)
    assert [one.status for one in found] == ([401, 401] if body else [401])
    assert found[-1].connection == "close"


def test_what_a_client_does_not_read_is_not_heaped_up() -> None:
    """An answer is refused while the one before it waits for the client: it goes by messages."""
    flow = type("Paused", (), {"write_paused": True})()
    paused = Exchange(
        scope={"method": "POST"},  # type: ignore[typeddict-item]
        transport=None,  # type: ignore[arg-type]
        flow=flow,
        logger=None,  # type: ignore[arg-type]
        access_logger=None,  # type: ignore[arg-type]
        access_log=False,
        default_headers=[],
        message_event=None,  # type: ignore[arg-type]
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    assert not paused.answer(b"", b"")
    assert not paused.response_started


def test_lines_are_those_of_the_newest_list_of_headers() -> None:
    first, second = [(b"a", b"1"), (b"b", b"2")], [(b"a", b"3")]
    assert lines_of(first) == b"a: 1\r\nb: 2\r\n"
    assert lines_of(second) == b"a: 3\r\n"
    assert lines_of(first) == b"a: 1\r\nb: 2\r\n"
