"""A worker process: one consumer group's member, bringing ticks into one store."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Event, Thread
from typing import Any, Literal, TypeVar

import redis
from faust.types import TP
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception_type, wait_random_exponential

from pipelines.app import Pipeline, SinkApp, create_app
from pipelines.errors import (
    BrokerUnavailable,
    PartitionsChanged,
    PipelineError,
    StoreUnavailable,
    TopicRecreated,
)
from pipelines.filling import Filling, RedisEmptied
from pipelines.heartbeats import SECONDS, Heartbeats
from pipelines.materializer import Materializer
from pipelines.offline import OfflineSink
from pipelines.online import OnlineSink
from pipelines.rebuild import Done, Rebuild
from pipelines.relay import Relay
from pipelines.runs import Batch, Run
from pipelines.sink import Sink
from pipelines.topics import Topic, describe
from pipelines.windows import depth_of
from registry import catalog as recorded
from registry.database import connect
from registry.definitions import Catalog
from registry.heartbeat import Heartbeat, PartitionLag
from registry.keys import CATALOG_KEY
from registry.partitions import attach_ahead
from registry.program import compile_program
from registry.rules import check_rejected_topic

logger = logging.getLogger(__name__)
T = TypeVar("T")

TOPIC_CHECK_SECONDS = 2.0
FILLING_CHECK_SECONDS = 1.0
SAY_SECONDS = 10.0
"""How often the log tells how far a rebuild is."""
MAINTENANCE_SECONDS = 3_600.0
SHUTDOWN_SECONDS = 8.0
"""What Faust may take to stop. The store has what it has; nothing is lost by going on without."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is told: addresses, its group and its name in it, and sizes.

    `history` is how many ticks Redis keeps of an entity, `capacity` of how many entities the
    windows are kept at hand. With `metrics_port` Prometheus metrics are served on `metrics_host`.
    """

    sink: Literal["online", "offline"]
    kafka: str
    redis: str
    redis_hot: str
    postgres: str
    group: str
    instance: str
    rejected_topic: str
    history: int = 1024
    capacity: int = 100_000
    cluster: bool = False
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


def run_worker(options: WorkerOptions) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code, 1 when only a new start can help."""
    return asyncio.run(_Worker(options).run())


