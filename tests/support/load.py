"""Ticks at once and all the while, and a reader that notes each step back."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

from redis.exceptions import RedisError

from registry.formats.row import unpack
from tests.support.pipeline import Pipeline
from tests.support.stored import stored_rows

SYMBOLS = [f"S{number}" for number in range(40)]


def burst(number: int) -> list[tuple[bytes, bytes]]:
    """Messages of 300 ticks of nine symbols, the `number`-th of their kind."""
    now = time.time_ns() // 10**6
    made = [
        {"symbol": f"S{i % 9}", "price": 1 + i % 13, "ts": now, "seq": 1000 * number + i}
        for i in range(300)
    ]
    return [(str(tick["symbol"]).encode(), json.dumps(tick).encode()) for tick in made]


def random_ticks(chance: random.Random, now: int) -> list[tuple[bytes, bytes]]:
    """Messages of 1,000 ticks about `now` in milliseconds: late ones, duplicates and resets too."""
    made = []
    for _ in range(1000):
        symbol = f"S{chance.randrange(12)}"
        tick = {"symbol": symbol, "price": chance.uniform(1, 2), "ts": now - chance.randrange(1500)}
        if chance.random() < 0.5:
            tick["seq"] = chance.randrange(50)
        if chance.random() < 0.01:
            tick["op"] = "reset"
        made.append((symbol.encode(), json.dumps(tick).encode()))
    return made


def random_positions(chance: random.Random, now: int) -> list[tuple[bytes, bytes]]:
    """Messages of 400 ticks about `now` in milliseconds: nothing held, closes, resets, and back."""
    made = []
    for number in range(400):
        tick: dict[str, Any] = {"portfolio": f"P{chance.randrange(7)}"}
        tick |= {"symbol": f"S{chance.randrange(4)}", "ts": now + number - chance.randrange(1500)}
        if chance.random() < 0.3:
            tick["op"] = chance.choice(["close", "close", "reset"])
        else:
            tick["quantity"] = chance.choice([0, -0.0, *[chance.randint(-500, 500)] * 6])
        if chance.random() < 0.6:
            tick["multiplier"] = chance.choice([1, 10, 0.1])
        made.append((str(tick["portfolio"]).encode(), json.dumps(tick).encode()))
    return made


@contextmanager
def load(running: Pipeline, a_second: int = 2000) -> Iterator[None]:
    """Ticks all the while, about so many; the oracle must follow afterwards."""
    stop = Event()

    def send() -> None:
        producer = running.producer(**{"linger.ms": 2})
        number = 0
        while not stop.is_set():
            for _ in range(a_second // 20):
                symbol = SYMBOLS[number % len(SYMBOLS)]
                now = time.time_ns() // 10**6
                tick = {"symbol": symbol, "price": 100 + number % 97, "ts": now, "seq": number}
                producer.produce(running.topic("price"), json.dumps(tick), symbol)
                number += 1
            producer.poll(0)
            stop.wait(0.05)
        assert producer.flush(60) == 0

    thread = Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def reader(
    running: Pipeline, symbols: Sequence[str] = SYMBOLS, may_vanish: bool = False
) -> Iterator[list[str]]:
    """Polls rows and notes each time that one steps back.

    With `may_vanish` a row may go, and come back as it was earlier.
    """
    stop, reads = Event(), [0]
    steps_back: list[str] = []

    def poll() -> None:
        newest: dict[str, tuple[int, int]] = {}
        with running.redis() as client:
            while not stop.is_set():
                try:
                    rows = stored_rows(client, "price", symbols)
                except RedisError:  # it is being restarted
                    stop.wait(0.05)
                    continue
                for symbol, packed in zip(symbols, rows, strict=True):
                    if packed is None:
                        if newest.pop(symbol, None) is not None and not may_vanish:
                            steps_back.append(f"{symbol} is gone")
                        continue
                    row = unpack(packed)
                    at = (row.event_time, row.sequence)
                    if at < newest.get(symbol, at):
                        steps_back.append(f"{symbol}: {newest[symbol]} to {at}")
                    newest[symbol] = at
                    reads[0] += 1
                stop.wait(0.002)

    thread = Thread(target=poll)
    thread.start()
    try:
        yield steps_back
    finally:
        stop.set()
        thread.join()
        assert reads[0] > 1000


def progress(running: Pipeline, sink: str) -> int:
    """How many offsets the store has."""
    if sink == "offline":
        ((offsets,),) = running.query(
            "SELECT coalesce(sum(next_offset), 0) FROM tickwell.watermarks"
        )
        return int(offsets)
    with running.redis() as client:
        return sum(int(client.get(key)) for key in client.scan_iter("tw:3:watermark:*"))
