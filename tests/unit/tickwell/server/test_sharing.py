"""Connections go to the process with the fewest; while none takes any, the system keeps them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tickwell.server.sharing import Sharing, Taker

SECONDS = 30


@dataclass
class Process:
    """Takes a connection, and names itself to the client."""

    name: bytes
    open: int = 0
    serves: bool = True
    hangs: bool = False
    takes: bool = True
    taken: list[socket.socket] = field(default_factory=list)

    def hand(self, accepted: socket.socket) -> bool:
        if self.takes:
            self.open += 1
            self.taken.append(accepted.dup())
            self.taken[-1].sendall(self.name)
        return self.takes


class Listening:
    """A listener whose connections are shared among processes."""

    def __init__(self, processes: Sequence[Taker], stack: ExitStack) -> None:
        self._stack = stack
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        self.address = listener.getsockname()
        self.sharing = Sharing([listener], processes)

    def connect(self) -> socket.socket:
        """A connection that nobody has accepted yet."""
        client = self._stack.enter_context(socket.create_connection(self.address))
        client.setblocking(False)
        return client


async def taker(client: socket.socket) -> bytes:
    """The name of the process that took the connection; nothing where it was closed."""
    async with asyncio.timeout(SECONDS):
        return await asyncio.get_running_loop().sock_recv(client, 1)


def close(processes: Sequence[Process]) -> None:
    for process in processes:
        for taken in process.taken:
            taken.close()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 12))
def test_the_one_with_the_fewest_is_next(opened: list[int], count: int) -> None:
    processes = [Process(b"%d" % number, have) for number, have in enumerate(opened)]
    expected = list(opened)

    async def main() -> None:
        with ExitStack() as stack:
            listening = Listening(processes, stack)
            listening.sharing.begin()
            for client in [listening.connect() for _ in range(count)]:
                assert await taker(client)
            listening.sharing.end()

    asyncio.run(main())
    for _ in range(count):
        expected[expected.index(min(expected))] += 1
    assert sorted(process.open for process in processes) == sorted(expected)
    close(processes)


def test_one_that_hangs_or_is_full_is_passed_over() -> None:
    processes = [
        Process(b"h", hangs=True),
        Process(b"f", takes=False),
        Process(b"e", serves=False),
        Process(b"w", open=9),
    ]

    async def main() -> list[bytes]:
        with ExitStack() as stack:
            listening = Listening(processes, stack)
            listening.sharing.begin()
            found = [await taker(listening.connect())]
            processes[-1].serves = False
            found.append(await taker(listening.connect()))  # better than none
            listening.sharing.end()
            return found

    assert asyncio.run(main()) == [b"w", b"h"]
    close(processes)


def test_what_none_takes_waits() -> None:
    """Not accepted while none serves; accepted and kept where one serves and takes none."""
    process = Process(b"p", serves=False)

    async def main() -> None:
        with ExitStack() as stack:
            listening = Listening([process], stack)
            listening.sharing.begin()
            first = asyncio.create_task(taker(listening.connect()))
            await asyncio.sleep(0)
            process.serves, process.takes = True, False
            second = asyncio.create_task(taker(listening.connect()))
            done, _ = await asyncio.wait([first, second], timeout=0.2)
            assert not done
            process.takes = True
            assert await asyncio.gather(first, second) == [b"p", b"p"]
            listening.sharing.end()

    asyncio.run(main())
    close([process])


def test_what_has_connected_is_handed_over_at_the_end() -> None:
    process = Process(b"p")

    async def main() -> None:
        with ExitStack() as stack:
            listening = Listening([process], stack)
            clients = [listening.connect() for _ in range(100)]
            listening.sharing.end()
            assert {await taker(client) for client in clients} == {b"p"}

    asyncio.run(main())
    close([process])
