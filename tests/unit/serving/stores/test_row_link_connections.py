"""The link to a Redis: how it connects and ends, and what the breaker is told."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from registry.redis_clients import Limits
from serving.stores.breakers import FAILURES, Breaker
from serving.stores.row_link import PAUSE_SECONDS, RowLink
from serving.stores.row_store import UNAVAILABLE
from tests.support.apps import in_a_loop
from tests.support.row_links import FOUND_A, LONG, SHORT, A, echo, first, later, wanted
from tests.support.scripted_redis import Act, Client, echoed, scripted_redis, values

pytestmark = pytest.mark.timeout(30)

# ---------------------------------------------------------------- connecting


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@in_a_loop
async def test_however_many_reads_fail_connections_are_few_and_so_are_warnings(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a server that closes every connection, of which one with TLS never comes to be."""

    async def act(client: Client) -> None:
        pass

    async with scripted_redis(act) as server:
        link = RowLink(server.url.replace("redis:", f"{scheme}:"), limits=LONG)
        begun = time.monotonic()
        while (took := time.monotonic() - begun) < PAUSE_SECONDS * 3.5 or server.connections < 2:
            reads = [link.read(A) for _ in range(10)]
            assert await asyncio.gather(*reads) == [UNAVAILABLE] * 10
        await link.close()
    assert 2 <= server.connections <= took / PAUSE_SECONDS + 1
    (said,) = (one for one in caplog.records if one.name == "serving.stores.row_link")
    assert said.levelno == logging.WARNING
    assert "127.0.0.1:" in said.getMessage()


@in_a_loop
async def test_all_wait_for_the_same_attempt_and_no_longer_than_the_first() -> None:
    async with scripted_redis(Client.hung_up) as server:  # it says nothing that TLS needs
        link = RowLink(server.url.replace("redis:", "rediss:"), limits=SHORT)
        begun = time.monotonic()
        reads = []
        while time.monotonic() - begun < SHORT.socket_timeout * 0.7:
            reads.append(link.read(A))
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*reads) == [UNAVAILABLE] * len(reads)
        assert time.monotonic() - begun < SHORT.socket_timeout * 1.6
        assert len(reads) > 3
        assert server.connections == 1
        await link.close()


class SlowLoop(asyncio.SelectorEventLoop):
    """Connecting takes a time before, and a time until whoever connects goes on."""

    before = after = 0.0

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(self.before)
        made = await super().create_connection(*args, **kwargs)
        await asyncio.sleep(self.after)
        return made


def test_the_time_to_connect_is_part_of_the_limit() -> None:
    async def ask() -> None:
        async with scripted_redis(Client.hung_up) as server:
            link = RowLink(server.url, limits=SHORT)
            begun = time.monotonic()
            assert await link.read(A) is UNAVAILABLE
            assert time.monotonic() - begun < SHORT.socket_timeout * 1.5
            assert server.connections == 1
            await link.close()

    with asyncio.Runner(loop_factory=SlowLoop) as runner:
        runner.get_loop().before = SHORT.socket_timeout * 0.7  # type: ignore[attr-defined]
        runner.run(ask())


def test_a_connection_that_ends_before_it_is_used() -> None:
    async def act(client: Client) -> None:
        if client.number > 1:
            await client.echo()

    with asyncio.Runner(loop_factory=SlowLoop) as runner:
        runner.get_loop().after = 0.05  # type: ignore[attr-defined]
        assert runner.run(later(act)) == [UNAVAILABLE, FOUND_A]


HANDSHAKE = [[b"AUTH", b"me", b"pass/word"], [b"CLIENT", b"SETNAME", b"us"], [b"SELECT", b"3"]]


def of_me(url: str) -> str:
    """The URL of a user, a database and a name."""
    return url.replace("//", "//me:pass%2Fword@").replace("/0", "/3?client_name=us&protocol=3")


@in_a_loop
async def test_a_connection_begins_with_its_handshake() -> None:
    async def act(client: Client) -> None:
        assert [await client.command() for _ in HANDSHAKE] == HANDSHAKE
        await client.say(b"+OK\r\n", b"+OK\r\n", b"+OK\r\n")
        await client.echo()

    async with scripted_redis(act) as server:
        link = RowLink(of_me(server.url), limits=LONG)
        assert await link.read(A) == FOUND_A
        await link.close()


@pytest.mark.parametrize("refused", range(3))
@in_a_loop
async def test_what_is_read_without_the_whole_handshake_is_given_to_nobody(
    refused: int, caplog: pytest.LogCaptureFixture
) -> None:
    said = [b"+OK\r\n"] * 3
    said[refused] = b"-ERR unknown command, with args beginning with: 'me' 'pass/word' \r\n"
    if refused:
        said[refused] = b"-ERR that is not allowed\r\n"

    async with scripted_redis(first(b"".join(said) + values(b"of another database"))) as server:
        link = RowLink(of_me(server.url), limits=LONG)
        assert await link.read(A) is UNAVAILABLE
        await link.close()
    words = [
        "AUTH is answered ERR",
        "CLIENT is answered ERR that is",
        "SELECT is answered ERR that",
    ]
    assert words[refused] in caplog.text
    assert "pass" not in caplog.text


