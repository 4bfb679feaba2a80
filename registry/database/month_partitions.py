"""Monthly partitions of `feature_rows`, attached ahead of time.

`CREATE TABLE … PARTITION OF` waits behind every reader of the table and blocks inserts meanwhile.
So a partition is created as a table of its own with the bounds as a check, and then attached. That
waits only for readers of the default partition, and only for a bounded time, because later queries
wait behind it. A month that was not attached is tried again at the next maintenance, long before it
begins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from registry.resources import sql

logger = logging.getLogger(__name__)
ATTACH = sql(__package__, "attach_partition")
IS_MISSING = sql(__package__, "is_month_missing")
LOCK = 7_242_019_002
"""Advisory lock: of two maintenances at once, one waits and finds the partitions attached."""

LOCK_NOT_AVAILABLE = "55P03"
HOLD = "LOCK TABLE ONLY tickwell.feature_rows IN ACCESS SHARE MODE"
"""The first statement of a transaction that sees one moment. Rows of months that Postgres lets go
of (`pipelines.lake.retention`) are gone for older moments, too; while this is held, none go."""

PATIENCE = "500ms"
"""Time that an attachment may wait for its locks, and delay the queries behind it."""


def attach_ahead(engine: Engine, now: datetime, months: int = 3) -> list[str]:
    """Attach the missing partitions of last month to `months` ahead.

    Returns the names of the new ones. A month whose rows are in the default partition already stays
    in it, and a warning says so.
    """
    number = month_of(now)
    return attach(engine, range(number - 1, number + months + 1))


def attach(engine: Engine, months: Iterable[int]) -> list[str]:
    """Attach the missing partitions of some months, by their numbers (`month_of`); as above."""
    attached = []
    for month in months:
        first, following = _first(month), _first(month + 1)
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


def unattached(engine: Engine, months: Iterable[int]) -> list[str]:
    """Those of some months, as 2026-11, that have no partition and whose rows can get one.

    A month of which the default partition has rows is none of them.
    """
    wanted = {f"feature_rows_{_first(month):%Y_%m}": month for month in months}
    missing = []
    with engine.connect() as connection:
        for name, month in wanted.items():
            bounds = {"low": _nanoseconds(_first(month)), "high": _nanoseconds(_first(month + 1))}
            found = connection.execute(text(IS_MISSING), {"name": f"tickwell.{name}", **bounds})
            if found.scalar_one():
                missing.append(f"{_first(month):%Y-%m}")
    return missing


def month_of(moment: datetime) -> int:
    """The number of a moment's month: those since the year 0."""
    return moment.astimezone(UTC).year * 12 + moment.astimezone(UTC).month - 1


def _first(month: int) -> datetime:
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9
