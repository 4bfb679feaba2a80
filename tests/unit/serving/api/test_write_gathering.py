"""An answer is one write, whatever its size; one in many parts waits for a slow client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from serving.api.connections import Connection
from serving.api.write_gathering import HELD_BYTES, GatheringTransport
from tests.support.raw_http import Address, answers, exchange, listening, run, sized

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PARTS = 48
PART = bytes(range(256)) * 256
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


class Recording(GatheringTransport):
    """Passes everything on at once, and keeps what was written."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        super().__init__(transport, asyncio.get_running_loop())
        self._writes = writes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writes.append(bytes(data))
        super().write(data)
        super().flush()


def recording(writes: list[bytes]) -> Callable[..., Connection]:
    """Connections on transports that are `Recording`."""

    class Recorded(Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(Recording(transport, writes))

    return Recorded


@LOOPS
@pytest.mark.parametrize("size", [0, 2, HELD_BYTES, 3_000_000])
def test_an_answer_is_one_write(size: int, loop: Any) -> None:
    writes: list[bytes] = []

    async def asked() -> bytes:
        async with listening(sized, recording(writes)) as address:
            return await exchange(address, GET % size, LAST % size)

    received = run(asked(), loop)
    assert [answer.body for answer in answers(received)] == [b"x" * size] * 2
    assert len(writes) == 2
    assert b"".join(writes) == received


def test_a_refusal_is_one_write() -> None:
    writes: list[bytes] = []

    async def asked() -> bytes:
        async with listening(sized, recording(writes)) as address:
            return await exchange(address, b"no request\r\n\r\n")

    assert [run(asked(), None)] == writes


@LOOPS
def test_what_is_sent_does_not_wait_for_the_rest(loop: Any) -> None:
    async def in_two(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await more.wait()
        await send({"type": "http.response.body", "body": b"two"})

    more = asyncio.Event()

    async def asked() -> bytes:
        async with listening(in_two) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(LAST % 0)
            received = await asyncio.wait_for(reader.readuntil(b"one\r\n"), 5)
            more.set()
            received += await reader.read()
            writer.close()
            return received

    (answer,) = answers(run(asked(), loop))
    assert answer.body == b"onetwo"


async def slow_client(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection for which the kernel keeps little, so that the server has to wait."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, address)
    return await asyncio.open_connection(sock=client, limit=1_024)


@LOOPS
def test_an_answer_in_many_parts_waits_for_a_slow_client(loop: Any) -> None:
    waiting: list[int] = []
    transports: list[GatheringTransport] = []

    class Seen(Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            assert isinstance(self.transport, GatheringTransport)
            kernel = transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            transports.append(self.transport)

    async def streamed(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(PARTS):
            for start in range(0, len(PART), 1_024):
                part = PART[start : start + 1_024]
                await send({"type": "http.response.body", "body": part, "more_body": True})
                waiting.append(transports[0].get_write_buffer_size())
        await send({"type": "http.response.body", "body": b""})

    async def read_slowly() -> tuple[int, bytes]:
        async with listening(streamed, Seen) as address:
            reader, writer = await slow_client(address)
            writer.write(LAST % 0)
            await asyncio.sleep(0.2)
            before = len(waiting)
            received = b""
            while data := await reader.read(100_000):
                received += data
                await asyncio.sleep(0.001)
            writer.close()
            return before, received

    before, received = run(read_slowly(), loop)
    (answer,) = answers(received)
    assert 1 < before < PARTS * 64
    assert answer.body == PART * PARTS
    # What is held, and the transport's own buffer, which is that high when it says stop.
    assert max(waiting) <= 2 * HELD_BYTES + 4_096


@LOOPS
def test_a_large_answer_reaches_a_client_that_reads_slowly(loop: Any) -> None:
    async def read_slowly() -> bytes:
        async with listening(sized) as address:
            reader, writer = await slow_client(address)
            writer.write(LAST % 3_000_000)
            received = b""
            while data := await reader.read(100_000):
                received += data
                await asyncio.sleep(0.001)
            writer.close()
            return received

    (answer,) = answers(run(read_slowly(), loop))
    assert answer.body == b"x" * 3_000_000


@LOOPS
def test_a_transport_that_is_aborted_sends_nothing_more(loop: Any) -> None:
    closed = asyncio.Event()
    held: list[int] = []

    class Aborting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            gathering = GatheringTransport(transport, asyncio.get_running_loop())
            gathering.write(b"held")
            held.append(gathering.get_write_buffer_size())
            gathering.abort()
            held.append(gathering.get_write_buffer_size())
            gathering.write(b"late")
            assert gathering.is_closing()

        def connection_lost(self, error: Exception | None) -> None:
            closed.set()

    async def aborted() -> bytes:
        server = await asyncio.get_running_loop().create_server(Aborting, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await closed.wait()
            received = await reader.read()
            writer.close()
            return received

    assert run(aborted(), loop) == b""
    assert held == [len(b"held"), 0]


def test_a_peer_that_has_gone_is_no_mistake() -> None:
    mistakes: list[dict[str, Any]] = []

    class Late(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            gathering = GatheringTransport(transport, asyncio.get_running_loop())
            transport.abort()
            gathering.write(b"late")

    async def left() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: mistakes.append(context))
        async with await loop.create_server(Late, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await asyncio.sleep(0.05)
            writer.close()

    run(left(), uvloop.new_event_loop)
    assert mistakes == []
