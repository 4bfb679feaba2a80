"""Producers that write all the while: what they send is a function of the seed, when is not.

One for each source; one that sends what is not a tick, comes twice, late or to the wrong
partition; and one with transactions, of which it aborts a third.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from typing import Any

from confluent_kafka import KafkaException, Producer

SYMBOLS = tuple(f"S{number}" for number in range(40))
PORTFOLIOS = tuple(f"P{number}" for number in range(6))
PARTITIONER = "murmur2_random"
FLUSH_SECONDS = 60
SILENT = logging.Logger("silent", logging.CRITICAL + 1)
"""Unavailable brokers are a part of the test, so the client need not log them."""


@dataclass(frozen=True)
class Sent:
    """A message; `partition` where it goes against its key."""

    source: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None


@dataclass
class Load:
    """The producers. `rate` is messages a second of all; `topics` by source."""

    kafka: str
    seed: int
    rate: float
    topics: dict[str, str]
    partitions: int
    delivered: int = 0
    refused: int = 0
    committed: int = 0
    aborted: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = Event()
        self._lock = Lock()
        self._threads = [
            Thread(target=self._guarded, args=(work, *rest), name=f"producer {rest[0]}")
            for work, *rest in (
                (self._steady, "price", prices, 0.4),
                (self._steady, "volume", volumes, 0.2),
                (self._steady, "position", positions, 0.1),
                (self._steady, "hostile", self._hostile, 0.1),
                (self._transactions, "transactional", prices, 0.2),
            )
        ]

    def prime(self) -> None:
        """One good tick of every entity, so that each has its home before anything else is sent."""
        producer = self._producer()
        now = time.time_ns() // 10**6
        for symbol in SYMBOLS:
            for source, name in (("price", "price"), ("volume", "volume")):
                tick = {"symbol": symbol, name: 1.5, "ts": now}
                producer.produce(self.topics[source], json.dumps(tick), symbol)
            for portfolio in PORTFOLIOS:
                tick = {"portfolio": portfolio, "symbol": symbol, "quantity": 1, "ts": now}
                producer.produce(self.topics["position"], json.dumps(tick), portfolio)
        assert producer.flush(FLUSH_SECONDS) == 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, and wait until everything sent has an answer."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    # -- the threads

    def _guarded(self, work: Any, name: str, *rest: Any) -> None:
        try:
            work(name, *rest)
        except Exception as error:
            self.failures.append(f"producer {name}: {error!r}")
            raise

    def _steady(self, name: str, make: Any, share: float) -> None:
        producer = self._producer()
        messages = make(random.Random(f"{self.seed}/{name}"))
        for _ in self._paces(share):
            self._send(producer, next(messages))
            producer.poll(0)
        producer.flush(FLUSH_SECONDS)

    def _transactions(self, name: str, make: Any, share: float) -> None:
        chance = random.Random(f"{self.seed}/{name}")
        messages = make(chance)
        producer: Producer | None = None
        paces = self._paces(share)
        while not self._stop.is_set():
            size, aborts = chance.randint(1, 40), chance.random() < 0.3
            batch = [next(messages) for _ in range(size)]
            try:
                producer = producer or self._transactional_producer()
                producer.begin_transaction()
                for message in batch:
                    next(paces, None)
                    self._send(producer, message)
                    producer.poll(0)
                if aborts:
                    producer.abort_transaction(FLUSH_SECONDS)
                    self.aborted += 1
                else:
                    producer.commit_transaction(FLUSH_SECONDS)
                    self.committed += 1
            except KafkaException:
                # the outcome may not be known; the log has it, and a new producer fences this one
                producer = None
                self._stop.wait(0.5)
        if producer is None:
            # or its transaction stays open, and what follows it unread, when all seems to be read
            self._transactional_producer()

    def _transactional_producer(self) -> Producer:
        """A new one; the transaction that the one before it left open is aborted."""
        producer = self._producer(
            **{"transactional.id": f"chaos-{self.seed}", "transaction.timeout.ms": 20_000}
        )
        producer.init_transactions(FLUSH_SECONDS)
        return producer

    def _paces(self, share: float) -> Iterator[None]:
        """Once for each message that is due, until stopped."""
        pause, due = 1 / (self.rate * share), time.monotonic()
        while not self._stop.is_set():
            due = max(due + pause, time.monotonic() - 1)  # after a stall no burst of minutes
            wait = due - time.monotonic()
            if wait > 0:
                self._stop.wait(wait)
            yield

    def _producer(self, **settings: Any) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self.kafka,
                "partitioner": PARTITIONER,
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.timeout.ms": 60_000 if "transactional.id" not in settings else 15_000,
                "error_cb": lambda error: None,
                "log_level": 0,
                **settings,
            },
            logger=SILENT,
        )

    def _send(self, producer: Producer, sent: Sent) -> None:
        where: dict[str, Any] = {} if sent.partition is None else {"partition": sent.partition}
        while True:
            try:
                producer.produce(
                    self.topics[sent.source],
                    sent.value,
                    sent.key,
                    on_delivery=self._answered,
                    **where,
                )
                return
            except BufferError:
                producer.poll(0.1)

    def _answered(self, error: Any, message: Any) -> None:
        with self._lock:
            self.delivered += error is None
            self.refused += error is not None

    def _hostile(self, chance: random.Random) -> Iterator[Sent]:
        while True:
            yield from hostile(chance, self.partitions)


def prices(chance: random.Random) -> Iterator[Sent]:
    """Random walks with sizes, resets, and arrays of several ticks."""
    last = {symbol: chance.uniform(1, 1000) for symbol in SYMBOLS}
    number = 0
    while True:
        symbol = chance.choice(SYMBOLS)
        ticks = []
        for _ in range(chance.choice((1, 1, 1, 1, 5))):
            last[symbol] *= chance.choice((1.0, 1.0001, 0.9999, 1.01, 0.99))
            number += 1
            tick: dict[str, Any] = {"symbol": symbol, "price": last[symbol], "ts": _now()}
            tick |= {"seq": number} if chance.random() < 0.7 else {}
            tick |= {"size": chance.randint(1, 900)} if chance.random() < 0.5 else {}
            tick |= {"op": "reset"} if chance.random() < 0.002 else {}
            ticks.append(tick)
        yield _sent("price", symbol, ticks if len(ticks) > 1 else ticks[0])


def volumes(chance: random.Random) -> Iterator[Sent]:
    """Whole numbers, some of which say their time in text."""
    while True:
        symbol = chance.choice(SYMBOLS)
        ts = _now() if chance.random() < 0.8 else datetime.now(UTC).isoformat()
        yield _sent(
            "volume", symbol, {"symbol": symbol, "volume": chance.randint(1, 10**6), "ts": ts}
        )


def positions(chance: random.Random) -> Iterator[Sent]:
    """Holdings of a few portfolios, some of them nothing, some of them closed."""
    while True:
        portfolio, symbol = chance.choice(PORTFOLIOS), chance.choice(SYMBOLS)
        tick: dict[str, Any] = {"portfolio": portfolio, "symbol": symbol, "ts": _now()}
        if chance.random() < 0.1:
            tick |= {"op": chance.choice(("close", "close", "reset"))}
        else:
            tick |= {"quantity": chance.choice((0, -0.0, *[chance.randint(-500, 500)] * 8))}
            tick |= {"multiplier": chance.choice((1, 10, 0.1))} if chance.random() < 0.5 else {}
        yield _sent("position", portfolio, tick)


def hostile(chance: random.Random, partitions: int) -> Iterator[Sent]:
    """One of each thing that must be rejected, in an order of chance."""
    symbol = chance.choice(SYMBOLS)
    key = symbol.encode()
    now = _now()
    good = {"symbol": symbol, "price": 7.25, "ts": now, "seq": -chance.randint(1, 10**9)}
    made = [
        [_sent("price", symbol, good), _sent("price", symbol, good)],  # twice
        [_sent("price", symbol, good | {"ts": now - 5_000})],  # late
        [_sent("price", symbol, good | {"ts": now + 60_000})],
        [_sent("price", symbol, good | {"ts": -1})],
        [_sent("price", symbol, good | {"op": chance.choice(("cancel", "close"))})],
        [_sent("price", symbol, _edit(chance, good))],
        [_sent("price", symbol, good | {"price": "7 "})],
        [_sent("price", "S0" if symbol != "S0" else "S1", good)],
        [_sent("volume", symbol, {"symbol": symbol, "volume": -1, "ts": now})],
        [Sent("price", key, json.dumps(good).replace("7.25", "1e999").encode())],
        [Sent("price", key, json.dumps(good).replace("7.25", "NaN").encode())],
        [Sent("price", key, json.dumps(good).encode()[:-1])],
        [Sent("price", key, json.dumps([good | {"ts": now, "seq": 1}, 7, None]).encode())],
        [Sent("price", key, None)],
        [Sent("price", key, b"[]")],
        [Sent("price", key, b"\xff\xfe")],
        # a tick but for bytes that are not UTF-8, in a field that nobody reads
        [Sent("price", key, json.dumps(good | {"note": "?"}).encode().replace(b"?", b"\xff"))],
        # all homes are known since `prime`, so a tick in any other partition is rejected
        [
            Sent("price", key, json.dumps(good | {"seq": number}).encode(), number)
            for number in range(partitions)
        ],
    ]
    if chance.random() < 0.05:
        made.append([Sent("price", key, b'{"symbol": "' + b"x" * 270_000)])
    chance.shuffle(made)
    for each in made:
        yield from each


def _edit(chance: random.Random, good: dict[str, Any]) -> dict[str, Any]:
    """A cancel or a correction of a tick, or of one that nobody has seen."""
    named = {"ts": good["ts"], "seq": chance.choice((good["seq"], good["seq"], 5))}
    price = chance.uniform(1, 1000)
    return good | {"op": chance.choice(("cancel", "correct")), "of": named, "price": price}


def _sent(source: str, key: str, content: object) -> Sent:
    return Sent(source, key.encode(), json.dumps(content).encode())


def _now() -> int:
    return time.time_ns() // 10**6


def entities(source: str) -> Sequence[tuple[str, ...]]:
    """Every entity of a source."""
    if source == "position":
        return [(portfolio, symbol) for portfolio in PORTFOLIOS for symbol in SYMBOLS]
    return [(symbol,) for symbol in SYMBOLS]
