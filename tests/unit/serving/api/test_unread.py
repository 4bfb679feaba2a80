"""Answers that clients do not read take memory neither for long nor without a bound."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import trustme
import uvloop

from serving.api.connections import Connection
from serving.api.unread import Unread
from tests.support.certificates import trusting
from tests.support.raw_http import Address, answers, listening, run, sized

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LARGE = 8_000_000
"""Bytes, which no system buffers."""

ASKED = {
    "kept alive": GET % LARGE,
    "pipelined": GET % LARGE + GET % LARGE,
    "closed": LAST % LARGE,
    "HTTP/1.0": b"GET /%d HTTP/1.0\r\n\r\n" % LARGE,
}
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Tls(NamedTuple):
    """The context of a server, and the one of its clients; None for each without TLS."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> Tls:
    return with_tls() if request.param else Tls()


def with_tls() -> Tls:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    return Tls(server, trusting(authority))


class Impatient(Connection):
    """Does not wait long for a client that does not read."""

    unread_seconds = 0.3


def counted(unread: Unread) -> type[Connection]:
    """Connections that are counted in `unread`, and of which the system buffers little."""

    class Counted(Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            kernel = transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            super().connection_made(transport)

    Counted.unread = unread
    return Counted


@asynccontextmanager
async def connected(
    address: Address, tls: Tls
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client for which the system keeps little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, address)
    named = {} if tls.client is None else {"ssl": tls.client, "server_hostname": "127.0.0.1"}
    reader, writer = await asyncio.open_connection(sock=client, limit=16_384, **named)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def ask(address: Address, tls: Tls, request: bytes) -> socket.socket:
    """A blocking client that has asked, for which the system keeps little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.settimeout(10)
    client.connect(address)
    if tls.client is not None:
        client = tls.client.wrap_socket(client, server_hostname="127.0.0.1")
    client.sendall(request)
    return client


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends, in whatever way."""
    received = bytearray()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await asyncio.wait_for(reader.read(300_000), 10):
            received += data
    return bytes(received)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


@LOOPS
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_client_that_reads_nothing_is_hung_up_on(asked: bytes, loop: Any, tls: Tls) -> None:
    """What is left of the answer takes no memory for longer than that."""

    async def unread() -> int:
        async with (
            listening(sized, Impatient, tls.server) as address,
            connected(address, tls) as (reader, writer),
        ):
            writer.write(asked)
            await asyncio.sleep(1.2)  # the client has read no more than its limit
            return len(await read_all(reader))

    assert run(unread(), loop) < LARGE


@LOOPS
def test_what_a_transport_of_tls_does_not_tell_of_is_not_kept_either(loop: Any) -> None:
    """It is in a buffer below it; only the system says that nothing of it is read."""
    tls, lost, unread, most = with_tls(), asyncio.Event(), Unread(), list[int]()

    class Seen(counted(unread)):  # type: ignore[misc]
        unread_seconds = 0.3

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    async def asked() -> None:
        async with listening(sized, Seen, tls.server) as address:
            with await asyncio.to_thread(ask, address, tls, GET % 100_000):
                await until(lambda: bool(unread.bytes))
                most.append(unread.bytes)
                await asyncio.wait_for(lost.wait(), 10)

    run(asked(), loop)
    assert most[0] > 60_000
    assert unread.bytes == 0


@LOOPS
@pytest.mark.parametrize("asked", [GET % 3_000_000, LAST % 3_000_000], ids=["kept alive", "closed"])
def test_a_client_that_ends_tls_and_reads_nothing_is_hung_up_on(
    asked: bytes, loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The transport of its answer may end only if it is aborted."""
    tls, lost, unread = with_tls(), asyncio.Event(), Unread()

    class Seen(counted(unread)):  # type: ignore[misc]
        unread_seconds = 0.3

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    def ask_and_end(address: Address) -> socket.socket:
        client = ask(address, tls, asked)
        time.sleep(0.1)
        client.settimeout(0.2)
        with contextlib.suppress(OSError):
            assert isinstance(client, ssl.SSLSocket)
            client.unwrap()
        return client

    async def ended() -> None:
        async with listening(sized, Seen, tls.server) as address:
            with await asyncio.to_thread(ask_and_end, address):
                await asyncio.wait_for(lost.wait(), 20)

    run(ended(), loop)
    assert unread.bytes == 0
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@LOOPS
def test_nothing_is_begun_on_a_connection_that_ends(loop: Any, tls: Tls) -> None:
    """Its client would never hear of it. It ends as the time without a request is over."""
    asked: list[str] = []

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await sized(scope, receive, send)

    def ask_late(address: Address) -> None:
        with ask(address, tls, GET % 3_000_000) as client:
            time.sleep(0.6)
            client.sendall(GET % 1)
            with contextlib.suppress(OSError):
                while client.recv(100_000):
                    pass

    async def late() -> None:
        config = {"timeout_keep_alive": 0.2}
        async with listening(noted, counted(Unread()), tls.server, **config) as address:
            await asyncio.to_thread(ask_late, address)

    run(late(), loop)
    assert asked == ["/3000000"]


@LOOPS
def test_a_client_that_reads_slowly_gets_everything(
    loop: Any, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes many times as long as one that reads nothing is waited for. Nothing is logged."""

    async def slow() -> int:
        async with (
            listening(sized, Impatient, tls.server) as address,
            connected(address, tls) as (reader, writer),
        ):
            writer.write(LAST % 6_000_000)
            received = 0
            while data := await reader.read(50_000):
                received += len(data)
                await asyncio.sleep(0.005)
            return received

    assert run(slow(), loop) > 6_000_000
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


Asking = Callable[[Address], Awaitable[None]]


@LOOPS
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_what_waits_is_counted_until_it_is_read(asked: bytes, loop: Any, tls: Tls) -> None:
    """All of it, also what an answer behind it holds; but for what a system has buffered."""
    unread = Unread(10 * LARGE)
    most: list[int] = []

    async def read() -> bytes:
        async with (
            listening(sized, counted(unread), tls.server) as address,
            connected(address, tls) as (reader, writer),
        ):
            writer.write(asked)
            await until(lambda: unread.bytes > asked.count(b"GET") * (LARGE - 1_000_000))
            most.append(unread.bytes)
            received = bytearray()
            while len(received) < asked.count(b"GET") * LARGE:
                received += await asyncio.wait_for(reader.read(1_000_000), 10)
            await until(lambda: not unread.bytes)
            return bytes(received)

    found = answers(run(read(), loop))
    assert [answer.body for answer in found] == [b"x" * LARGE] * asked.count(b"GET")
    assert most[0] <= asked.count(b"GET") * (LARGE + 1_000)
    assert (unread.bytes, unread.hung_up) == (0, 0)


@LOOPS
def test_what_waits_for_all_clients_is_bounded(loop: Any, tls: Tls) -> None:
    """Whoever is not hung up on gets everything, and so does a client that reads."""
    unread = Unread(3_000_000)
    most: list[int] = []

    async def asked() -> list[int]:
        async with contextlib.AsyncExitStack() as stack:
            listens = listening(sized, counted(unread), tls.server)
            address = await stack.enter_async_context(listens)
            readers = []
            for number in range(7):
                reader, writer = await stack.enter_async_context(connected(address, tls))
                writer.write(LAST % 1_000_000)
                if number == 6:
                    return [len(await read_all(each)) for each in (reader, *readers)]
                readers.append(reader)
                await until(lambda: unread.hung_up or unread.bytes > (number + 1) * 400_000)  # noqa: B023
                most.append(unread.bytes)
            return []

    reads, *others = run(asked(), loop)
    assert reads > 1_000_000
    assert 0 < unread.hung_up < 6
    assert sum(read > 1_000_000 for read in others) == 6 - unread.hung_up
    assert max(most) <= 3_000_000
    assert unread.bytes == 0


class Client:
    """A connection, of which so many bytes wait."""

    def __init__(self, unread: Unread, waiting: int) -> None:
        self.unread, self.waiting, self.is_hung_up = unread, waiting, False
        self.count()

    def count(self) -> None:
        self.unread.count(self, self.waiting)

    def unread_bytes(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.is_hung_up, self.waiting = True, 0
        self.count()


def test_who_has_had_something_unread_for_longest_is_hung_up_on_first() -> None:
    """To read a little of it now and then makes nobody younger, and a newcomer is the youngest."""
    unread = Unread(1_000)
    first, second, third = (Client(unread, 300) for _ in range(3))
    for one in (first, second, third):
        one.waiting -= 1
    fourth = Client(unread, 300)
    assert [one.is_hung_up for one in (first, second, third, fourth)] == [True, True, False, False]
    assert (unread.bytes, unread.hung_up) == (599, 2)


def test_who_has_read_everything_in_between_is_young() -> None:
    unread = Unread(1_000)
    first, second = Client(unread, 400), Client(unread, 400)
    first.waiting = 0
    first.count()
    first.waiting = 400
    first.count()
    Client(unread, 300)
    assert (first.is_hung_up, second.is_hung_up) == (False, True)


def test_what_was_read_meanwhile_makes_nobody_hung_up_on() -> None:
    """A transport that is not paused does not say how much of its buffer was sent."""
    unread = Unread(1_000)
    one = Client(unread, 600)
    one.waiting = 10
    two = Client(unread, 600)
    assert (unread.bytes, one.is_hung_up, two.is_hung_up) == (610, False, False)
