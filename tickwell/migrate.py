"""Makes stores and broker ready: tables, definitions, partitions, topics, the compiled kernel."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from pipelines.kafka.topics import ensure_topics
from pipelines.runtime.machine_code import warm_up
from registry.database import migrations
from registry.database.engine import connect
from registry.database.month_partitions import attach_ahead
from registry.definitions import Catalog
from registry.features_file import read
from registry.lifecycle.recording import record
from tickwell.errors import TickwellError, one_line
from tickwell.settings import Settings


def migrate(settings: Settings) -> Catalog:
    """Bring everything up to date; what is so already is left as it is.

    Raises `TickwellError`, `RegistryError` and `PipelineError`, each of which says what to do.
    """
    settings.need("postgres", "kafka")
    definitions = read(settings.features_path)
    engine = connect(settings.postgres, connect_args={"connect_timeout": 10})
    try:
        migrations.upgrade(engine)
        attach_ahead(engine, datetime.now(UTC))
        recorded = record(
            engine,
            definitions,
            actor=_user(),
            rejected_topic=settings.rejected_topic,
        )
    except DBAPIError as error:
        raise TickwellError(f"TICKWELL_POSTGRES: {one_line(error.orig)}") from None
    finally:
        engine.dispose()
    topics = [source.topic for source in recorded.sources.values()]
    ensure_topics(settings.kafka, [*topics, settings.rejected_topic], settings.partitions)
    warm_up()
    return recorded


def _user() -> str:
    """Who does it; in a container that may be a number that nobody has given a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.geteuid()}"
