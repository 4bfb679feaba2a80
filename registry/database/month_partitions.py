"""Monthly partitions of `feature_rows`, attached ahead of time.

`CREATE TABLE … PARTITION OF` waits behind every reader of the table and blocks inserts meanwhile.
So a partition is created as a table of its own with the bounds as a check, and then attached. That
waits only for readers of the default partition, and only for a bounded time, because later queries
wait behind it. A month that was not attached is tried again at the next maintenance, long before it
begins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from registry.resources import sql

logger = logging.getLogger(__name__)
ATTACH = sql(__package__, "attach_partition")
LOCK = 7_242_019_002
"""Advisory lock: of two maintenances at once, one waits and finds the partitions attached."""

LOCK_NOT_AVAILABLE = "55P03"
PATIENCE = "500ms"
"""Time that an attachment may wait for its locks, and delay the queries behind it."""


def attach_ahead(engine: Engine, now: datetime, months: int = 3) -> list[str]:
    """Attach the missing partitions of last month to `months` ahead.

    Returns the names of the new ones. A month whose rows are in the default partition already stays
    in it, and a warning says so.
    """
    attached = []
    for first, following in _months(now, months):
        name = f"feature_rows_{first:%Y_%m}"
        bounds = {"low": _nanoseconds(first), "high": _nanoseconds(following)}
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
                exists = text("SELECT to_regclass(:name) IS NOT NULL")
                if connection.execute(exists, {"name": f"tickwell.{name}"}).scalar():
                    continue
                connection.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE}'"))
                connection.exec_driver_sql(ATTACH.format(name=name, **bounds))
                attached.append(name)
        except IntegrityError:
            logger.warning("rows of %s are in the default partition and stay in it", name)
        except OperationalError as error:
            if getattr(error.orig, "pgcode", None) != LOCK_NOT_AVAILABLE:
                raise
            logger.warning(
                "%s was not attached, because a query reads for too long: it is tried again", name
            )
    return attached


def _months(now: datetime, ahead: int) -> Iterator[tuple[datetime, datetime]]:
    number = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1
    for month in range(number - 1, number + ahead + 1):
        yield _first(month), _first(month + 1)


def _first(month: int) -> datetime:
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9
