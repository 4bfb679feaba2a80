"""A load generator: one process, which asks over many connections. `python -m tickwell.bench.load`

It reads a `Plan` from standard input, connects, and says so; reads when to begin; and writes how
far it is and at last what it has seen: pickles, to and from the process that started it. It ends
when that one does.

In a *closed loop* each connection asks again when its answer has come, so there are always as many
requests under way as connections, and a slow server is asked less. In an *open loop* requests are
due at random moments, a given number a second whatever the server does, and a time begins when its
request was due: so a stall is paid for by all that was due meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tickwell.bench.connection import Connection
from tickwell.bench.draws import Draws
from tickwell.bench.tally import Tally
from tickwell.open_files import allow_most_files

CONNECT_AT_ONCE = 50
RECONNECT_SECONDS = 1.0
PROGRESS_SECONDS = 0.25
PACE_SECONDS = 0.001
WAITING = 100_000
"""Requests that are due and for which no connection is free; what comes more is a failure."""


class Plan(NamedTuple):
    """What a generator does. Its `repr` may hold a key, and is shown nowhere."""

    host: str
    port: int
    tls: str | None
    """None for plain HTTP, else the path of an authority's certificate, "" for the public ones."""
    head: bytes
    """The head of every request, up to the number of its Content-Length."""
    before: bytes
    """The body up to the entities."""
    after: bytes
    entities: list[bytes]
    """The JSON of each, the one that is drawn most often first."""
    features: int
    exponent: float
    at_once: int
    """Entities a request."""
    connections: int
    rate: float | None
    """Requests a second of an open loop, None for a closed one."""
    warm_up_seconds: float
    seconds: float
    seed: int
    timeout_seconds: float = 10.0
    """After so long a request counts as failed, and its connection is closed."""


