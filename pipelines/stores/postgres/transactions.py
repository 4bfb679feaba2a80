"""Transactions of an engine of SQLAlchemy, whose errors are those of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, ProgrammingError

from pipelines.errors import PipelineError, StoreUnavailable

LIMITS = {"connect_timeout": 10, "statement_timeout_ms": 60_000}
"""Seconds to connect to a host, and milliseconds that a statement may take."""


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction. Raises `StoreUnavailable`, and `PipelineError` for tables of another build."""
    try:
        with engine.begin() as connection:
            yield connection
    except ProgrammingError as error:
        raise PipelineError(
            f"Postgres: {_first_line(error)}: is the database up to date? "
            "`tickwell migrate` upgrades it"
        ) from error
    except DBAPIError as error:
        raise StoreUnavailable(f"Postgres: {_first_line(error)}") from error


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n")[0]
