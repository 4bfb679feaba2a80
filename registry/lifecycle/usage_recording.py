"""Counts of reads go to Postgres in batches, and old ones are deleted.

A server process numbers its batches, and sends one again until it knows that it is stored: the
number that is recorded with the counts, in the same transaction, says whether they were added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from registry.resources import sql

RETENTION_DAYS = 400
"""Days for which counts are kept: a year, and a month to compare with."""

STATEMENT_MS = 3_000
"""Milliseconds that Postgres gives a statement here."""

PRUNED_ROWS = 10_000
"""Rows that one statement deletes at most."""

ADD = sql(__package__, "add_usage")
PRUNE = sql(__package__, "prune_usage")


class Counted(NamedTuple):
    """How often a consumer has read a version (`name@version`) on a day (UTC), and when last."""

    ref: str
    consumer: str
    day: date
    reads: int
    last_read: datetime


class Batch(NamedTuple):
    """Counts of a process, which are stored together once.

    `number` is higher than that of any earlier batch of the process.
    """

    process: UUID
    number: int
    counts: Sequence[Counted]
    """One for each version, consumer and day."""


def add(connection: Connection, batch: Batch) -> None:
    """Add a batch, in a transaction of its own, unless it was added before.

    Raises SQLAlchemy's `DBAPIError`, after which nobody may know whether it was added: it has to be
    sent again as it is.
    """
    refs = [counted.ref.split("@") for counted in batch.counts]
    parameters = {
        "milliseconds": STATEMENT_MS,
        "process": str(batch.process),
        "number": batch.number,
        "names": [name for name, _ in refs],
        "versions": [version for _, version in refs],
        "consumers": [counted.consumer for counted in batch.counts],
        "days": [counted.day for counted in batch.counts],
        "reads": [counted.reads for counted in batch.counts],
        "last_reads": [counted.last_read for counted in batch.counts],
    }
    _execute(connection, ADD, parameters)


def prune(connection: Connection, today: date, most: int = PRUNED_ROWS) -> bool:
    """Delete counts that are older than `RETENTION_DAYS`, up to `most` rows.

    Returns whether none are left that it could delete. It commits.
    """
    before = today - timedelta(days=RETENTION_DAYS)
    parameters = {"milliseconds": STATEMENT_MS, "before": before, "most": most}
    return _execute(connection, PRUNE, parameters) < most


def _execute(connection: Connection, statement: str, parameters: Mapping[str, object]) -> int:
    """The rows that a statement has changed, which the server commits with it."""
    connection.execution_options(isolation_level="AUTOCOMMIT")
    changed = connection.exec_driver_sql(statement, dict(parameters)).rowcount
    connection.commit()  # else SQLAlchemy believes that a transaction goes on
    return changed
