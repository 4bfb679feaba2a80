"""Lag, decided from heartbeats alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from registry.formats.heartbeat import Heartbeat, PartitionLag
from serving.stores.redis_reads import Command
from serving.watch.workers import LAGGING_SECONDS, WorkersWatch

TOPIC = "ticks.price"
LATE = LAGGING_SECONDS + 1


def beat(
    *behind: float,
    sink: str = "online",
    state: str = "running",
    age: float = 0.0,
    first: int = 0,
    partitions: int = 2,
) -> Heartbeat:
    """A worker that reads partitions of a topic from `first` on, each behind by so many seconds.

    Its time is `-age`: the test adds the present.
    """
    lag = tuple(
        PartitionLag(TOPIC, partition, 0, 0, 0, seconds)
        for partition, seconds in enumerate(behind, first)
    )
    return Heartbeat(sink, "one", 1, -age, state, 0, lag=lag, partitions={TOPIC: partitions})


@pytest.mark.parametrize(
    ("beats", "lagging"),
    [
        ([], True),
        ([beat(0, 0)], False),
        ([beat(0, LATE)], True),
        ([beat(0)], True),
        ([beat(0), beat(0, first=1)], False),
        ([beat(LATE, LATE), beat(0, 0)], False),
        ([beat(0, 0, state="retrying")], True),
        ([beat(0, 0, sink="offline")], True),
        ([beat(0, 0, age=60)], True),
        ([beat(0, 0, age=60, partitions=4), beat(0, 0)], False),
        ([beat(LAGGING_SECONDS - 1, 0, age=2)], True),
    ],
    ids=[
        "no worker",
        "one worker reads all",
        "a partition is behind",
        "no worker reads a partition",
        "two workers read one each",
        "the better of two heartbeats counts",
        "its store refuses",
        "only the offline sink runs",
        "the heartbeat is old",
        "what an old heartbeat says of the topic is not believed",
        "the age of a heartbeat is added",
    ],
)
def test_lag(beats: list[Heartbeat], lagging: bool) -> None:
    workers = WorkersWatch({})
    now = time.time()
    workers.heartbeats = [msgspec.structs.replace(beat, at=now + beat.at) for beat in beats]
    assert (time.time() > workers.lag.on_time_until(TOPIC)) == lagging
    asyncio.run(workers.close())


class Reads:
    """A Redis that holds a heartbeat, after each of so many readings the next one."""

    def __init__(self, *beats: Heartbeat) -> None:
        self._beats = [msgspec.json.encode(beat) for beat in beats]

    def server_of(self, key: str) -> str:
        return ""

    async def each(self, commands: Sequence[Command]) -> list[Any]:
        if commands[0][0] == "SMEMBERS":
            return [{b"online:one"}, *[None] * (len(commands) - 1)]
        return [self._beats.pop(0)]

    async def close(self) -> None:
        pass


def test_a_clock_that_is_ahead_makes_no_heartbeat_younger() -> None:
    """A worker that died would count as alive for as much longer."""

    async def refreshed() -> list[float]:
        now = time.time()
        first, second = (msgspec.structs.replace(beat(0, 0), at=now + n) for n in (100, 101))
        held = Reads(first, first, second)
        workers = WorkersWatch({"redis": ""}, open_reads=lambda *_: held)
        seen = []
        for _ in range(3):
            await workers.refresh()
            seen += [one.at for one in workers.heartbeats]
            await asyncio.sleep(0.01)
        return [at - now for at in seen]

    first, again, newer = asyncio.run(refreshed())
    assert 0 <= first == again < newer < 5


def test_a_redis_that_says_nothing_delays_no_other() -> None:
    """The one answers only after the other was asked."""

    class First(Reads):
        async def each(self, commands: Sequence[Command]) -> list[Any]:
            await Second.asked.wait()
            return [TimeoutError("no answer")] * len(commands)

    class Second(Reads):
        asked = asyncio.Event()

        async def each(self, commands: Sequence[Command]) -> list[Any]:
            self.asked.set()
            return await super().each(commands)

    async def refreshed() -> WorkersWatch:
        stores = iter((First(), Second(beat(0, 0))))
        workers = WorkersWatch({"redis": "", "redis_hot": ""}, open_reads=lambda *_: next(stores))
        async with asyncio.timeout(10):
            await workers.refresh()
        return workers

    workers = asyncio.run(refreshed())
    assert workers.stores == {"redis": "no answer", "redis_hot": "ok"}
    assert [one.instance for one in workers.heartbeats] == ["one"]