class _Worker:
    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._stop = Event()
        self._heartbeats = Heartbeats(
            options.sink, options.instance, [options.redis, options.redis_hot]
        )
        self._metrics = _Metrics(options) if options.metrics_port else None
        self._waiting_for: str | None = None
        self._materializers: dict[str, Materializer] = {}
        self._positions_wait: str | None = None
        self._filling: Filling | None = None
        self._rebuilding: str | None = None
        self._app: SinkApp | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        def stop() -> None:
            self._stop.set()
            stopped.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        beating = asyncio.create_task(self._beat())
        try:
            pipeline, topics = await asyncio.to_thread(self._prepare)
            return await self._work(pipeline, topics, stopped)
        except PipelineError as error:
            if self._stop.is_set():
                return 0
            logger.error("%s", error)
            return 1
        finally:
            beating.cancel()

    # -- before the first tick

    def _prepare(self) -> tuple[Pipeline, Mapping[str, Topic]]:
        """Wait for what is needed to begin: the catalog, the topics, the store."""
        options = self._options
        engine = connect(options.postgres, pool_pre_ping=True)
        catalog = self._wait(lambda: self._load_catalog(engine))
        sources = {source.topic: source for source in catalog.sources.values()}
        check_rejected_topic(sources.values(), options.rejected_topic, "the registry")
        topics = self._wait(lambda: describe(options.kafka, list(sources)))
        sinks: dict[str, Sink] = {}
        for source in catalog.sources.values():
            if source.name not in catalog.writing:
                continue
            schema = catalog.schemas[catalog.writing[source.name]]
            program = compile_program(catalog, schema)
            sink = self._sink(catalog, source.name)
            sinks[source.topic] = sink
            self._check_partitions(sink, topics[source.topic])
            if depth_of(program) > options.history:
                raise PipelineError(
                    f"a history of {options.history} ticks does not hold the longest window; set "
                    f"TICKWELL_HISTORY to at least {depth_of(program)}"
                )
            self._materializers[source.name] = Materializer(
                source, schema, program, sink, options.capacity
            )
        if options.sink == "offline":
            self._start_relay()
            self._start_maintenance(engine)
        else:
            self._fill(catalog, {sources[topic].name: topics[topic] for topic in sinks})

        def watermark(topic: str, partition: int) -> int | None:
            try:
                stored = sinks[topic].watermarks(topics[topic].topic_id, [partition])
                if not stored and self._filling is not None:
                    self._filling.check([topics[topic]])
            except StoreUnavailable as error:
                self._positions_wait = str(error)
                raise
            self._positions_wait = None
            return stored.get(partition)

        pipeline = Pipeline(
            materializers=self._materializers,
            sources={sources[topic].name: sources[topic] for topic in sinks},
            topic_ids={topic: topics[topic].topic_id for topic in sinks},
            watermark=watermark,
            stop=self._stop,
        )
        return pipeline, {topic: topics[topic] for topic in sinks}

    def _wait(self, attempt: Callable[[], T]) -> T:
        """Try until what is away answers, or the worker is asked to stop."""

        def say_why(state: Any) -> None:
            error = str(state.outcome.exception())
            if self._waiting_for is None:
                logger.warning("waiting: %s", error)
            self._waiting_for = error

        def pause(seconds: float) -> None:
            self._stop.wait(seconds)

        retrying = Retrying(
            retry=retry_if_exception_type((StoreUnavailable, BrokerUnavailable)),
            wait=wait_random_exponential(0.1, max=5),
            stop=lambda _: self._stop.is_set(),
            sleep=pause,
            before_sleep=say_why,
            reraise=True,
        )
        result: T = retrying(attempt)
        self._waiting_for = None
        return result

    def _load_catalog(self, engine: Engine) -> Catalog:
        """From Postgres; the online worker has a copy in Redis and does without Postgres."""
        store = redis.Redis.from_url(self._options.redis, socket_timeout=5)
        try:
            catalog = recorded.load(engine)
        except DBAPIError as error:
            if self._options.sink == "offline":
                raise StoreUnavailable(f"Postgres: {error.orig}") from error
        else:
            try:
                store.set(CATALOG_KEY, recorded.encode(catalog))
            except RedisError as error:
                logger.warning("no copy of the catalog is kept in Redis: %s", error)
            return catalog
        try:
            copy = store.get(CATALOG_KEY)
        except RedisError as error:
            raise StoreUnavailable(f"Redis: {error}") from error
        if copy is None:
            raise StoreUnavailable("Postgres is away, and Redis has no copy of the catalog yet")
        return recorded.decode(copy)  # type: ignore[arg-type]

    def _sink(self, catalog: Catalog, source: str) -> Sink:
        options = self._options
        if options.sink == "online":
            return OnlineSink(options.redis, options.history, options.cluster)
        schemas = [schema.id for schema in catalog.schemas.values() if schema.source == source]
        return OfflineSink(options.postgres, schemas, f"tickwell {options.instance} {source}")

    def _check_partitions(self, sink: Sink, topic: Topic) -> None:
        settled = self._wait(lambda: sink.settle(topic))
        if settled != topic.partitions:
            raise PartitionsChanged(topic.name, settled, topic.partitions)

    def _fill(self, catalog: Catalog, topics: Mapping[str, Topic]) -> None:
        """Rebuild from Postgres what this Redis should have and has not; waits for both."""
        options = self._options
        sink = OnlineSink(options.redis, options.history, options.cluster)
        self._filling = Filling(sink)
        rebuild = Rebuild(options.postgres, sink, catalog, options.history, self._stop)
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

    def _start_relay(self) -> None:
        options = self._options
        relay = Relay(options.postgres, options.kafka, options.rejected_topic)
        Thread(target=relay.run, args=(self._stop,), name="relay", daemon=True).start()

    def _start_maintenance(self, engine: Engine) -> None:
        def maintain() -> None:
            while not self._stop.is_set():
                try:
                    attach_ahead(engine, datetime.now(UTC))
                except DBAPIError as error:
                    logger.warning("no partitions were attached: %s", error.orig)
                self._stop.wait(MAINTENANCE_SECONDS)

        Thread(target=maintain, name="maintenance", daemon=True).start()

    # -- while ticks flow

    async def _work(
        self, pipeline: Pipeline, topics: Mapping[str, Topic], stopped: asyncio.Event
    ) -> int:
        options = self._options
        app = create_app(
            options.group, options.kafka, options.instance, pipeline, self._heartbeats_count
        )
        watching = [
            asyncio.create_task(self._watch_topics(app, topics)),
            asyncio.create_task(self._watch_filling(app, topics.values())),
        ]
        waiting = asyncio.create_task(stopped.wait())
        app.finalize()
        await app.start()
        self._app = app
        logger.info("the %s worker %s reads %s", options.sink, options.instance, ", ".join(topics))
        try:
            ends: list[asyncio.Future[Any]] = [waiting, app.failed]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for watch in watching:
                watch.cancel()
            waiting.cancel()
            self._stop.set()
            try:
                await asyncio.wait_for(app.stop(), SHUTDOWN_SECONDS)
            except (TimeoutError, asyncio.CancelledError):
                logger.warning("Faust did not stop in %g s; going on without", SHUTDOWN_SECONDS)
        if app.failed.done():
            logger.error("%s", app.failed.result())
            return 1
        return 0

    def _heartbeats_count(self, run: Run, batch: Batch | None) -> None:
        self._heartbeats.count(run, batch)

    async def _watch_topics(self, app: SinkApp, topics: Mapping[str, Topic]) -> None:
        """A topic that is made anew, or has other partitions, is not the one that is read."""
        while True:
            await asyncio.sleep(TOPIC_CHECK_SECONDS)
            try:
                now = await asyncio.to_thread(describe, self._options.kafka, list(topics))
            except PipelineError as error:
                logger.warning("the topics could not be looked up: %s", error)
                continue
            for name, topic in topics.items():
                if now[name].topic_id != topic.topic_id:
                    app.fail(TopicRecreated(name))
                elif now[name].partitions != topic.partitions:
                    app.fail(PartitionsChanged(name, topic.partitions, now[name].partitions))

    async def _watch_filling(self, app: SinkApp, topics: Collection[Topic]) -> None:
        """A Redis that was emptied is noticed without a tick: its values are gone until then."""
        while self._filling is not None:
            await asyncio.sleep(FILLING_CHECK_SECONDS)
            try:
                await asyncio.to_thread(self._filling.check, topics)
            except StoreUnavailable:
                continue  # the sink says so
            except RedisEmptied as error:
                app.fail(error)

    async def _beat(self) -> None:
        while True:
            heartbeat = await asyncio.to_thread(self._heartbeats.beat, self._error(), self._lag())
            if self._metrics is not None:
                self._metrics.show(heartbeat)
            await asyncio.sleep(SECONDS)

    def _error(self) -> str | None:
        """Why the store, or something before it, does not answer."""
        refused = [m.retrying for m in self._materializers.values() if m.retrying is not None]
        if self._rebuilding is not None:
            return "; ".join(filter(None, (self._rebuilding, self._waiting_for)))
        waiting = self._waiting_for or self._positions_wait
        return waiting or (refused[0] if refused else None)

    def _lag(self) -> list[PartitionLag] | None:
        app = self._app
        if app is None:
            return None
        consumer: Any = app.consumer
        tps: list[TP] = sorted(consumer.assignment())
        lags = []
        for tp, end in consumer.end_offsets(tps).items():
            following = consumer.acked_to(tp) or consumer.expected(tp)
            lag = max(0, end - following)
            lags.append(
                PartitionLag(
                    topic=tp.topic,
                    partition=tp.partition,
                    next_offset=following,
                    end_offset=end,
                    lag=lag,
                    behind_seconds=self._heartbeats.behind_seconds(tp.topic, tp.partition, lag),
                )
            )
        return lags


