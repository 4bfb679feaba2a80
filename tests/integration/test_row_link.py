"""The link to a real Redis: what it finds, of whom, over what, and while Redis hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from registry.redis_clients import Limits
from serving.stores.redis_reads import MAX_ROWS
from serving.stores.row_link import RowLink, bulk
from serving.stores.row_store import UNAVAILABLE
from tests.support.servers import SecureRedis, secure_redis

LONG = Limits(30.0, 30.0)
SHORT = Limits(0.3, 0.3)

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.new_event_loop,
    uvloop.new_event_loop,
]

Hashes = dict[str, dict[bytes, bytes]]
Read = list[tuple[str, list[bytes]]]

KEYS = st.sampled_from(["one", "two", "three", "missing", "text"])
"""The last one is no hash."""

FIELDS = st.sampled_from(
    [b"", b"a", b"b", b"c", b"\r\n", b"$1\r\n", b"\xff\x00", b"\xc3\xbc", b"x" * 300]
)
VALUES = st.binary(max_size=20) | st.sampled_from(
    [b"\r\n", b"*1\r\n$1\r\na\r\n", b"-ERR\r\n", bytes(70_000)]
)
HASHES = st.dictionaries(
    st.sampled_from(["one", "two", "three"]), st.dictionaries(FIELDS, VALUES, min_size=1)
)
READS = st.lists(st.tuples(KEYS, st.lists(FIELDS, max_size=6)), max_size=4)
TURNS = st.lists(st.lists(READS, max_size=5), max_size=4)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as made:
        yield made


def wanted(read: Read) -> list[tuple[bytes, list[bytes]]]:
    return [(bulk(key), [bulk(field) for field in fields]) for key, fields in read]


ONE: list[tuple[bytes, list[bytes]]] = wanted([("h", [b"f"])])


async def in_turns(link: RowLink, turns: list[list[Read]]) -> list[Any]:
    """What reads find: those of a turn are asked together, and no turn waits for another."""
    reads = []
    for turn in turns:
        reads += [link.read(wanted(read)) for read in turn]
        await asyncio.sleep(0)
    return await asyncio.gather(*reads)


def by_redis_py(client: Any, read: Read) -> list[list[Any]]:
    found = []
    for key, fields in read:
        try:
            found.append(client.hmget(key, fields) if fields else [])
        except redis.ResponseError:
            found.append([UNAVAILABLE] * len(fields))
    return found


@given(hashes=HASHES, turns=TURNS)
def test_it_finds_what_redis_py_finds(
    redis_database: str, runner: asyncio.Runner, hashes: Hashes, turns: list[list[Read]]
) -> None:
    async def ask() -> list[Any]:
        link = RowLink(redis_database, limits=LONG)
        try:
            return await in_turns(link, turns)
        finally:
            await link.close()

    with redis.Redis.from_url(redis_database) as client:
        client.flushdb()
        client.set("text", "no hash")
        for key, fields in hashes.items():
            client.hset(key, mapping=fields)  # type: ignore[arg-type]
        expected = [by_redis_py(client, read) for turn in turns for read in turn]
        assert runner.run(ask()) == expected


def test_a_large_read_is_answered_as_a_whole(redis_database: str, runner: asyncio.Runner) -> None:
    fields = [b"%d" % number for number in range(2 * MAX_ROWS + 1)]
    read = [("h", fields), ("h", fields[::-1]), ("g", fields[:3])]

    async def ask() -> list[Any]:
        link = RowLink(redis_database, limits=LONG)
        found = await in_turns(link, [[read[:1]], [read, read[1:]]])
        await link.close()
        return found

    with redis.Redis.from_url(redis_database) as client:
        client.hset("h", mapping={field: field for field in fields[1:]})  # type: ignore[misc]
        lone, whole, part = runner.run(ask())
        assert lone == [[None, *fields[1:]]]
        assert whole == [lone[0], lone[0][::-1], [None] * 3]
        assert part == whole[1:]


# ---------------------------------------------------------------- whom it asks


def test_it_asks_the_database_of_the_url_and_has_a_name(
    redis_database: str, runner: asyncio.Runner
) -> None:
    url = redis_database.replace("/0", "/5")
    with redis.Redis.from_url(url) as client:
        client.hset("h", "f", "of the fifth")

        async def ask() -> Any:
            link = RowLink(f"{url}?client_name=reader", limits=LONG)
            found = await link.read(ONE)
            names = [(one["name"], one["db"]) for one in client.client_list()]
            await link.close()
            return found, names

        found, names = runner.run(ask())
    assert found == [[b"of the fifth"]]
    assert ("reader", "5") in names


@pytest.mark.parametrize(("given", "kept"), [("", True), ("?socket_keepalive=no", False)])
def test_what_its_socket_is_set_to(redis_database: str, given: str, kept: bool) -> None:
    """As redis-py sets it: what is written is sent at once, and a dead peer is noticed."""
    sockets = []

    class Loop(asyncio.SelectorEventLoop):
        async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
            made = await super().create_connection(*args, **kwargs)
            sockets.append(made[0].get_extra_info("socket"))
            return made

    async def ask() -> None:
        link = RowLink(redis_database + given, limits=LONG)
        await link.read(ONE)
        (made,) = sockets
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert bool(made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is kept
        if kept:
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        await link.close()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(ask())


@pytest.fixture(scope="module")
def secure(data: Path) -> Iterator[SecureRedis]:
    with secure_redis(data / "secure-rows", "~tw:* ~h +@all -@dangerous") as made:
        with redis.Redis.from_url(made.url().replace("/0", "/2")) as client:
            client.hset("h", "f", "secret")
        yield made


def read_once(runner: asyncio.Runner, url: str) -> Any:
    async def ask() -> Any:
        link = RowLink(url, limits=LONG)
        try:
            return await link.read(ONE)
        finally:
            await link.close()

    return runner.run(ask())


def test_over_tls_as_a_user_in_a_database(secure: SecureRedis, runner: asyncio.Runner) -> None:
    assert read_once(runner, secure.url().replace("/0", "/2")) == [[b"secret"]]
    assert read_once(runner, secure.url()) == [[None]]


def test_another_password_another_authority_and_another_name_are_not_answered(
    secure: SecureRedis, runner: asyncio.Runner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    name = secure.url().replace("@127.0.0.1:", "@localhost:")
    for url, reason in [
        (secure.url(password="wrong-one"), "AUTH is answered WRONGPASS"),
        (secure.url(ca=str(other)), "certificate verify failed"),
        (secure.url(ca="/no/such/file"), "FileNotFoundError"),
        (name, "Hostname mismatch"),
    ]:
        caplog.clear()
        assert read_once(runner, url) is UNAVAILABLE
        assert reason in caplog.text
        assert secure.password not in caplog.text
        assert "wrong-one" not in caplog.text
    assert read_once(runner, f"{name}&ssl_check_hostname=false") == [[None]]


# ---------------------------------------------------------------- a Redis that hangs


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_a_redis_that_hangs_is_unavailable_in_time_and_read_again_afterwards(
    redis_database: str, runner: asyncio.Runner, how: str
) -> None:
    with redis.Redis.from_url(redis_database) as client:
        client.hset("h", "f", "v")
        pid = client.info("server")["process_id"]

        def hang() -> None:
            if how == "stopped":
                os.kill(pid, signal.SIGSTOP)
            else:
                client.execute_command("CLIENT", "PAUSE", 900, "ALL")

        def go_on() -> None:
            if how == "stopped":
                os.kill(pid, signal.SIGCONT)

        async def ask() -> None:
            link = RowLink(redis_database, limits=SHORT)
            assert await link.read(ONE) == [[b"v"]]
            hang()
            for _ in range(2):
                begun = time.monotonic()
                assert await link.read(ONE) is UNAVAILABLE
                assert time.monotonic() - begun < SHORT.socket_timeout * 2
            go_on()
            async with asyncio.timeout(20):
                while await link.read(ONE) != [[b"v"]]:
                    await asyncio.sleep(0.02)
            await link.close()

        try:
            runner.run(ask())
        finally:
            go_on()


def test_a_connection_that_is_killed_is_made_again(
    redis_database: str, runner: asyncio.Runner
) -> None:
    with redis.Redis.from_url(redis_database) as client:
        client.hset("h", "f", "v")

        async def ask() -> None:
            link = RowLink(redis_database, limits=LONG)
            for _ in range(3):
                assert await link.read(ONE) == [[b"v"]]
                client.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0.05)
            await link.close()

        runner.run(ask())
