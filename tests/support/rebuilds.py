"""What tests of rebuilding Redis share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from threading import Event
from typing import Any, Protocol, TypeVar

import psycopg2
from msgspec import structs

from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.rebuild.rebuild import Done, Rebuild, RebuildLimits
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.connection import ENTITIES_A_CALL, WarmRedis
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.redis.states import load_states
from registry import redis_clients
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.features_file import read
from registry.lifecycle.recording import record
from tests.support.logs import TOPIC_ID
from tests.support.shipped import SOURCE
from tests.support.sinks import GO_ON, closing, worker
from tests.support.stored import everything, forget

HISTORY = 64
KEPT = structs.replace(SOURCE, history=HISTORY)
"""The price source, of whose entities so few ticks are kept."""

TOPIC = Topic("ticks.price", TOPIC_ID, 1)
OTHER = Topic("ticks.price", bytes(16), 2)
SYMBOLS = [f"S{number}" for number in range(9)]
LEFT_OUT = (
    b":states:",
    b":chunks:",
    b":filled:",
    b":closed:",
    b":begun:",
    b":writer:",
    b":schema:",
)
"""Kinds of keys that `Stores.rows` leaves out."""


class Closes(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closes)


class Stores:
    """A Redis, and a database that knows the shipped features."""

    def __init__(
        self, redis_url: str, postgres: str, stack: ExitStack, cluster: bool = False
    ) -> None:
        self.redis_url, self.postgres, self._stack = redis_url, postgres, stack
        self.cluster = cluster
        self.entities_a_call = ENTITIES_A_CALL
        self.limits = RebuildLimits()
        engine = connect(postgres)
        self.catalog: Catalog = record(engine, read(), "test")
        engine.dispose()

    def keep(self, opened: T) -> T:
        """Closes it after the test."""
        self._stack.callback(opened.close)
        return opened

    def redis(self) -> WarmRedis:
        return self.keep(WarmRedis(self.redis_url, self.cluster))

    def client(self) -> Any:
        """A client, to be closed, of what the stores of the tests are beside the product."""
        return redis_clients.warm(self.redis_url, self.cluster)

    def sink(self) -> OnlineSink:
        calls = self.entities_a_call
        return self.keep(OnlineSink(self.redis_url, self.cluster, calls))

    def online(self) -> Materializer:
        return worker(self.sink(), history=HISTORY)

    def offline(self) -> Materializer:
        return worker(self.keep(OfflineSink(self.postgres)))

    def rebuild(self) -> Rebuild:
        return Rebuild(self.postgres, self.redis(), self.catalog, Event(), self.limits)

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def delete(self, *keys: str) -> None:
        with self.client() as client:
            client.delete(*keys)

    def forget(self, *entities: str) -> None:
        """Redis loses these entities of the price source."""
        with self.client() as client:
            for entity in entities:
                forget(client, SOURCE.name, entity)

    def execute(self, statement: str, *arguments: Any) -> None:
        connection = psycopg2.connect(self.postgres)
        connection.autocommit = True
        try:
            connection.cursor().execute(statement, arguments)
        finally:
            connection.close()

    def rows(self) -> dict[bytes, Any]:
        """Rows, members and watermarks, as bytes.

        Not the last closes: of two that closed at once a rebuild may name the other one. Not who
        writes, the row schema, or how far runs were begun, which say nothing of what is stored.
        """
        with self.client() as client:
            found: dict[bytes, Any] = {
                key: everything(client, key)
                for key in client.keys("tw:3:*")
                if not any(kind in key for kind in LEFT_OUT)
            }
            return found

    def states(self, entities: Sequence[str]) -> dict[str, Any]:
        """What of the states decides what comes next."""
        return {
            entity: (
                state.origin,
                state.sequence,
                min(state.fill, HISTORY),
                min(state.count, HISTORY),
                state.ticks.tobytes(),
            )
            for entity, state in load_states(self.redis(), SOURCE, entities, HISTORY).items()
        }


def quiet(done: Done) -> None:
    """Nothing is to happen while it works."""


def at_work(*steps: Callable[[], None]) -> Callable[[Done], None]:
    """Does something else at each of the first moments in which a rebuild says how far it is."""
    waiting = list(steps)

    def step(done: Done) -> None:
        if waiting:
            waiting.pop(0)()

    return step


def nothing() -> None:
    pass


def both(stores: Stores, log: Sequence[Run]) -> None:
    """Both stores take the runs of a log, by workers that are new and end then."""
    with closing() as opened:
        calls = stores.entities_a_call
        sink = opened(OnlineSink(stores.redis_url, entities_a_call=calls))
        online = worker(sink, history=HISTORY)
        offline = worker(opened(OfflineSink(stores.postgres)))
        for run in log:
            online.materialize(run, GO_ON)
            offline.materialize(run, GO_ON)


def in_partition(run: Run, partition: int, topic: Topic) -> Run:
    return replace(run, partition=partition, topic_id=topic.topic_id)
