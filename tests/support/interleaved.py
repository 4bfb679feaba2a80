"""Workers of one Redis that take its partitions from each other at any moment, and what goes wrong.

All of it is decided by a seed, in one thread: what happens between two scripts of a worker is
called from within it.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis

from pipelines.errors import StoreUnavailable, StoreWentBack
from pipelines.kafka.run import Run
from pipelines.live.materializer import ComputedRun
from pipelines.stores.redis.connection import ENTITIES_A_CALL
from pipelines.stores.redis.online_sink import OnlineSink
from registry.formats.redis_keys import writer_key
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, TOPIC_ID, run_of_columns
from tests.support.shipped import SOURCE
from tests.support.sinks import BEGIN, GO_ON, before_each_write, worker
from tests.support.states import State, loaded
from tests.support.stored import all_rows

PARTITIONS = 2
SYMBOLS = [f"S{number}" for number in range(7)]
"""Each is at home in the partition that its number modulo their number is."""

FIRST = 4
"""Records of each partition that have the first ticks of the symbols at home there."""

Log = Sequence[Sequence[Record]]
"""The records of each partition; offsets are indexes."""


def make_log(chance: random.Random, n: int) -> Log:
    """Ticks of all symbols, the first of each at home; some later ones are not."""
    log: list[list[Record]] = []
    now = NOW_MS
    for partition in range(PARTITIONS):
        at_home = SYMBOLS[partition::PARTITIONS]
        records = []
        for offset in range(n):
            now += chance.choice([0, 0, 1, 3])
            symbol = chance.choice(SYMBOLS if chance.random() < 0.2 else at_home)
            if offset < len(at_home):
                symbol = at_home[offset]
            late = chance.choice([0, 0, 0, 1, 900, 1500])
            tick: dict[str, Any] = {"symbol": symbol, "price": offset % 97 + 1, "ts": now - late}
            if chance.random() < 0.4:
                tick["seq"] = chance.randrange(6)
            if chance.random() < 0.02:
                tick["op"] = "reset"
            value = json.dumps(tick).encode()
            records.append(Record("ticks.price", partition, offset, now, symbol.encode(), value))
        log.append(records)
    return log


def run_of(log: Log, partition: int, begin: int, end: int) -> Run:
    part = log[partition][begin:end]
    return run_of_columns(
        partition,
        (begin, end),
        [record.offset for record in part],
        [record.timestamp_ms for record in part],
        [record.key for record in part],
        [record.value for record in part],
    )


def stored(url: str) -> tuple[Mapping[bytes, bytes], dict[str, State]]:
    """Rows by their bits, and states by their ticks."""
    sink = OnlineSink(url)
    try:
        states = loaded(sink, SOURCE, SYMBOLS, 64, BEGIN)
    finally:
        sink.close()
    with redis.Redis.from_url(url) as client:
        return all_rows(client, "price"), states


class Interleaved:
    """A log, a Redis, and workers of it; `happened` counts what happened between two scripts."""

    def __init__(self, url: str, seed: int, records: int = 200, workers: int = 3) -> None:
        self.chance = random.Random(seed)
        self.url = url
        self.log = make_log(self.chance, records)
        self.happened: dict[str, int] = {}
        self.faults = True
        self._client = redis.Redis.from_url(url)
        self._deep = 0
        self._kept: dict[bytes, bytes] = {}
        self._client.flushall()
        self.begin_homes()
        self.workers = [Worker(self) for _ in range(workers)]

    def begin_homes(self) -> None:
        """Store the first tick of each symbol."""
        sink = OnlineSink(self.url)
        work = worker(sink)
        for partition in range(PARTITIONS):
            work.materialize(run_of(self.log, partition, 0, FIRST), GO_ON)
        sink.close()

    def step(self) -> None:
        self.chance.choice(self.workers).step()

    def finish(self) -> None:
        """Nothing goes wrong any more, and one worker stores what is left."""
        self.faults = False
        last = self.workers[0]
        last.settle()  # its store may have gone back before
        while not all(last.at[p] >= len(self.log[p]) for p in range(PARTITIONS)):
            last.settle()
            last.step()
        last.settle()
        last.begin_generation()
        assert last.at == [len(records) for records in self.log]

    def close(self) -> None:
        for each in self.workers:
            each.sink.close()
        self._client.close()

    def between(self, who: Worker) -> None:
        """Called between two scripts of a worker."""
        if not self.faults or self._deep > 1 or self.chance.random() > 0.5:
            return
        self._deep += 1
        try:
            what = self.chance.choice(
                ["computes ahead"] * 4
                + ["others go on"] * 4
                + ["is refused", "forgets its scripts"]
                + ["was rebuilt", "is kept", "lost its last second"]
            )
            self.happened[what] = self.happened.get(what, 0) + 1
            self._acts()[what](who)
        finally:
            self._deep -= 1

    def _acts(self) -> dict[str, Callable[[Worker], object]]:
        def refused(_: Worker) -> None:
            raise StoreUnavailable("the connection is gone")

        return {
            "computes ahead": Worker.compute_ahead_of_a_store,
            "others go on": self._others,
            "is refused": refused,
            "forgets its scripts": lambda _: self._client.script_flush(),
            "was rebuilt": self._end_writing,
            "is kept": lambda _: self._keep(),
            "lost its last second": lambda _: self._set_back(),
        }

    def _others(self, who: Worker) -> None:
        others = [each for each in self.workers if each is not who and not each.is_storing]
        for _ in range(self.chance.randrange(1, 4) if others else 0):
            self.chance.choice(others).step()

    def _end_writing(self, _: Worker) -> None:
        """What a rebuild does beside writing what is older."""
        self._client.delete(writer_key(TOPIC_ID, self.chance.randrange(PARTITIONS)))

    def _keep(self) -> None:
        self._kept = {key: self._client.dump(key) for key in self._client.keys("*")}

    def _set_back(self) -> None:
        if self._kept:
            self._client.flushall()
            for key, value in self._kept.items():
                self._client.restore(key, 0, value)


class Worker:
    """A worker, as its agent uses it: a run is computed while the one before it is stored."""

    def __init__(self, world: Interleaved) -> None:
        self._world = world
        self.is_storing = False
        self.start()

    def start(self) -> None:
        chance = self._world.chance
        self.sink = OnlineSink(
            self._world.url,
            entities_a_call=chance.choice([1, 2, 3, ENTITIES_A_CALL]),
        )
        history = chance.choice([64, 80, 256])
        self._work = worker(self.sink, capacity=chance.choice([2, 3, 50]), history=history)
        self._computed: deque[tuple[Run, ComputedRun | None]] = deque()
        self._position()
        before_each_write(self.sink, lambda _: self._world.between(self))

    def _position(self) -> None:
        known = self.sink.watermarks(TOPIC_ID, range(PARTITIONS))
        self.at = [known.get(partition, 0) for partition in range(PARTITIONS)]

    def step(self) -> None:
        """Whatever comes next; a worker that finds that its store went back starts again."""
        try:
            what = self._world.chance.random()
            if what < 0.4:
                self.compute() if not self._computed else self.store()
            elif what < 0.6:
                self.store()
            elif what < 0.8:
                self.store_all()
                run = self._next_run()
                if run is not None:
                    self._stored(lambda: self._work.materialize(run, GO_ON))
            else:
                self.begin_generation()
        except StoreWentBack:
            self.sink.close()
            self.start()

    def compute(self) -> None:
        run = self._next_run()
        if run is not None:
            self._computed.append((run, self._work.compute_ahead(run)))

    def compute_ahead_of_a_store(self) -> None:
        """Compute the next run while one is being stored, unless that is done."""
        if not self._computed and self._is_first_attempt:
            self.compute()

    def store(self) -> None:
        if self._computed:
            run, computed = self._computed.popleft()
            self._is_first_attempt = True
            stored = computed and self._stored(lambda: self._work.store(computed))
            self._is_first_attempt = False
            if stored is None:
                self._stored(lambda: self._work.materialize_again(run, GO_ON))

    def store_all(self) -> None:
        while self._computed:
            self.store()

    def settle(self) -> None:
        """Store what is computed, or start again where the store went back."""
        try:
            self.store_all()
        except StoreWentBack:
            self.sink.close()
            self.start()

    def begin_generation(self) -> None:
        self.store_all()
        self._work.forget()
        self._position()

    _is_first_attempt = False
    """Whether the thread that computes is free while a run is being stored."""

    def _stored(self, act: Callable[[], Any]) -> Any:
        self.is_storing = True
        try:
            return act()
        finally:
            self.is_storing = False

    def _next_run(self) -> Run | None:
        chance, partition = self._world.chance, self._world.chance.randrange(PARTITIONS)
        begin = self.at[partition]
        end = min(begin + chance.choice([1, 3, 9, 30]), len(self._world.log[partition]))
        if begin == end:
            return None
        self.at[partition] = end
        return run_of(self._world.log, partition, begin, end)
