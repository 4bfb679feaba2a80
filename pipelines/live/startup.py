"""What a worker waits for before its first tick: the catalog, the topics and its store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from threading import Event
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipelines.compute.run_computation import RunComputation
from pipelines.compute.window_table import check_history
from pipelines.errors import PartitionsChanged, StoreUnavailable
from pipelines.kafka.topic_identity import Incarnations
from pipelines.kafka.topics import Topic, find_topics
from pipelines.live.carrying import Carrying
from pipelines.live.faust_app import Pipeline
from pipelines.live.following import Following
from pipelines.live.health import Health
from pipelines.live.materializer import Materializer
from pipelines.live.store_positions import StorePositions
from pipelines.live.worker_options import WorkerOptions
from pipelines.rebuild.rebuild import Done, Rebuild
from pipelines.stores.carried_rows import CarriedRows
from pipelines.stores.postgres.carried_rows import CarriedOfflineRows
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis import earlier_layout
from pipelines.stores.redis.carried_rows import CarriedOnlineRows
from pipelines.stores.redis.client import answers, open_warm
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.fill_marks import FillMarks
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.stores.redis.hot_redis import HotRedis
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.redis.server_checks import check_server
from pipelines.stores.redis.warm_look import WarmLook
from pipelines.stores.sink import Sink
from pipelines.ticks.wire.formats import check_format, registry_of
from pipelines.ticks.wire.schema_registry import SchemaRegistry
from registry import catalog as recorded
from registry.consistency import check_rejected_topic
from registry.definitions import Catalog
from registry.errors import RegistryError
from registry.formats.redis_keys import CATALOG_KEY
from registry.language.program import compile_program
from registry.lifecycle.api_keys import FAILURES, publish
from registry.serial import serial
from registry.source_rules import SourceRules, check_known, check_sources

logger = logging.getLogger(__name__)
T = TypeVar("T")

PROGRESS_SECONDS = 10.0
"""Seconds between log lines about the progress of a rebuild."""


class Startup:
    """Prepares the pipeline of a worker; `health` has what it is waiting for."""

    def __init__(self, options: WorkerOptions, engine: Engine, health: Health, stop: Event) -> None:
        self._options = options
        self._engine = engine
        self._health = health
        self._stop = stop
        self._hot = _hot_feed(options)

    def prepare(self) -> Pipeline:
        """Wait for the catalog, the topics and the store; returns what the app works on.

        Raises `Stopped` once `stop` is set while a service is unavailable, and errors that waiting
        does not mend.
        """
        options = self._options
        catalog = self._wait(self._load_catalog)
        check_known(catalog)
        if options.declared is not None:
            check_sources(catalog, options.declared)
        if options.sink == "online":
            self._wait(self._check_redis)
        sources = {
            source.topic: source
            for source in catalog.sources.values()
            if source.name in catalog.writing
        }
        for source in sources.values():
            check_format(source, options.schema_registry)
        check_rejected_topic(sources.values(), options.rejected_topic, "the registry")
        topics = self._wait(lambda: find_topics(options.kafka, list(sources), self._stop))
        self._health.partitions = {topic.name: topic.partitions for topic in topics.values()}
        sinks = {topic: self._sink(source.name) for topic, source in sources.items()}
        rules = {source.name: SourceRules.of(catalog, source.name) for source in sources.values()}
        registries = {
            name: registry_of(of_source.sources, options.schema_registry)
            for name, of_source in rules.items()
        }

        def compute(catalog: Catalog, name: str) -> RunComputation:
            of_source = rules[name]
            partitions = topics[of_source.source.topic].partitions
            return self._computation(catalog, of_source, partitions, registries[name])

        following = Following(
            partial(serial, self._engine),
            partial(recorded.load, self._engine),
            compute,
            self._share,
            self._copied_catalog if options.sink == "online" else None,
            one_look_later=options.sink == "online",
        )
        materializers: dict[str, Materializer] = {}
        for topic, source in sources.items():
            self._check_partitions(sinks[topic], topics[topic])
            newer = partial(following.newer, source.name)
            computation = compute(catalog, source.name)
            materializers[source.name] = Materializer(computation, sinks[topic], newer=newer)
        self._health.materializers = materializers.values()
        following.materializers = materializers
        fill_marks, looked_up = None, sinks
        if options.sink == "online":
            fill_marks = self._fill(catalog, {sources[name].name: topics[name] for name in topics})
        else:
            # A look-up must not share a connection with a transaction that is under way. In Redis
            # it may, and the sink must know of every watermark that was seen.
            looked_up = dict.fromkeys(sources, self._sink("positions"))
        positions = StorePositions(topics, looked_up, fill_marks, self._health.positions, self._hot)
        return Pipeline(
            materializers=materializers,
            rules=rules,
            incarnations=Incarnations(options.kafka, topics),
            watermarks=positions.of,
            check_filled=positions.check_filled,
            follow=following.look,
            stop=self._stop,
            pace=min(sink.pace for sink in looked_up.values()),
            hot=self._hot,
            carrying=self._carrying(materializers, topics, positions),
        )

    def _wait(self, attempt: Callable[[], T]) -> T:
        """Attempt until the services that it needs answer, or the worker is stopped."""

        def call() -> T:
            with self._health.starting.call():
                return attempt()

        return self._health.starting.retry(call, self._stop)

    def _check_redis(self) -> None:
        """Before anything is written: one that evicts would lose what it has confirmed."""
        with closing(WarmRedis(self._options.redis, self._options.cluster)) as redis:
            check_server(redis)

    def _load_catalog(self) -> Catalog:
        """From Postgres; the online worker has a copy in Redis and can start without Postgres."""
        try:
            return self._read_catalog()
        except DBAPIError as error:
            if self._options.sink == "offline":
                raise StoreUnavailable(f"Postgres: {error.orig}") from error
        return self._copied_catalog()

    def _read_catalog(self) -> Catalog:
        """From Postgres; it is copied to Redis, with the API keys."""
        catalog = recorded.load(self._engine)
        try:
            self._share(catalog)
        except StoreUnavailable as error:
            logger.warning("the catalog was not copied to Redis: %s", error)
        self._copy_api_keys()
        return catalog

    def _share(self, catalog: Catalog) -> None:
        """Copy the catalog to Redis, for who cannot reach Postgres. Raises `StoreUnavailable`."""
        options = self._options
        with closing(open_warm(options.redis, options.cluster)) as store, answers():
            store.set(CATALOG_KEY, recorded.encode(catalog))

    def _copied_catalog(self) -> Catalog:
        """From Redis. Raises `StoreUnavailable`."""
        options = self._options
        with closing(open_warm(options.redis, options.cluster)) as store, answers():
            copy = store.get(CATALOG_KEY)
        if copy is None:
            raise StoreUnavailable("Postgres is unavailable, and Redis has no copy of the catalog")
        catalog = recorded.decode(copy)
        if not catalog.rules:
            raise StoreUnavailable(
                "Postgres is unavailable, and Redis has a copy of an earlier build's catalog"
            )
        return catalog

    def _copy_api_keys(self) -> None:
        """For servers that start without Postgres; a Redis that was emptied has lost the copy."""
        options = self._options
        try:
            publish(self._engine, lambda: open_warm(options.redis, options.cluster))
        except (*FAILURES, StoreUnavailable, DBAPIError, RegistryError) as error:
            logger.warning("the API keys were not copied to Redis: %s", error)

    def _computation(
        self,
        catalog: Catalog,
        rules: SourceRules,
        partitions: int,
        registry: SchemaRegistry | None,
    ) -> RunComputation:
        options = self._options
        schema = catalog.schemas[catalog.writing[rules.source.name]]
        program = compile_program(catalog, schema)
        check_history(program)
        return RunComputation(rules, schema, program, options.capacity, partitions, registry)

    def _sink(self, name: str) -> Sink:
        options = self._options
        if options.sink == "online":
            return OnlineSink(options.redis, options.cluster, hot=self._hot)
        return OfflineSink(options.postgres, f"tickwell {options.instance} {name}")

    def _carrying(
        self,
        materializers: Mapping[str, Materializer],
        topics: Mapping[str, Topic],
        positions: StorePositions,
    ) -> Carrying:
        options = self._options
        rows: CarriedRows
        if options.sink == "online":
            rows = CarriedOnlineRows(WarmRedis(options.redis, options.cluster), self._hot)
        else:
            rows = CarriedOfflineRows(options.postgres, f"tickwell {options.instance} carrying")
        return Carrying(rows, materializers, topics, positions.assigned)

    def _check_partitions(self, sink: Sink, topic: Topic) -> None:
        settled = self._wait(lambda: sink.settle(topic))
        if settled != topic.partitions:
            raise PartitionsChanged(topic.name, settled, topic.partitions)

    def _fill(self, catalog: Catalog, topics: Mapping[str, Topic]) -> FillMarks:
        """Rebuild from Postgres what this Redis should have and lacks; waits for both."""
        options = self._options
        redis = WarmRedis(options.redis, options.cluster)
        rebuild = Rebuild(options.postgres, redis, catalog, self._stop)
        logged_at = 0.0

        def report(done: Done) -> None:
            nonlocal logged_at
            self._health.rebuild = str(done) if done.entities else None
            if done.entities and time.monotonic() - logged_at > PROGRESS_SECONDS:
                logged_at = time.monotonic()
                logger.info("%s", done)

        if self._wait(partial(earlier_layout.is_left, redis, topics.values())):
            logger.warning(
                "Redis also has what an earlier version kept in another layout: `tickwell "
                "rebuild-online` removes it, once no worker and no server of that version runs"
            )
        for name, topic in topics.items():
            self._wait(partial(rebuild.fill, catalog.sources[name], topic, report))
            if self._health.rebuild is not None:
                logger.info("done %s", self._health.rebuild)
                self._health.rebuild = None
        return FillMarks(redis)


def _hot_feed(options: WorkerOptions) -> HotFeed | None:
    """What feeds hot; None where there is no hot, or nothing to feed it with."""
    if options.sink != "online" or not options.redis_hot:
        return None
    return HotFeed(HotRedis(options.redis_hot), WarmLook(options.redis, options.cluster))
