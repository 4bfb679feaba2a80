"""Monthly partitions of `feature_rows`, attached ahead of time.

`CREATE TABLE … PARTITION OF` waits behind readers and blocks inserts, so a partition is made as a
table of its own with the bounds as a check, and attached, which takes a weaker lock and, thanks to
the check, scans nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files

from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

logger = logging.getLogger(__name__)
ATTACH = files("registry").joinpath("sql/attach_partition.sql").read_text("utf-8")
LOCK = 7_242_019_002


def attach_ahead(engine: Engine, now: datetime, months: int = 3) -> list[str]:
    """Attach the partitions of last month to `months` ahead that are not there yet.

    Returns the names of the new ones. A month whose rows already went to the default partition
    stays there, and a warning says so.
    """
    attached = []
    for first, following in _months(now, months):
        name = f"feature_rows_{first:%Y_%m}"
        bounds = {"low": _nanoseconds(first), "high": _nanoseconds(following)}
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
                there = text("SELECT to_regclass(:name) IS NOT NULL")
                if connection.execute(there, {"name": f"tickwell.{name}"}).scalar():
                    continue
                connection.exec_driver_sql(ATTACH.format(name=name, **bounds))
                attached.append(name)
        except IntegrityError:
            logger.warning("rows of %s are in the default partition and stay there", name)
    return attached


def _months(now: datetime, ahead: int) -> Iterator[tuple[datetime, datetime]]:
    number = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1
    for month in range(number - 1, number + ahead + 1):
        yield _first(month), _first(month + 1)


def _first(month: int) -> datetime:
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9
