"""Marks: which are read, and how often."""

from __future__ import annotations

import asyncio
from typing import Any

from registry.formats.hot import HOME_LAYOUT, mark_key
from serving.stores.hot_marks import MOST_MARKS, Marks
from serving.stores.row_batch import FEW, KEYS
from serving.stores.row_link import RowLink
from tests.support.apps import in_a_loop
from tests.support.scripted_redis import Client, scripted_redis, values

TOPIC = bytes(range(16))


def home(partition: int) -> bytes:
    return HOME_LAYOUT.struct.pack(TOPIC, partition)


def key(partition: int) -> bytes:
    return mark_key(TOPIC, partition).encode()


class Hot:
    """Answers each MGET as a test says, and keeps what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.commands: list[list[bytes]] = []

    async def __call__(self, client: Client) -> None:
        while True:
            self.commands.append(await client.command())
            answer = self.answers.pop(0)
            await client.say(answer if isinstance(answer, bytes) else values(*answer))


async def turn() -> None:
    await asyncio.sleep(0.02)


@in_a_loop
async def test_marks_are_those_of_partitions_that_were_seen() -> None:
    hot = Hot([b"token 00"], [b"token 00", None], b"-LOADING\r\n", [b"token 01", b"token 11"])
    async with scripted_redis(hot) as server:
        link = RowLink(server.url)
        marks = Marks(link, seconds=10.0)
        marks.ask(0.0)
        await turn()
        assert hot.commands == []
        marks.learn(home(0))
        marks.learn(b"no home")
        for now in (1.0, 2.0):  # the second time it is too soon
            marks.ask(now)
            await turn()
        assert marks.live == {b"token 00"}
        assert marks.tokens == {home(0): b"token 00"}
        marks.learn(home(1))
        marks.ask(3.0)  # a new one is read at once
        await turn()
        assert marks.tokens == {home(0): b"token 00"}
        marks.ask(13.0)
        await turn()
        assert marks.live == set()
        marks.ask(13.1)  # it was not answered, and so is asked again
        await turn()
        assert marks.tokens == {home(0): b"token 01", home(1): b"token 11"}
        await link.close()
    assert hot.commands == [[b"MGET", key(0)]] + [[b"MGET", key(0), key(1)]] * 3


@in_a_loop
async def test_partitions_are_bounded() -> None:
    marks = Marks(RowLink("redis://127.0.0.1:1/0"))
    for partition in range(MOST_MARKS + 1):
        marks.learn(home(partition))
    assert marks.homes() == {home(MOST_MARKS)}
    assert marks.knows(home(MOST_MARKS))
    assert not marks.knows(home(0))


@in_a_loop
async def test_marks_are_known_before_who_reads_rows_with_them_hears_these() -> None:
    """A row that is heard at once is believed under the mark that was read with it, or not."""
    live = b"token 00"
    hot = Hot([live], [None, live + b"row"])
    async with scripted_redis(hot) as server:
        link = RowLink(server.url)
        marks = Marks(link, seconds=0.0)
        marks.learn(home(0))
        marks.ask(0.0)
        await turn()
        assert marks.live == {live}
        heard: list[Any] = []

        class Hearer:
            def done(self) -> bool:
                return False

            def set_result(self, values: Any) -> None:
                heard.append((marks.live, values))

        marks.ask(0.0)
        link.read_into([(KEYS, [b"$1\r\na\r\n"])], Hearer())
        await turn()
        assert heard == [(frozenset(), [[live + b"row"]])]
        await link.close()


@in_a_loop
async def test_marks_are_read_ahead_of_all_rows_of_their_turn() -> None:
    """Else a mark that is set between the two would vouch for a row that was read before it."""
    partitions = range(FEW + 1)  # so many that they are a command by themselves
    hot = Hot([b"token"] * len(partitions), [b"row"] * 2)
    async with scripted_redis(hot) as server:
        link = RowLink(server.url)
        marks = Marks(link)
        earlier = link.read([(KEYS, [b"$1\r\na\r\n"])])
        for partition in partitions:
            marks.learn(home(partition))
        marks.ask(0.0)
        later = link.read([(KEYS, [b"$1\r\nb\r\n"])])
        assert await earlier == await later == [[b"row"]]
        await link.close()
    assert hot.commands == [[b"MGET", *map(key, partitions)], [b"MGET", b"a", b"b"]]
