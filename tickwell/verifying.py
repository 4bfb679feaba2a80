"""What an offline worker verifies beside its work: also what was served, if the log is here."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipelines.errors import StoreUnavailable
from pipelines.verify.continual import Continual, VerifiedStores
from registry.comparisons import Difference, Tally
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.formats.served_log import some_served
from serving.history.served_check import ServedCheck
from serving.history.snapshot import snapshot_of
from tickwell.commands.verify import lines
from tickwell.settings import Settings

SERVED_LINES = 10
"""Lines of the log of what was served that are compared in a look."""

CONNECT_SECONDS, STATEMENT_MS = 5, 10_000
"""Seconds that Postgres has to answer, and milliseconds that a statement has."""


def verifying(settings: Settings) -> Continual | None:
    """What a worker with these settings verifies; None for nothing."""
    if not settings.verify_entities:
        return None
    stores = VerifiedStores(settings.postgres, settings.redis, settings.redis_hot, settings.cluster)
    engine = connect(
        settings.postgres, CONNECT_SECONDS, statement_timeout_ms=STATEMENT_MS, pool_size=1
    )
    served = partial(check_served, engine, settings.served_log_path)
    return Continual(stores, settings.verify_entities, described, served)


def check_served(engine: Engine, directory: Path, catalog: Catalog, chance: random.Random) -> Tally:
    """Compare some of what was served. Raises `StoreUnavailable`."""
    try:
        some = some_served(directory, SERVED_LINES, chance)
        if not some:
            return Tally()
        with engine.connect() as connection, snapshot_of(connection, catalog) as seen:
            return ServedCheck(seen).compare(some)
    except DBAPIError as error:
        raise StoreUnavailable(str(error.orig)) from error
    except OSError as error:
        raise StoreUnavailable(f"the log of what was served cannot be read: {error}") from error


def described(one: Difference) -> str:
    """A difference in a line, and what to do."""
    told = "; ".join(" ".join(line.split()) for line in lines(one))
    return (
        f"{told}; `tickwell verify` looks for others, and once it is seen to, "
        "`tickwell verify --forget` forgets it"
    )
