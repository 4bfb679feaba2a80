"""Load generators beside a small real server that counts what it is asked."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from tests.support.apps import in_a_loop
from tickwell.bench.generators import generate, shares
from tickwell.bench.histogram import bounds
from tickwell.bench.load import Load, Plan
from tickwell.errors import TickwellError

VALUE = b'{"features":{"f":{"value":1.0,"status":"ok","tier":"hot"}}}'


class Server:
    """Answers requests by a function of their number, and knows how many were under way."""

    def __init__(self, answer: Callable[[int], bytes | None], first_seconds: float = 0.0) -> None:
        self._answer = answer
        self._first_seconds = first_seconds
        self.asked = 0
        self.bodies: list[bytes] = []
        self.open = self.most_open = self.opened = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.opened += 1
        self.most_open = max(self.open, self.most_open)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.partition(b"Content-Length: ")[2].split(b"\r", 1)[0])
                self.bodies.append(await reader.readexactly(length))
                self.asked += 1
                number = self.asked
                if number == 1:
                    await asyncio.sleep(self._first_seconds)
                answer = self._answer(number)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


def well(number: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(VALUE), VALUE)


def in_chunks(number: int) -> bytes:
    """As a proxy may pass it on."""
    half = b"1e\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (VALUE[:30], len(VALUE) - 30, VALUE[30:])
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + half


def last(number: int) -> bytes:
    """The last answer of its connection."""
    return well(number).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)


def plan(port: int, **changes: Any) -> Plan:
    return Plan(
        host="127.0.0.1",
        port=port,
        tls=None,
        head=b"POST /features/online HTTP/1.1\r\nHost: h\r\nContent-Length: ",
        before=b'{"entity":',
        after=b"}",
        entities=[b'{"symbol":"S%d"}' % n for n in range(10)],
        features=1,
        exponent=1.0,
        at_once=1,
        connections=4,
        rate=None,
        warm_up_seconds=0.0,
        seconds=0.3,
        seed=1,
    )._replace(**changes)


async def run(server: Server, context: ssl.SSLContext | None = None, **changes: Any) -> Any:
    """What a load in this loop has seen."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    async with listener:
        load = Load(plan(listener.sockets[0].getsockname()[1], **changes))
        await load.connect()
        await load.run(time.monotonic(), lambda finished: None)
    return load.tally.seen()


@pytest.mark.parametrize("answer", [well, in_chunks])
@in_a_loop
async def test_a_closed_loop_has_one_request_a_connection_under_way(
    answer: Callable[[int], bytes],
) -> None:
    server = Server(answer)
    seen = await run(server)
    assert server.most_open == server.opened == 4
    assert seen.failures == {}
    assert 4 < seen.answered == server.asked
    assert seen.drawn.sum() == seen.answered
    assert seen.tiers["hot"] == seen.answered


@in_a_loop
async def test_an_open_loop_asks_as_often_as_it_is_told() -> None:
    server = Server(well)
    seen = await run(server, rate=500.0, seconds=1.0)
    assert seen.failures == {}
    assert server.asked == seen.answered
    assert abs(seen.answered - 500) < 6 * 500**0.5  # a Poisson process has this spread


@in_a_loop
async def test_what_is_due_while_a_server_stalls_waits_for_it() -> None:
    """In an open loop its time begins when it was due, whenever a connection was free for it."""
    server = Server(well, first_seconds=0.3)
    seen = await run(server, connections=1, rate=400.0, seconds=0.5)
    late = seen.counts[bounds() > 0.05].sum()
    assert late > 40  # of the 100 that are due in a quarter of a second


@in_a_loop
async def test_each_draw_is_asked_for() -> None:
    server = Server(well)
    seen = await run(server)
    for rank, times in enumerate(seen.drawn.tolist()):
        assert server.bodies.count(b'{"entity":{"symbol":"S%d"}}' % rank) == times


@in_a_loop
async def test_what_comes_before_the_measured_time_does_not_count() -> None:
    server = Server(well)
    seen = await run(server, warm_up_seconds=0.3)
    assert 0 < seen.answered < server.asked


@in_a_loop
async def test_a_connection_that_ends_is_opened_again() -> None:
    """Without an answer that is a failure, behind one that says so it is none."""
    server = Server(lambda number: None if number == 20 else well(number))
    seen = await run(server)
    assert seen.failures == {"the server closed the connection": 1}
    assert (server.opened, seen.answered) == (5, server.asked - 1)
    server = Server(lambda number: last(number) if number == 20 else well(number))
    seen = await run(server)
    assert (seen.failures, server.opened) == ({}, 5)


@in_a_loop
async def test_answers_that_are_no_success_are_told_apart() -> None:
    refused = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    server = Server(lambda number: refused if number % 2 else well(number))
    seen = await run(server)
    assert set(seen.failures) == {"status 503"}
    assert abs(seen.failures["status 503"] - seen.answered) <= 1
    assert seen.drawn.sum() == server.asked
    seen = await run(Server(lambda number: b"nonsense\r\n\r\n"))
    assert all("no HTTP/1.1" in why for why in seen.failures)
    assert seen.failures


@in_a_loop
async def test_tls() -> None:
    """With a certificate that is checked."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as trusted, trustme.CA().cert_pem.tempfile() as other:
        server = Server(well)
        seen = await run(server, context, tls=trusted)
        assert seen.failures == {}
        assert seen.answered == server.asked > 4
        with pytest.raises(ssl.SSLCertVerificationError):
            await run(server, context, tls=other)


@pytest.mark.parametrize("rate", [None, 200.0])
@in_a_loop
async def test_a_server_that_hangs_fails_what_was_asked(rate: float | None) -> None:
    """All of it: in an open loop also what no connection was free for, in a closed one no more."""
    seen = await run(Server(lambda number: b""), rate=rate, timeout_seconds=0.2)
    assert seen.answered == 0
    assert set(seen.failures) <= {"no answer within 0.2 s", "no connection was free"}
    if rate is None:
        assert 4 <= seen.failures.total() <= 12
    else:
        assert abs(seen.failures.total() - 60) < 6 * 60**0.5


def test_processes_share_the_load() -> None:
    parts = shares(plan(1, connections=10, rate=90.0), 3)
    assert [part.connections for part in parts] == [3, 3, 4]
    assert [part.rate for part in parts] == [30.0] * 3
    assert len({part.seed for part in parts}) == 3
    assert len(shares(plan(1, connections=2), 5)) == 2


def test_what_several_processes_have_seen_is_added_up() -> None:
    server = Server(well)

    async def serve() -> tuple[Any, list[int]]:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        told: list[int] = []
        async with listener:
            plans = shares(plan(listener.sockets[0].getsockname()[1], seconds=1.0), 2)
            return await asyncio.to_thread(generate, plans, told.append), told

    seen, told = asyncio.run(serve())
    assert seen.failures == {}
    assert seen.answered == seen.drawn.sum() == server.asked
    assert 0 < max(told) <= server.asked


def test_a_server_that_is_away_is_said() -> None:
    with pytest.raises(TickwellError, match=r"no connection to the server .*does it run"):
        generate([plan(1)], lambda finished: None)
