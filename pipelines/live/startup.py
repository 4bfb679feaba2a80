"""How a worker begins: it waits for the catalog, the topics and its store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import Literal, TypeVar

from faust.types import TP
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipelines.compute.window_table import depth_of
from pipelines.errors import (
    BrokerUnavailable,
    HistoryTooShort,
    PartitionsChanged,
    StoreUnavailable,
)
from pipelines.kafka.topic_identity import Incarnations
from pipelines.kafka.topics import Topic, find_topics
from pipelines.live.faust_app import Pipeline
from pipelines.live.materializer import Materializer
from pipelines.live.rejected_relay import Relay
from pipelines.rebuild.rebuild import Done, Rebuild
from pipelines.runtime.daemon_threads import keep_running
from pipelines.runtime.patience import Patience
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.client import answers, open_warm
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.fill_marks import FillMarks
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.sink import Sink
from registry import catalog as recorded
from registry.consistency import check_rejected_topic
from registry.database.engine import connect
from registry.database.month_partitions import attach_ahead
from registry.definitions import Catalog
from registry.formats.redis_keys import CATALOG_KEY
from registry.language.program import compile_program

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAINTENANCE_SECONDS = 3_600.0
SAY_SECONDS = 10.0
"""How often the log tells how far a rebuild is."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is told: addresses, its group and its name in it, and sizes.

    A static member of its group has its partitions back when it starts again; who was not heard of
    for `session` seconds loses them. `history` is how many ticks Redis keeps of an entity,
    `capacity` of how many entities the windows are kept at hand. With `metrics_port` Prometheus
    metrics are served on `metrics_host`.
    """

    sink: Literal["online", "offline"]
    kafka: str
    redis: str
    redis_hot: str
    postgres: str
    group: str
    instance: str
    rejected_topic: str
    static_member: bool = True
    session: float = 6.0
    history: int = 1024
    capacity: int = 100_000
    cluster: bool = False
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


class Startup:
    """What a worker needs before its first tick; `error` says what it waits for."""

    def __init__(self, options: WorkerOptions, stop: Event) -> None:
        self._options = options
        self._stop = stop
        self._materializers: dict[str, Materializer] = {}
        self._preparing = Patience(
            "a service that the worker needs to start", (StoreUnavailable, BrokerUnavailable)
        )
        self._finding_positions = Patience(f"the {options.sink} store")
        self._filling: FillMarks | None = None
        self._rebuilding: str | None = None
        self._topics: list[Topic] = []

    @property
    def error(self) -> str | None:
        """Why the store, or something before it, does not answer; any thread may ask."""
        if self._rebuilding is not None:
            return "; ".join(filter(None, (self._rebuilding, self._preparing.refusal)))
        return (
            self._preparing.reason
            or self._finding_positions.reason
            or next((m.retrying for m in self._materializers.values() if m.retrying), None)
        )

    @property
    def partitions(self) -> dict[str, int]:
        """How many partitions each topic has that is read; empty before they are looked up."""
        return {topic.name: topic.partitions for topic in self._topics}

    def prepare(self) -> Pipeline:
        """Wait for what is needed to begin: the catalog, the topics, the store."""
        options = self._options
        engine = connect(options.postgres, pool_pre_ping=True)
        catalog = self._wait(lambda: self._load_catalog(engine))
        sources = {
            source.topic: source
            for source in catalog.sources.values()
            if source.name in catalog.writing
        }
        check_rejected_topic(sources.values(), options.rejected_topic, "the registry")
        topics = self._wait(lambda: find_topics(options.kafka, list(sources), self._stop))
        self._topics = list(topics.values())
        sinks: dict[str, Sink] = {}
        for topic, source in sources.items():
            schema = catalog.schemas[catalog.writing[source.name]]
            program = compile_program(catalog, schema)
            sinks[topic] = sink = self._sink(source.name)
            self._check_partitions(sink, topics[topic])
            if depth_of(program) > options.history:
                raise HistoryTooShort(options.history, depth_of(program))
            self._materializers[source.name] = Materializer(
                source, schema, program, sink, options.capacity
            )
        if options.sink == "offline":
            # a look-up must not share a connection with a store that is under way; in Redis it may,
            # and there the sink must know of every watermark that was seen
            sinks = dict.fromkeys(sources, self._sink("positions"))
            self._start_relay()
            self._start_maintenance(engine)
        else:
            self._fill(catalog, {source.name: topics[topic] for topic, source in sources.items()})

        def watermarks(tps: Iterable[TP]) -> Mapping[TP, int | None]:
            with self._finding_positions.attempt(), self._finding_positions.call():
                found = {
                    tp: sinks[tp.topic].watermarks(topics[tp.topic].topic_id, [tp.partition])
                    for tp in tps
                }
                unknown = {tp.topic for tp, stored in found.items() if not stored}
                if self._filling is not None and unknown:
                    self._filling.check([topics[topic] for topic in sorted(unknown)])
            return {tp: stored.get(tp.partition) for tp, stored in found.items()}

        return Pipeline(
            materializers=self._materializers,
            sources={source.name: source for source in sources.values()},
            incarnations=Incarnations(options.kafka, topics),
            watermarks=watermarks,
            stop=self._stop,
            pace=min(sink.pace for sink in sinks.values()),
        )

    def _wait(self, attempt: Callable[[], T]) -> T:
        """Try until what is away answers, or the worker is asked to stop."""

        def call() -> T:
            with self._preparing.call():
                return attempt()

        return self._preparing.retry(call, self._stop)

    def _load_catalog(self, engine: Engine) -> Catalog:
        """From Postgres; the online worker has a copy in Redis and does without Postgres."""
        options = self._options
        try:
            catalog = recorded.load(engine)
        except DBAPIError as error:
            if options.sink == "offline":
                raise StoreUnavailable(f"Postgres: {error.orig}") from error
        else:
            try:
                with closing(open_warm(options.redis, options.cluster)) as store, answers():
                    store.set(CATALOG_KEY, recorded.encode(catalog))
            except StoreUnavailable as error:
                logger.warning("no copy of the catalog is kept: %s", error)
            return catalog
        with closing(open_warm(options.redis, options.cluster)) as store, answers():
            copy = store.get(CATALOG_KEY)
        if copy is None:
            raise StoreUnavailable("Postgres is away, and Redis has no copy of the catalog yet")
        return recorded.decode(copy)

    def _sink(self, source: str) -> Sink:
        options = self._options
        if options.sink == "online":
            return OnlineSink(options.redis, options.history, options.cluster)
        return OfflineSink(options.postgres, f"tickwell {options.instance} {source}")

    def _check_partitions(self, sink: Sink, topic: Topic) -> None:
        settled = self._wait(lambda: sink.settle(topic))
        if settled != topic.partitions:
            raise PartitionsChanged(topic.name, settled, topic.partitions)

    def _fill(self, catalog: Catalog, topics: Mapping[str, Topic]) -> None:
        """Rebuild from Postgres what this Redis should have and has not; waits for both."""
        options = self._options
        redis = WarmRedis(options.redis, options.cluster)
        rebuild = Rebuild(options.postgres, redis, catalog, options.history, self._stop)
        said = 0.0

        def say(done: Done) -> None:
            nonlocal said
            self._rebuilding = str(done) if done.entities else None
            if self._rebuilding and time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                logger.info("%s", self._rebuilding)

        for name, topic in topics.items():
            self._wait(partial(rebuild.fill, catalog.sources[name], topic, say))
            if self._rebuilding is not None:
                logger.info("done %s", self._rebuilding)
                self._rebuilding = None
        self._filling = FillMarks(redis)

    def confirm_filled(self) -> None:
        """Look whether Redis was emptied since: its values are gone, and no tick may tell of it.

        Raises `RedisEmptied`, and `StoreUnavailable` while Redis is away.
        """
        if self._filling is not None:
            self._filling.check(self._topics)

    def _start_relay(self) -> None:
        options = self._options

        def relay() -> None:
            Relay(options.postgres, options.kafka, options.rejected_topic).run(self._stop)

        keep_running("relay", relay, self._stop)

    def _start_maintenance(self, engine: Engine) -> None:
        def maintain() -> None:
            try:
                attach_ahead(engine, datetime.now(UTC))
            except DBAPIError as error:
                logger.warning("no partitions were attached: %s", error.orig)
            self._stop.wait(MAINTENANCE_SECONDS)

        keep_running("maintenance", maintain, self._stop)
