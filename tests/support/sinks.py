"""Sinks as tests open them, what is stored by them, and what the stores then hold."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event
from typing import Any

import psycopg2
import redis
from msgspec import structs

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.run import Run
from pipelines.live.materializer import Materializer
from pipelines.stores.redis import scripts
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.redis.resp import Command, packed
from pipelines.stores.sink import Sink
from registry.definitions import HISTORY
from registry.formats.origin import Origin
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, TOPIC_ID
from tests.support.shipped import PROGRAM, RULES, SCHEMA, SOURCE

Opened = Callable[[Any], Any]
GO_ON = Event()
BEGIN = Origin(TOPIC_ID, 0, 2**62, 0)


def before_each_write(sink: OnlineSink, act: Callable[[int], None]) -> None:
    """Calls `act`, with 1, 2 and so on, before each script that writes entities."""
    redis: Any = sink.redis
    run, exchange, numbers = redis.run, redis.exchange, itertools.count(1)

    def acting_run(script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if script == scripts.STORE:
            act(next(numbers))
        return run(script, keys, arguments)

    def acting_exchange(commands: Iterable[Command]) -> list[Any]:
        def acting() -> Iterator[Command]:
            for command in commands:
                if b"EVALSHA" in packed(command)[0]:
                    act(next(numbers))
                yield command

        answers: list[Any] = exchange(acting())
        return answers

    redis.run, redis.exchange = acting_run, acting_exchange


@contextmanager
def closing() -> Iterator[Opened]:
    """Closes the sinks that are opened meanwhile."""
    with ExitStack() as stack:

        def keep(sink: Any) -> Any:
            stack.callback(sink.close)
            return sink

        yield keep


def worker(sink: Sink, capacity: int = 1000, history: int = HISTORY) -> Materializer:
    """One whose source keeps `history` ticks of an entity."""
    program = dataclasses.replace(PROGRAM, source=structs.replace(SOURCE, history=history))
    return Materializer(RunComputation(RULES, SCHEMA, program, capacity), sink)


def ticks(symbols: Sequence[str], n: int, first: int = 0, seq: bool = True) -> list[Record]:
    """Without `seq` a tick that is applied twice is not known for a duplicate."""
    made = []
    for i in range(first, first + n):
        symbol = symbols[i % len(symbols)]
        tick = {"symbol": symbol, "price": 1.0 + i % 7, "ts": NOW_MS + i // 3}
        if seq:
            tick["seq"] = i
        made.append(
            Record("ticks.price", 0, i, NOW_MS + i, symbol.encode(), json.dumps(tick).encode())
        )
    return made


def redis_dump(url: str) -> dict[bytes, bytes]:
    """Rows, states, chunks and marks, by their keys, and by their fields where these are of hashes.

    Not who writes, and how far runs were begun, which say nothing of what is stored.
    """
    with redis.Redis.from_url(url) as client:
        found: dict[bytes, bytes] = {}
        for key in client.keys("tw:3:*"):
            if key.startswith((b"tw:3:writer:", b"tw:3:begun:")):
                continue
            kind = client.type(key)
            if kind == b"hash":
                found |= {key + b" " + field: value for field, value in client.hgetall(key).items()}
            elif kind == b"string":
                found[key] = client.get(key)
        return found


def put_back(client: Any, dump: Mapping[bytes, bytes]) -> None:
    """Puts there what `redis_dump` gave."""
    for key, value in dump.items():
        name, *field = key.split(b" ", 1)
        client.hset(name, field[0], value) if field else client.set(name, value)


def query(url: str, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """What a database answers, over a connection of its own."""
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            found = cursor.fetchall()
        connection.commit()
        return found
    finally:
        connection.close()


def postgres_dump(url: str) -> list[Any]:
    rows = query(
        url,
        "SELECT entity, event_time, sequence, tick_time, seq, op, array_send(fields)::text,"
        ' array_send(features)::text, status::text, known_at, partition, "offset", index'
        " FROM tickwell.feature_rows ORDER BY 1, 2, 3",
    )
    rejected = 'SELECT "offset", index, reason FROM tickwell.rejected_ticks ORDER BY 1, 2'
    return [rows, query(url, rejected)]


def empty(redis_url: str, postgres_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    empty_postgres(postgres_url)


def empty_postgres(postgres_url: str) -> None:
    connection = psycopg2.connect(postgres_url)
    connection.autocommit = True
    connection.cursor().execute(
        "TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks,"
        " tickwell.rejected_ticks"
    )
    connection.close()


def clean_dump(opened: Opened, redis_url: str, log: Iterable[Run]) -> dict[bytes, bytes]:
    """What Redis holds when one worker has stored everything, and nothing went wrong."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    alone = worker(opened(OnlineSink(redis_url)))
    for run in log:
        alone.materialize(run, GO_ON)
    return redis_dump(redis_url)