class _Metrics:
    """The last heartbeat as Prometheus metrics."""

    def __init__(self, options: WorkerOptions) -> None:
        registry = CollectorRegistry()
        self._rows = Gauge("tickwell_worker_rows", "Rows stored", registry=registry)
        self._retrying = Gauge(
            "tickwell_worker_retrying", "1 while the store refuses", registry=registry
        )
        self._running = Gauge(
            "tickwell_worker_running", "1 while ticks are read and stored", registry=registry
        )
        self._heartbeat = Gauge(
            "tickwell_worker_heartbeat_timestamp_seconds",
            "When the worker last spoke",
            registry=registry,
        )
        self._lag = Gauge(
            "tickwell_worker_lag_messages",
            "Messages behind",
            ["topic", "partition"],
            registry=registry,
        )
        self._rejected = Gauge(
            "tickwell_worker_rejected_ticks", "Rejected ticks", ["reason"], registry=registry
        )
        start_http_server(options.metrics_port or 0, options.metrics_host, registry)

    def show(self, heartbeat: Heartbeat) -> None:
        self._rows.set(heartbeat.rows)
        self._running.set(heartbeat.state == "running")
        self._heartbeat.set(heartbeat.at)
        self._retrying.set(heartbeat.state == "retrying")
        for partition in heartbeat.lag:
            self._lag.labels(partition.topic, partition.partition).set(partition.lag)
        for reason, count in heartbeat.rejected.items():
            self._rejected.labels(reason).set(count)