class Load:
    """The requests of a plan, from its first to its last moment."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._draws = Draws(len(plan.entities), plan.exponent, plan.seed)
        self._random = np.random.default_rng(plan.seed)
        self.tally = Tally(len(plan.entities), plan.features * plan.at_once)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._due: deque[float] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._context: ssl.SSLContext | None = None
        self._counted_from = self._until = float("inf")
        self._is_on = False
        self._too_late = f"no answer within {plan.timeout_seconds:g} s"
        self.finished = 0

    async def connect(self) -> None:
        """Open all connections. Raises OSError where one cannot be opened."""
        if self._plan.tls is not None:
            self._context = ssl.create_default_context(cafile=self._plan.tls or None)
        for first in range(0, self._plan.connections, CONNECT_AT_ONCE):
            number = min(CONNECT_AT_ONCE, self._plan.connections - first)
            await asyncio.gather(*(self._connect() for _ in range(number)))

    async def run(self, begin: float, told: Callable[[int], None]) -> None:
        """Ask from the moment `begin` (monotonic clock) on; `told` is called a few times a second.

        What was asked in the measured time is waited for, up to the limit for an answer. Then all
        connections end.
        """
        plan = self._plan
        while (left := begin - time.monotonic()) > 0:  # a loop may wake up a little too early
            await asyncio.sleep(left)
        offset = time.perf_counter() - time.monotonic()
        self._counted_from = begin + offset + plan.warm_up_seconds
        self._until = self._counted_from + plan.seconds
        self._is_on = True
        if plan.rate is None:
            while self._idle:
                self._ask(self._idle.pop(), time.perf_counter())
        else:
            pacing = asyncio.create_task(self._pace(begin + offset, plan.rate))
        while (left := self._until - time.perf_counter()) > 0:
            await asyncio.sleep(min(PROGRESS_SECONDS, left))
            self._give_up_late_ones()
            told(self.finished)
        self._is_on = False
        if plan.rate is not None:
            await pacing
        while self._is_waited_for() and time.perf_counter() < self._until + plan.timeout_seconds:
            await asyncio.sleep(PACE_SECONDS)
        for connection in self._open:
            if connection.is_asking and self._counts(connection.began):
                self._fail(connection, self._too_late)
        for due in self._due:
            if self._counts(due):
                self.tally.failed("no connection was free")
        for task in self._opening:
            task.cancel()
        for connection in self._open:
            connection.abort("the load is over")

    def _is_waited_for(self) -> bool:
        return bool(self._due) or any(c.is_asking and self._counts(c.began) for c in self._open)

    def _counts(self, began: float) -> bool:
        """Whether a request that was due at a moment is measured."""
        return self._counted_from <= began < self._until

    async def _connect(self) -> None:
        loop, plan = asyncio.get_running_loop(), self._plan
        _, connection = await loop.create_connection(
            lambda: Connection(self._answered, self._lost),
            plan.host,
            plan.port,
            ssl=self._context,
        )
        self._open.add(connection)
        self._is_free(connection)

    def _ask(self, connection: Connection, began: float) -> None:
        plan = self._plan
        ranks = [next(self._draws) for _ in range(plan.at_once)]
        entities = b",".join([plan.entities[rank] for rank in ranks])
        body = b"%b%b%b" % (plan.before, entities, plan.after)
        connection.began, connection.asked = began, ranks
        connection.ask(b"%b%d\r\n\r\n%b" % (plan.head, len(body), body))

    def _is_free(self, connection: Connection) -> None:
        now = time.perf_counter()
        if self._due:
            self._ask(connection, self._due.popleft())
        elif self._is_on and self._plan.rate is None and now < self._until:
            self._ask(connection, now)
        else:
            self._idle.append(connection)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        self.finished += 1
        if self._counts(connection.began):
            self.tally.drew(connection.asked)
            self.tally.answered(time.perf_counter() - connection.began, status, body)
        if not connection.is_last:
            self._is_free(connection)

    def _lost(self, connection: Connection, why: str) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.is_asking and self._counts(connection.began):
            self._fail(connection, why)
        self._again(0.0)

    def _fail(self, connection: Connection, why: str) -> None:
        connection.is_asking = False
        self.tally.drew(connection.asked)
        self.tally.failed(why)

    def _again(self, after: float) -> None:
        """Open a connection in place of one that is lost."""
        if self._is_on:
            task = asyncio.get_running_loop().create_task(self._reconnect(after))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _reconnect(self, after: float) -> None:
        await asyncio.sleep(after)
        began = time.perf_counter()
        try:
            await self._connect()
        except OSError as error:
            if self._counts(began):
                self.tally.failed(f"no connection: {error.strerror or error}")
            self._again(RECONNECT_SECONDS)

    def _give_up_late_ones(self) -> None:
        since = time.perf_counter() - self._plan.timeout_seconds
        for connection in list(self._open):
            if connection.is_asking and connection.began < since:
                connection.abort(self._too_late)

    async def _pace(self, due: float, rate: float) -> None:
        """Ask what is due, at moments that are independent of each other (a Poisson process)."""
        while self._is_on:
            now = time.perf_counter()
            while due <= now and due < self._until:
                if self._idle:
                    self._ask(self._idle.pop(), due)
                elif len(self._due) < WAITING:
                    self._due.append(due)
                elif self._counts(due):
                    self.tally.failed("no connection was free")
                due += self._random.exponential(1.0 / rate)
            await asyncio.sleep(PACE_SECONDS)


async def _generate(plan: Plan) -> None:
    def say(kind: str, what: object) -> None:
        pickle.dump((kind, what), sys.stdout.buffer)
        sys.stdout.buffer.flush()

    load = Load(plan)
    try:
        await load.connect()
    except OSError as error:
        say("failed", str(error))
        return
    say("ready", None)
    begin = pickle.load(sys.stdin.buffer)
    # nothing more is written to it: it becomes readable when the process at its other end is gone
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), os._exit, 1)
    await load.run(begin, lambda finished: say("progress", finished))
    say("seen", load.tally.seen())


def main() -> None:
    """Do what standard input says, with as many files open as the system lets it."""
    import uvloop

    allow_most_files()
    uvloop.run(_generate(pickle.load(sys.stdin.buffer)))


if __name__ == "__main__":
    main()
