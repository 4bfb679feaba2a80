"""The link to a Redis that answers in pieces, wrongly, late or not at all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from serving.stores.row_batch import FEW
from serving.stores.row_link import PAUSE_SECONDS, RowLink
from serving.stores.row_store import UNAVAILABLE
from tests.support.apps import in_a_loop
from tests.support.row_links import FOUND_A, LONG, SHORT, A, echo, first, found, later, wanted
from tests.support.scripted_redis import Client, echoed, scripted_redis, values

pytestmark = pytest.mark.timeout(30)

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
        [b"HMGET", b"h", b"a"],
    ]
    assert counted == [3, 1, 1]


@in_a_loop
async def test_a_read_of_many_fields_is_a_command_by_itself() -> None:
    many = [f"{number}" for number in range(FEW + 1)]
    commands = []

    async def act(client: Client) -> None:
        commands.extend([await client.command() for _ in range(3)])
        await client.say(*map(echoed, commands))

    async with scripted_redis(act) as server:
        link = RowLink(server.url, limits=LONG)
        reads = [wanted(h=["a"]), wanted(h=many), wanted(h=["b", "a"]), wanted(h=["1", *many])]
        raw = [field.encode() for field in many]
        expected = [[[b"a"]], [raw], [[b"b", b"a"]], [[b"1", *raw]]]
        assert await asyncio.gather(*map(link.read, reads)) == expected
        await link.close()
    assert [command[2:] for command in commands] == [
        [b"a", b"b"],
        raw,
        [b"1", *raw],
    ]


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
