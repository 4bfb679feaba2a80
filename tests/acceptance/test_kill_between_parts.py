"""Kill -9 of an online worker between two parts of a run, which it has computed ahead."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
import redis

from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.redis_keys import begun_key, watermark_key
from tests.support.logs import NOW_MS
from tests.support.pipeline import PATIENCE, Pipeline
from tests.support.shipped import SOURCE
from tests.support.sinks import BEGIN
from tests.support.states import State, loaded
from tests.support.stored import all_rows

KILLED_BETWEEN_PARTS = """
import itertools, os, signal, sys, threading
from pipelines.stores.redis.connection import WarmRedis
from tickwell.cli import main

moment = int(sys.argv.pop(1))
between = itertools.count(1)
exchange = WarmRedis.exchange

def killed(redis, commands):
    def one_after_the_other():
        for number, command in enumerate(commands):
            if number and threading.current_thread().name == "store price":
                if next(between) == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
            yield command
    return exchange(redis, one_after_the_other())

WarmRedis.exchange = killed
main()
"""
"""Only runs that were computed ahead are stored by the thread of this name."""

SYMBOLS = [f"S{number}" for number in range(12_000)]
"""A quarter of them, in one partition, are more than a script writes."""


def ticks(first: int, n: int) -> list[tuple[bytes, bytes]]:
    """Ticks that are not known for duplicates where one is counted twice."""
    made = []
    for i in range(first, first + n):
        symbol = SYMBOLS[i * 7919 % len(SYMBOLS)]
        tick = {"symbol": symbol, "price": 1 + i % 1013, "ts": NOW_MS + i}
        made.append((symbol.encode(), json.dumps(tick).encode()))
    return made


def stored(running: Pipeline) -> tuple[Any, dict[str, State]]:
    """Rows, and states with all their ticks."""
    sink = OnlineSink(running.settings.redis)
    try:
        states = loaded(sink, SOURCE, SYMBOLS, 64, BEGIN)
    finally:
        sink.close()
    with running.redis() as client:
        return all_rows(client, "price"), states


def unfinished(client: redis.Redis, topic_id: bytes, partition: int) -> int:
    """How many offsets of a run are stored in part."""
    keys = [of(topic_id, partition) for of in (begun_key, watermark_key)]
    begun, watermark = (int(value or 0) for value in client.mget(keys))
    return max(begun - watermark, 0)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_killed_between_two_parts_of_a_large_run(running: Pipeline) -> None:
    producer = running.producer(**{"queue.buffering.max.messages": 1_000_000})
    running.produce("price", ticks(0, 120_000), producer)
    worker = ("worker", "--sink", "online", "--instance", "one")
    topic = running.topics[running.topic("price")]
    for moment in (1, 3):
        program = ("-c", KILLED_BETWEEN_PARTS)
        process = running.start("online-one", str(moment), *worker, program=program)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        with running.redis() as client:
            found = [unfinished(client, topic.topic_id, n) for n in range(topic.partitions)]
        assert max(found) >= 1_000
        running.produce("price", ticks(120_000 * moment, 60_000), producer)
    running.start_worker("online")
    running.wait_drained("online")
    after_kills = stored(running)
    running.stop()
    with running.redis() as client:
        client.flushall()
    running.start_worker("online")  # Postgres is empty, so it reads from the beginning
    running.wait_drained("online")
    assert stored(running) == after_kills