@in_a_loop
async def test_a_name_that_nobody_can_look_up_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    link = RowLink(f"redis://{'a' * 70}.example/0", limits=LONG)  # no name may be so long
    assert await link.read(A) is UNAVAILABLE
    assert "rows cannot be read from" in caplog.text
    await link.close()


def test_a_url_that_redis_py_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match="scheme"):
        RowLink("http://127.0.0.1:1")


# ---------------------------------------------------------------- cancelled and closed


@in_a_loop
async def test_a_read_that_is_cancelled_disturbs_no_other() -> None:
    async with scripted_redis(echo) as server:
        link = RowLink(server.url, limits=LONG)
        for _ in range(3):
            reads = [asyncio.ensure_future(link.read(wanted(h=[field]))) for field in "abc"]
            reads[0].cancel()
            await asyncio.sleep(0)
            reads[2].cancel()
            assert await reads[1] == [[b"b"]]
        for read in [link.read(A), link.read(A)]:
            read.cancel()
        assert await link.read(wanted(h=["b"])) == [[b"b"]]
        await link.close()
    assert server.connections == 1


@in_a_loop
async def test_reads_that_wait_when_it_is_closed_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with scripted_redis(Client.hung_up) as server:
        for url in server.url, server.url.replace("redis:", "rediss:"):
            link = RowLink(url, limits=LONG)
            reads = [link.read(A)]
            await asyncio.sleep(0.05)
            reads.append(link.read(A))
            await asyncio.sleep(0.01)
            reads.append(link.read(A))
            await link.close()
            assert [read.done() for read in reads] == [True] * 3
            assert [read.result() for read in reads] == [UNAVAILABLE] * 3
            assert await link.read(A) is UNAVAILABLE
            await link.close()
    assert server.connections == 2
    assert not caplog.records


@in_a_loop
async def test_a_read_is_told_that_is_closed_before_it_is_begun() -> None:
    """The task that would connect has not had its first turn."""
    link = RowLink("redis://127.0.0.1:1/0", limits=LONG)
    for turns in range(4):
        read = link.read(A)
        for _ in range(turns):
            await asyncio.sleep(0)
        await link.close()
        async with asyncio.timeout(5):
            assert await read is UNAVAILABLE
        link = RowLink("redis://127.0.0.1:1/0", limits=LONG)


@in_a_loop
async def test_it_does_nothing_while_nothing_is_asked() -> None:
    link = RowLink("redis://127.0.0.1:1/0", limits=LONG)
    before = asyncio.all_tasks()
    assert await link.read(A) is UNAVAILABLE
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    await link.close()


# ---------------------------------------------------------------- what the breaker is told


async def told(act: Act, reads: int = 1, limits: Limits = LONG) -> Breaker:
    """The breaker of a store that is read so often, one read after the other."""
    breaker = Breaker("Redis")
    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=limits, breaker=breaker)
        async with asyncio.timeout(20):
            for _ in range(reads):
                await link.read(A)
        await link.close()
    return breaker


@in_a_loop
async def test_a_server_that_is_silent_or_not_there_opens_the_breaker_at_once() -> None:
    async def silent(client: Client) -> None:
        await client.hung_up()

    async def silent_after_an_answer(client: Client) -> None:
        await client.say(echoed(await client.command()))
        await client.hung_up()

    assert (await told(silent, limits=SHORT)).is_open
    breaker = await told(silent_after_an_answer, 2, SHORT)
    assert (breaker.is_open, breaker.reason) == (True, "no answer in time")
    breaker = Breaker("Redis")
    link = RowLink("redis://127.0.0.1:1/0", breaker=breaker)
    assert await link.read(A) is UNAVAILABLE
    assert breaker.is_open
    await link.close()


@in_a_loop
async def test_a_connection_that_is_lost_opens_it_only_if_the_next_one_is_too() -> None:
    async def lost_at_the_second_command(client: Client) -> None:
        await client.say(echoed(await client.command()))
        await client.command()

    assert not (await told(lost_at_the_second_command, 9)).is_open

    async def lost(client: Client) -> None:
        await client.command()

    assert (await told(lost, 1)).is_open  # it has never answered


@in_a_loop
@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (b"-LOADING Redis is loading the dataset in memory", True),
        (b"-BUSY Redis is busy running a script", True),
        (b"-NOPERM this user has no permissions", True),
        (b"-WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
async def test_errors_open_it_unless_they_are_of_a_key(error: bytes, opens: bool) -> None:
    async def refuse(client: Client) -> None:
        while True:
            await client.command()
            await client.say(error + b"\r\n")

    assert (await told(refuse, FAILURES)).is_open == opens
