"""Prepares stores and broker: tables, definitions, partitions, topics, the compiled kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from threading import Event

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipelines.kafka.topic_settings import topic_remarks
from pipelines.kafka.topics import BROKERS_OWN, NEVER, check_topics, ensure_topics, find_topics
from pipelines.live.rules_start import RulesBeginning
from pipelines.runtime.machine_code import warm_up
from pipelines.stores.redis.connection import WarmRedis
from pipelines.ticks.homes import home_remarks
from pipelines.ticks.wire.formats import check_format
from registry import redis_clients
from registry.database import migrations
from registry.database.engine import connect
from registry.database.month_partitions import attach_ahead
from registry.database.views import create_views
from registry.definitions import Catalog, Source
from registry.errors import StalePlan
from registry.features_file import Text, read_sources, read_text, sources_in, text_of
from registry.formats.heartbeat import Heartbeat
from registry.heartbeats import read_heartbeats
from registry.lifecycle.api_keys import FAILURES
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from registry.serial import Serial, serial
from registry.source_rules import check_sources
from tickwell.current_user import current_user
from tickwell.errors import TickwellError, one_line
from tickwell.settings import Settings


@contextmanager
def rules_beginning(settings: Settings) -> Iterator[RulesBeginning]:
    """What `migrate` needs where the file's rules of recorded sources are to hold from now on."""
    settings.need("redis")
    redis = WarmRedis(settings.redis, settings.cluster)
    try:
        yield RulesBeginning(settings.kafka_connection, redis)
    finally:
        redis.close()


def registry_of(settings: Settings, engine: Engine) -> Registry:
    """The registry that settings name, changed in the name of who runs this process."""

    def heartbeats() -> list[Heartbeat]:
        try:
            with redis_clients.warm(settings.redis, settings.cluster) as client:
                return read_heartbeats(client)
        except FAILURES:
            return []  # then nobody knows what Redis has, and no version is activated

    return Registry(
        engine,
        By(current_user()),
        rejected_topic=settings.rejected_topic,
        heartbeats=heartbeats if settings.redis else None,
    )


def migrate(
    settings: Settings,
    stopped: Event = NEVER,
    begin: RulesBeginning | None = None,
    apply: bool = False,
) -> Catalog:
    """Bring everything up to date; what is up to date already is left as it is.

    The features file is recorded where nothing is recorded yet, and with `apply` or `begin` also
    later; else it is only compared with what is recorded. The rules of a recorded source change
    only with `begin`.

    Where the replicas of topics are set, they must be possible, or nothing is changed.

    Raises `TickwellError`, `RegistryError` and `PipelineError`, each of which says what to do. Once
    `stopped` is set, topics that the broker does not know yet are no longer waited for.
    """
    settings.need("postgres", "kafka")
    sources = read_sources(settings.features_path).sources
    _check_formats(settings, sources)
    if settings.replication != BROKERS_OWN:
        names = _names(settings, sources)
        check_topics(settings.kafka_connection, names, settings.partitions, settings.replication)
    file = text_of(settings.features_path)
    engine = connect(settings.postgres, connect_timeout=10)
    try:
        migrations.upgrade(engine)
        attach_ahead(engine, datetime.now(UTC))
        registry = registry_of(settings, engine)
        limits = replace(registry.limits, view_patience=None)  # a view must not be in the way
        registry = replace(registry, limits=limits)
        seen, known = serial(engine), registry.known()
        if not known.writing and not apply and begin is None:
            with suppress(StalePlan):  # another process records the first file in this moment
                registry.apply(file, expected=seen)
            known = registry.known()
        elif known.writing:
            registry.complete()
            known = registry.known()
        if apply or begin is not None:
            known = registry.apply(file, begin=begin)
        else:
            check_sources(known, read_text(file, known))
            registry.plan(file)  # raises where the file contradicts what is recorded
        if begin is not None:
            begin.publish(known)
        make_topics(settings, known, stopped)
        create_views(engine)
    except DBAPIError as error:
        raise TickwellError(f"TICKWELL_POSTGRES: {one_line(error.orig)}") from None
    finally:
        engine.dispose()
    warm_up()
    return known


def apply(
    settings: Settings, registry: Registry, file: Text, expected: Serial | None, note: str = ""
) -> Catalog:
    """Record a features file in a registry that has one already, and make topics that are new.

    Raises as `registry.lifecycle.recording.record`, and `PipelineError`.
    """
    _check_formats(settings, sources_in(file).sources)
    known = registry.apply(file, expected, note=note)
    make_topics(settings, known)
    return known


def remarks_on_topics(settings: Settings, known: Catalog) -> list[str]:
    """What a person should know of the topics of what is recorded, one line each."""
    topics = [source.topic for source in known.sources.values()]
    found = find_topics(settings.kafka_connection, topics)  # they may just have been made
    homes = (
        home_remarks(source, found[source.topic].partitions) for source in known.sources.values()
    )
    return [*topic_remarks(settings.kafka_connection, topics), *chain.from_iterable(homes)]


def _check_formats(settings: Settings, sources: Iterable[Source]) -> None:
    for source in sources:
        check_format(source, settings.registry_connection)


def make_topics(settings: Settings, known: Catalog, stopped: Event = NEVER) -> None:
    """Make the topics of what is recorded that are not there. Raises `PipelineError`."""
    names = _names(settings, known.sources.values())
    ensure_topics(
        settings.kafka_connection,
        names,
        settings.partitions,
        stopped,
        replicas=settings.replication,
    )


def _names(settings: Settings, sources: Iterable[Source]) -> list[str]:
    return [*(source.topic for source in sources), settings.rejected_topic]
