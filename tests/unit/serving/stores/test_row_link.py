"""The link to a Redis that answers in pieces, wrongly, late or not at all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from registry.redis_clients import Limits
from serving.stores.breakers import FAILURES, Breaker
from serving.stores.row_link import PAUSE_SECONDS, RowLink, bulk
from serving.stores.row_store import UNAVAILABLE
from tests.support.apps import in_a_loop
from tests.support.scripted_redis import Act, Client, echoed, scripted_redis, values

pytestmark = pytest.mark.timeout(30)

LONG = Limits(60.0, 60.0)
"""A time limit that no test waits for."""

SHORT = Limits(0.4, 0.4)

Fields = Sequence[str]


def wanted(**hashes: Fields) -> list[tuple[bytes, list[bytes]]]:
    """What a link takes, of fields by the name of their hash."""
    return [(bulk(key), [bulk(field) for field in fields]) for key, fields in hashes.items()]


async def found(act: Act, *reads: Any, limits: Limits = LONG) -> list[Any]:
    """What reads find that are asked one after the other."""
    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=limits)
        try:
            async with asyncio.timeout(20):
                return [await link.read(read) for read in reads]
        finally:
            await link.close()


A = wanted(h=["a"])
FOUND_A = [[b"a"]]


async def echo(client: Client) -> None:
    await client.echo()


def first(*parts: bytes) -> Act:
    """The first connection answers a command with these parts, later ones as they should."""

    async def act(client: Client) -> None:
        if client.number > 1:
            await client.echo()
        await client.command()
        await client.say(*parts)
        await client.hung_up()

    return act


# ---------------------------------------------------------------- what is sent


@in_a_loop
async def test_reads_of_a_turn_are_one_command_a_hash_that_names_a_field_once() -> None:
    commands = []

    async def act(client: Client) -> None:
        commands.extend([await client.command(), await client.command()])
        await client.say(*map(echoed, commands))
        commands.append(await client.command())

    counted: list[int] = []
    async with scripted_redis(act) as server:
        link = RowLink(server.url, counted.append, LONG)
        reads = [wanted(h=["b", "a"]), wanted(g=["a"], h=["a", "c", "a"]), wanted(h=["c", "b"])]
        assert await asyncio.gather(*map(link.read, reads)) == [
            [[b"b", b"a"]],
            [[b"a"], [b"a", b"c", b"a"]],
            [[b"c", b"b"]],
        ]
        alone = asyncio.ensure_future(link.read(wanted(h=["a", "a"])))
        await alone
        await link.close()
    assert commands == [
        [b"HMGET", b"h", b"b", b"a", b"c"],
        [b"HMGET", b"g", b"a"],
        [b"HMGET", b"h", b"a", b"a"],
    ]
    assert counted == [3, 1, 2]


@in_a_loop
async def test_nothing_waits_for_the_answers_to_what_was_sent_before() -> None:
    seen = asyncio.Semaphore(0)

    async def act(client: Client) -> None:
        commands = []
        for _ in range(4):  # before any is answered
            commands.append(await client.command())
            seen.release()
        await client.say(*map(echoed, commands))
        await client.echo()

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        reads = []
        for field in "abcd":
            reads.append(link.read(wanted(h=[field])))
            await seen.acquire()
        assert await asyncio.gather(*reads) == [[[b"a"]], [[b"b"]], [[b"c"]], [[b"d"]]]
        await link.close()
    assert server.connections == 1


@in_a_loop
async def test_nothing_is_asked_for_nothing() -> None:
    reads = [], wanted(h=[]), wanted(g=[], h=["a"], i=[])
    assert await found(echo, *reads, *reads) == [[], [[]], [[], [b"a"], []]] * 2


@in_a_loop
async def test_a_unix_socket(tmp_path: Path) -> None:
    async with scripted_redis(echo, tmp_path / "socket") as server:
        link = RowLink(server.url, limits=LONG)
        assert await link.read(A) == FOUND_A
        await link.close()


@in_a_loop
async def test_other_commands_go_behind_the_reads_of_their_turn() -> None:
    commands = []

    async def act(client: Client) -> None:
        for said in (b":1\r\n", values(b"a"), b"*2\r\n:1\r\n$-1\r\n", b"-ERR no script\r\n"):
            commands.append(await client.command())
            await client.say(said)
        await client.hung_up()

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        assert await link.call(["INCR", "n"]) == 1
        called = link.call(["EVAL", b"\xff", "0"])
        refused = link.call(["EVAL", "second", "0"])
        assert await link.read(A) == FOUND_A
        assert await called == [1, None]
        assert await refused is UNAVAILABLE
        await link.close()
        assert await link.call(["INCR", "n"]) is UNAVAILABLE
    assert commands == [
        [b"INCR", b"n"],
        [b"HMGET", b"h", b"a"],
        [b"EVAL", b"\xff", b"0"],
        [b"EVAL", b"second", b"0"],
    ]


@in_a_loop
async def test_a_command_that_is_not_answered_in_time_is_unavailable() -> None:
    async with scripted_redis(Client.hung_up) as server:
        link = RowLink(server.url, limits=SHORT)
        calls = [link.call(["INCR", "n"]) for _ in range(3)]
        calls[1].cancel()
        assert await calls[0] is UNAVAILABLE
        assert await calls[2] is UNAVAILABLE
        await link.close()
    assert server.connections == 1


# ---------------------------------------------------------------- what is answered


@in_a_loop
async def test_answers_may_be_cut_anywhere() -> None:
    answers = values(b"a", None) + b"-WRONGTYPE no hash\r\n" + values(b"", b"\r\n$1\r\n*1\r\n")
    read = wanted(f=["a", "b"], g=["a"], h=["a", "b"])
    expected = [[b"a", None], [UNAVAILABLE], [b"", b"\r\n$1\r\n*1\r\n"]]

    async def act(client: Client) -> None:
        for cut in range(1, len(answers)):
            for _ in read:
                await client.command()
            await client.say(answers[:cut], answers[cut:])
        await client.hung_up()

    every = [read] * (len(answers) - 1)
    assert await found(act, *every) == [expected] * len(every)


@in_a_loop
async def test_an_error_spoils_no_other_hash_and_no_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def act(client: Client) -> None:
        for said in b"-NOAUTH first\r\n", values(b"a"):
            await client.command()
            await client.say(said)
        await client.echo()

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        assert await link.read(wanted(g=["a", "b"], h=["a"])) == [[UNAVAILABLE] * 2, [b"a"]]
        assert await link.read(A) == FOUND_A
        await link.close()
    assert server.connections == 1
    assert "NOAUTH first" in caplog.text


@pytest.mark.parametrize(
    "said",
    [
        values(b"a", b"b"),
        values(),
        b"*-1\r\n",
        b"+OK\r\n",
        b":1\r\n",
        b"$1\r\na\r\n",
        b"what?\r\n",
        b">1\r\n$1\r\na\r\n",
        b"*1\r\n$-7\r\n",
    ],
)
@in_a_loop
async def test_what_is_no_answer_to_the_question_closes_the_connection(said: bytes) -> None:
    first_read, *others = await found(first(said), A, *[A] * 3, limits=LONG)
    assert first_read is UNAVAILABLE
    assert others == [UNAVAILABLE] * 3  # in the moment after it
    assert (await later(first(said)))[-1] == FOUND_A


async def later(act: Act) -> list[Any]:
    """What is found at first, and once the link tries again."""
    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        before = await link.read(A)
        await asyncio.sleep(PAUSE_SECONDS)
        after = await link.read(A)
        await link.close()
        return [before, after]


@pytest.mark.parametrize(
    "said",
    [
        [values(b"a") + values(b"wrong")],
        [values(b"a") + b"*1\r\n$5\r\n"],
        [values(b"a") + b"*"],
        [values(b"a"), values(b"wrong")],
        [values(b"a"), b"*1\r\n$5\r\n"],
        [values(b"a"), b"*"],
    ],
)
@in_a_loop
async def test_what_nobody_asked_for_is_given_to_nobody(said: list[bytes]) -> None:
    hung_up = asyncio.Event()

    async def act(client: Client) -> None:
        await first(*said)(client)
        hung_up.set()

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        assert await link.read(A) == FOUND_A
        await hung_up.wait()
        assert await link.read(wanted(h=["b"])) == [[b"b"]]
        await link.close()
    assert server.connections == 2


# ---------------------------------------------------------------- time, and ends


@pytest.mark.parametrize("said", [b"", values(b"a")[:7], values(b"a")[:-1]])
@in_a_loop
async def test_silence_is_waited_for_no_longer_than_the_limit(said: bytes) -> None:
    """By those who have asked later neither: all are told together."""
    async with scripted_redis(first(said)) as server:
        link = RowLink(server.url, limits=SHORT)
        begun = time.monotonic()
        reads = [link.read(A)]
        await asyncio.sleep(SHORT.socket_timeout * 0.7)
        reads.append(link.read(A))
        assert await asyncio.gather(*reads) == [UNAVAILABLE] * 2
        took = time.monotonic() - begun
        assert SHORT.socket_timeout * 0.9 < took < SHORT.socket_timeout * 1.6
        await asyncio.sleep(PAUSE_SECONDS)
        assert await link.read(A) == FOUND_A
        await link.close()


@in_a_loop
async def test_an_answer_that_comes_too_late_is_given_to_nobody() -> None:
    said, hung_up = asyncio.Event(), asyncio.Event()

    async def act(client: Client) -> None:
        if client.number > 1:
            await said.wait()
            await client.echo()
        await client.say(echoed(await client.command()))
        await client.command()
        await asyncio.sleep(SHORT.socket_timeout * 1.2)
        said.set()
        await client.say(values(b"late"))
        await client.hung_up()
        hung_up.set()

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=SHORT)
        assert await link.read(A) == FOUND_A
        assert await link.read(A) is UNAVAILABLE
        assert await link.read(wanted(h=["b"])) == [[b"b"]]
        await hung_up.wait()
        await link.close()
    assert server.connections == 2


@in_a_loop
async def test_the_limit_is_over_for_nobody_who_was_answered() -> None:
    async with scripted_redis(echo) as server:
        link = RowLink(server.url, limits=SHORT)
        for _ in range(4):
            assert await link.read(A) == FOUND_A
            await asyncio.sleep(SHORT.socket_timeout * 0.4)
        await link.close()
    assert server.connections == 1


@in_a_loop
async def test_a_connection_that_is_closed_between_two_answers() -> None:
    """What was answered counts; who waits is told at once, and the next read connects again."""

    seen = asyncio.Event()

    async def act(client: Client) -> None:
        if client.number > 1:
            await client.echo()
        await client.command()
        seen.set()
        await client.command()
        await client.say(values(b"a"))

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        reads = [link.read(A)]
        await seen.wait()
        reads.append(link.read(A))
        assert await asyncio.gather(*reads) == [FOUND_A, UNAVAILABLE]
        assert await link.read(A) == FOUND_A
        await link.close()
    assert server.connections == 2


@in_a_loop
async def test_a_connection_that_is_closed_while_nothing_is_asked_is_not_noticed() -> None:
    async def act(client: Client) -> None:
        await client.say(echoed(await client.command()))

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        for _ in range(3):
            assert await link.read(A) == FOUND_A
            await asyncio.sleep(0.02)
        await link.close()
    assert server.connections == 3


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
