"""A server that stops: what was sent is answered, nothing else is accepted, and it ends in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config

from serving.api.connections import Connection
from serving.api.server import DrainingServer, Patience
from serving.process import ThisProcess
from tests.support.raw_http import Address, Answer, answers, run

GET = b"GET / HTTP/1.1\r\nhost: t\r\n\r\n"
LONG = 60.0

both_loops = pytest.mark.parametrize(
    "loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
Loop = Callable[[], asyncio.AbstractEventLoop] | None


class Application:
    """Answers each request once `let` is set; `came` counts them."""

    def __init__(self, waits: bool = False) -> None:
        self.let, self.came = asyncio.Event(), asyncio.Semaphore(0)
        if not waits:
            self.let.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.came.release()
        await self.let.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


class Stopping:
    """A server that listens, until it is told to stop and `ended`."""

    def __init__(self, app: Application, patience: Patience) -> None:
        self.process = ThisProcess()
        config = Config(app, http=Connection, ws="none", lifespan="off", log_level="critical")
        self.server = DrainingServer(config, patience, self.process)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self.address: Address = listener.getsockname()
        self.ended = asyncio.create_task(self.server.serve([listener]))

    def stop(self) -> None:
        self.server.should_exit = True


@asynccontextmanager
async def stopping(
    patience: Patience, waits: bool = False
) -> AsyncIterator[tuple[Application, Stopping]]:
    app = Application(waits)
    server = Stopping(app, patience)
    async with asyncio.timeout(LONG):
        while not server.server.started:
            await asyncio.sleep(0.001)
        yield app, server
        server.stop()
        await server.ended


async def told(reader: asyncio.StreamReader) -> list[Answer]:
    """All answers, up to the end of the connection."""
    return answers(await reader.read())


def is_last(found: list[Answer]) -> list[bool]:
    assert {answer.status for answer in found} == {200}
    return [answer.connection == "close" for answer in found]


async def refuses(address: Address) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except OSError:
        return True
    writer.close()
    return False


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.001)


@both_loops
def test_a_request_under_way_is_answered_as_the_last_one(loop: Loop) -> None:
    async def main() -> None:
        async with stopping(Patience(drain=LONG, idle=0.0), waits=True) as (app, server):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(GET)
            await app.came.acquire()
            server.stop()
            await eventually(lambda: refuses(server.address))
            app.let.set()
            assert is_last(await told(reader)) == [True]
            writer.close()

    run(main(), loop)


@both_loops
def test_a_connection_that_waits_gets_one_more_answer(loop: Loop) -> None:
    """The request may have been on its way when the server began to stop."""

    async def main() -> None:
        async with stopping(Patience(drain=LONG, idle=LONG)) as (app, server):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(GET)
            await app.came.acquire()
            server.stop()
            await eventually(lambda: refuses(server.address))
            writer.write(GET)
            assert is_last(await told(reader)) == [False, True]
            writer.close()

    run(main(), loop)


@both_loops
def test_pipelined_requests_are_answered_before_the_end(loop: Loop) -> None:
    async def main() -> None:
        async with stopping(Patience(drain=LONG, idle=0.0), waits=True) as (app, server):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(GET * 3)
            await app.came.acquire()
            server.stop()
            await eventually(lambda: refuses(server.address))
            app.let.set()
            assert is_last(await told(reader)) == [False, False, True]
            writer.close()

    run(main(), loop)


@both_loops
def test_what_has_connected_is_served(loop: Loop) -> None:
    """The system has taken the connection, and the server has not accepted it yet."""

    async def main() -> None:
        async with stopping(Patience(drain=LONG, idle=0.05)) as (_, server):
            client = socket.create_connection(server.address)
            client.sendall(GET)  # nothing was awaited meanwhile
            client.setblocking(False)
            ending = asyncio.create_task(server.server.shutdown([]))
            reader, writer = await asyncio.open_connection(sock=client)
            assert [answer.status for answer in await told(reader)] == [200]
            writer.close()
            await ending

    run(main(), loop)


@both_loops
def test_a_connection_without_a_request_does_not_hold_it_up(loop: Loop) -> None:
    async def main() -> None:
        async with stopping(Patience(drain=LONG, idle=0.05)) as (_, server):
            idle, idle_writer = await asyncio.open_connection(*server.address)
            idle_writer.write(GET)
            assert await idle.readuntil(b"ok")
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(GET[:9])  # the beginning of a request is waited for
            server.stop()
            assert await idle.read() == b""
            writer.write(GET[9:])
            assert is_last(await told(reader)) == [True]
            idle_writer.close()
            writer.close()

    run(main(), loop)


@both_loops
def test_what_is_not_answered_in_time_is_cut_off(loop: Loop) -> None:
    async def main() -> None:
        async with stopping(Patience(drain=0.1, idle=0.0), waits=True) as (app, server):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(GET)
            await app.came.acquire()
            server.stop()
            await server.ended
            assert [answer.status for answer in await told(reader)] == [500]
            writer.close()

    run(main(), loop)


@both_loops
def test_it_says_that_it_stops_and_goes_on_for_a_while(loop: Loop) -> None:
    async def main() -> None:
        async with stopping(Patience(pause=1.0, drain=LONG)) as (_, server):
            assert not server.process.stopping
            server.stop()
            while not server.process.stopping:
                await asyncio.sleep(0.001)
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(GET)
            head = await reader.readuntil(b"ok")
            assert b"connection: close" not in head
            assert server.process.connections() == 1
            await eventually(lambda: refuses(server.address))
            writer.write(GET)
            assert is_last(await told(reader)) == [True]
            writer.close()

    run(main(), loop)
