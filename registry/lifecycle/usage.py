"""Who reads which version of a feature, as servers have counted it (`usage_recording`).

A read is a value that was answered: one feature of one entity, whatever its status. So a request
for eight features of a hundred entities is 800 reads, a hundred of each version. A derived feature
is read when it is asked for, and its parts are not read by that: what pins them is known to the
registry. Servers add what they have counted every few seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, func, select, text

from registry.database.tables import usage as table
from registry.lifecycle.usage_recording import RETENTION_DAYS
from registry.resources import sql

FEATURE_USAGE = text(sql(__package__, "feature_usage"))
RECENT_USAGE = text(sql(__package__, "recent_usage"))

RECENT = timedelta(days=7)
"""Time for which a version that was read is in use: a plan names its readers, and it cannot be
retired."""

MOST_READERS = 5
"""Consumers of a version that are named where many versions are asked for."""

MOST_SHOWN = 1_000
"""Pairs of a version and a consumer that are told of a feature: those with the most reads."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""What the numbers of a sparkline are shown as; the first is of 0 alone."""


class ConsumerUsage(msgspec.Struct, frozen=True):
    """How often a consumer has read a version.

    `reads` has a count for each of the days that were asked for, the oldest first, and `total` is
    their sum; `last_read` may be before them.
    """

    version: str
    consumer: str
    reads: tuple[int, ...]
    total: int
    last_read: datetime


class FeatureUsage(msgspec.Struct, frozen=True):
    """How often each version of a feature was read on each of some days (UTC), by consumer.

    Those with the most reads come first.
    """

    name: str
    days: tuple[date, ...]
    usage: tuple[ConsumerUsage, ...]


class RecentReader(msgspec.Struct, frozen=True):
    """A consumer that has read a version within `RECENT`, and how many values a day of that."""

    consumer: str
    reads_a_day: float
    last_read: datetime


class RecentReaders(NamedTuple):
    """The consumers with the most reads of a version, and how many others there are."""

    named: tuple[RecentReader, ...]
    more: int

    @property
    def reads_a_day(self) -> float:
        """How many values a day those that are named have read."""
        return sum(one.reads_a_day for one in self.named)


def usage(connection: Connection, name: str, days: int, today: date | None = None) -> FeatureUsage:
    """The usage of a feature in the last `days` days, up to `today` (now in UTC unless given).

    Raises ValueError for fewer days than 1, and for more than are kept.
    """
    if not 1 <= days <= RETENTION_DAYS:
        raise ValueError(f"days={days}: counts are kept for {RETENTION_DAYS} days, so 1 to that")
    last = today or datetime.now(UTC).date()
    shown = tuple(last - timedelta(days=back) for back in reversed(range(days)))
    parameters = {"name": name, "first": shown[0], "last": last, "most": MOST_SHOWN}
    found = []
    for row in connection.execute(FEATURE_USAGE, parameters):
        counts = dict(zip(row.days or (), row.reads or (), strict=True))
        reads = tuple(counts.get(day, 0) for day in shown)
        last_read = row.last_read.astimezone(UTC)
        found.append(ConsumerUsage(row.version, row.consumer, reads, sum(reads), last_read))
    return FeatureUsage(name, shown, tuple(found))


def last_read(connection: Connection, ref: str) -> datetime | None:
    """When a version, `name@version`, was read last; None where it was not, as far as is kept."""
    name, _, version = ref.partition("@")
    newest = select(func.max(table.c.last_read)).where(
        table.c.name == name, table.c.version == version
    )
    found: datetime | None = connection.execute(newest).scalar()
    return None if found is None else found.astimezone(UTC)


def recent_readers(connection: Connection, ref: str, since: datetime) -> list[str]:
    """The consumers that have read a version, `name@version`, at `since` or later, by name.

    Reads of the last seconds, and those that a server could not store yet, are not known here.
    """
    name, _, version = ref.partition("@")
    recent = (
        select(table.c.consumer)
        .distinct()
        .where(table.c.name == name, table.c.version == version, table.c.last_read >= since)
        .order_by(table.c.consumer)
    )
    return list(connection.execute(recent).scalars())


def recent_usage(
    connection: Connection, refs: Iterable[str], now: datetime, most: int = MOST_READERS
) -> dict[str, RecentReaders]:
    """Of each of some versions, `name@version`, that was read within `RECENT` before `now` by whom.

    At most `most` consumers of each are named, those with the most reads first. What
    `recent_readers` says of the last seconds holds here too.
    """
    pairs = [ref.split("@") for ref in refs]
    parameters = {
        "names": [name for name, _ in pairs],
        "versions": [version for _, version in pairs],
        "since": now - RECENT,
        "most": most,
    }
    found: dict[str, RecentReaders] = {}
    for row in connection.execute(RECENT_USAGE, parameters):
        ref, a_day = f"{row.name}@{row.version}", float(row.reads) / RECENT.days
        reader = RecentReader(row.consumer, round(a_day, 1), row.last_read.astimezone(UTC))
        named = (*found[ref].named, reader) if ref in found else (reader,)
        found[ref] = RecentReaders(named, row.consumers - len(named))
    return found


def sparkline(counts: Sequence[int]) -> str:
    """Counts as a line of blocks, one for each, as high as it is beside the largest.

    Nothing but a 0 is shown as the lowest one: a day with a single read is told from one without.
    """
    most, steps = max(counts, default=0), len(BLOCKS) - 1
    return "".join(BLOCKS[-(-count * steps // most) if most else 0] for count in counts)
