"""Prepares stores and broker: tables, definitions, partitions, topics, the compiled kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event

from sqlalchemy.exc import DBAPIError

from pipelines.kafka.topics import NEVER, ensure_topics
from pipelines.live.rules_start import RulesBeginning
from pipelines.runtime.machine_code import warm_up
from pipelines.stores.redis.connection import WarmRedis
from pipelines.ticks.wire.formats import check_format
from registry.database import migrations
from registry.database.engine import connect
from registry.database.month_partitions import attach_ahead
from registry.definitions import Catalog
from registry.features_file import read
from registry.lifecycle.recording import Limits, record
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


def migrate(
    settings: Settings, stopped: Event = NEVER, begin: RulesBeginning | None = None
) -> Catalog:
    """Bring everything up to date; what is up to date already is left as it is.

    The rules of a recorded source change only with `begin`.

    Raises `TickwellError`, `RegistryError` and `PipelineError`, each of which says what to do. Once
    `stopped` is set, topics that the broker does not know yet are no longer waited for.
    """
    settings.need("postgres", "kafka")
    definitions = read(settings.features_path)
    for source in definitions.sources:
        check_format(source, settings.registry_connection)
    engine = connect(settings.postgres, connect_timeout=10)
    try:
        migrations.upgrade(engine)
        attach_ahead(engine, datetime.now(UTC))
        recorded = record(
            engine,
            definitions,
            actor=current_user(),
            rejected_topic=settings.rejected_topic,
            limits=Limits(history=settings.history),
            begin=begin,
        )
        if begin is not None:
            begin.publish(recorded)
    except DBAPIError as error:
        raise TickwellError(f"TICKWELL_POSTGRES: {one_line(error.orig)}") from None
    finally:
        engine.dispose()
    topics = [source.topic for source in recorded.sources.values()]
    names = [*topics, settings.rejected_topic]
    ensure_topics(settings.kafka_connection, names, settings.partitions, stopped)
    warm_up()
    return recorded
