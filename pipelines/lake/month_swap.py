"""A month's partition gives way to one with the rows alone that states may need.

    prepare   a table with these rows, its indexes and its bounds; nobody waits for it
    swap      lock, look whether a row came meanwhile, detach, attach, put on record, drop

The swap is one transaction, of which every step is one in the catalog. So killed at any instant a
month is as it was or let go of, and a table that was prepared for nothing is removed by the next
run. It needs the table of all months for itself for a moment. Live must not wait behind it: the
lock is tried for half a second, and given up where a reader holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from registry.definitions import Catalog
from registry.formats.lake import DAY_NS, day_number
from registry.formats.loaded_rows import row_schema_of
from registry.resources import sql

MONTHS, CONTENTS = sql(__package__, "months"), sql(__package__, "month_contents")
PREPARE, LEFT = sql(__package__, "prepare_month"), sql(__package__, "left_tables")
KEEP_NEWEST, KEEP_UNREAD = sql(__package__, "keep_newest"), sql(__package__, "keep_unread")
SWAP, LET_GO = sql(__package__, "swap_month"), sql(__package__, "let_go")
CHANGED, IN_THE_WAY = sql(__package__, "month_changed"), sql(__package__, "in_the_way")
INDEX_NAMES, FORGET_BLOCKS = sql(__package__, "index_names"), sql(__package__, "forget_blocks")

PATIENCE = (
    "SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '2s'",
    "SET LOCAL lock_timeout = '100ms'",
)
"""Time that live may wait behind the lock of all months, and then behind those of a month and of
the default partition; what is in the latter is looked through once."""

REFUSED = (errorcodes.LOCK_NOT_AVAILABLE, errorcodes.QUERY_CANCELED, errorcodes.DEADLOCK_DETECTED)


class Month(NamedTuple):
    """A month that has a partition of its own."""

    first: date
    following: date
    """The first day of the next month."""

    @classmethod
    def of(cls, day: date) -> Month:
        """The month of a day."""
        first = day.replace(day=1)
        return cls(first, date(first.year + first.month // 12, first.month % 12 + 1, 1))

    @property
    def name(self) -> str:
        """The name of its partition."""
        return f"feature_rows_{self.first:%Y_%m}"

    @property
    def bounds(self) -> Mapping[str, int]:
        """Its times, nanoseconds UTC."""
        return {
            "low": day_number(self.first) * DAY_NS,
            "high": day_number(self.following) * DAY_NS,
        }

    def __str__(self) -> str:
        return f"{self.first:%Y-%m}"


class Contents(NamedTuple):
    """Of what a month has rows: row schemas, and partitions with the offset behind the last one."""

    schemas: Sequence[int]
    sources: Sequence[str]
    """Of each row schema its source."""
    ends: Mapping[tuple[str, int], int]


class Prepared(NamedTuple):
    """A table that can take a month's place."""

    month: Month
    contents: Contents
    kept: int
    """Rows of it."""


class MonthChanged(Exception):
    """A month cannot go as it is now, as where rows were stored since its files were verified."""


class MonthHeld(Exception):
    """Somebody reads the months for so long that live would have waited."""


def months_of(connection: Connection) -> list[Month]:
    """The months that have a partition, the oldest first."""
    names = connection.exec_driver_sql(MONTHS).scalars()
    return [Month.of(date(int(name[-7:-3]), int(name[-2:]), 1)) for name in names]


def remove_left(engine: Engine) -> None:
    """Remove the tables of processes that were killed; none may be at work."""
    with engine.begin() as connection:
        for name in connection.exec_driver_sql(LEFT).scalars().all():
            connection.exec_driver_sql(f"DROP TABLE tickwell.{name}")


def in_the_way(connection: Connection, month: Month, sources: Sequence[str]) -> list[str]:
    """Why a month cannot be let go of now; empty where it can."""
    asked = {**month.bounds, "sources": list(sources)}
    return list(connection.exec_driver_sql(IN_THE_WAY, asked).scalars())


def prepare(engine: Engine, catalog: Catalog, month: Month) -> Prepared:
    """Make the table of the rows that stay. Raises SQLAlchemy's `DBAPIError`."""
    named = {"name": month.name, **month.bounds}
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        contents = _contents(connection, catalog, month)
        histories = [catalog.sources[source].history for source in contents.sources]
        connection.exec_driver_sql(PREPARE.format(**named))
        wanted = {
            "schemas": list(contents.schemas),
            "sources": list(contents.sources),
            "histories": histories,
        }
        kept = connection.exec_driver_sql(_named(KEEP_NEWEST, named), wanted).rowcount
        kept += connection.exec_driver_sql(_named(KEEP_UNREAD, named)).rowcount
        connection.exec_driver_sql(f"ANALYZE tickwell.{month.name}_kept")
    return Prepared(month, contents, kept)


def _contents(connection: Connection, catalog: Catalog, month: Month) -> Contents:
    found = connection.exec_driver_sql(CONTENTS.format(name=month.name)).fetchall()
    schemas = sorted({row[0] for row in found})
    sources = [catalog.schemas[row_schema_of(number)].source for number in schemas]
    ends: dict[tuple[str, int], int] = {}
    for schema, topic, partition, end in found:
        if schema > 0:
            ends[topic, partition] = max(end, ends.get((topic, partition), 0))
    return Contents(schemas, sources, ends)


def swap(engine: Engine, prepared: Prepared) -> None:
    """Put what was prepared in the place of a month.

    Raises `MonthHeld` and `MonthChanged`, with nothing changed, and SQLAlchemy's `DBAPIError`.
    """
    month = prepared.month
    named = {"name": month.name, **month.bounds}
    days = {"first": month.first, "following": month.following}
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(PATIENCE[0])
            connection.exec_driver_sql("LOCK TABLE ONLY tickwell.feature_rows")
            connection.exec_driver_sql(PATIENCE[1])
            connection.exec_driver_sql(
                f"LOCK TABLE tickwell.{month.name}, tickwell.feature_rows_default"
            )
            _check_same(connection, prepared)
            connection.exec_driver_sql(SWAP.format(**named))
            _rename_indexes(connection, month)
            ends = prepared.contents.ends
            told = {
                "topics": [topic for topic, _ in ends],
                "partitions": [partition for _, partition in ends],
                "offsets": list(ends.values()),
            }
            connection.exec_driver_sql(LET_GO, {**days, **told})
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", None)
        if code == errorcodes.DEPENDENT_OBJECTS_STILL_EXIST:
            raise MonthChanged(f"others are made of it: {_depending(error)}") from error
        if code not in REFUSED:
            raise
        raise MonthHeld from error


def _depending(error: DBAPIError) -> str:
    """What would have to be removed first, as the server says it."""
    diagnostics = getattr(error.orig, "diag", None)
    return "; ".join(str(getattr(diagnostics, "message_detail", None) or error.orig).splitlines())


def _check_same(connection: Connection, prepared: Prepared) -> None:
    """Raises `MonthChanged`; nobody stores rows meanwhile."""
    month = prepared.month
    days = {"first": month.first, "following": month.following}
    changed = connection.exec_driver_sql(CHANGED, days).fetchall()
    if changed:
        told = ", ".join(f"{day} of {source}" for source, day in changed)
        raise MonthChanged(f"rows of {told} were stored meanwhile: `tickwell lake export` again")
    reasons = in_the_way(connection, month, prepared.contents.sources)
    if reasons:
        raise MonthChanged("; ".join(reasons))


def _rename_indexes(connection: Connection, month: Month) -> None:
    table = {"table": f"tickwell.{month.name}"}
    for index, kind in connection.exec_driver_sql(INDEX_NAMES, table).fetchall():
        connection.exec_driver_sql(f"ALTER INDEX tickwell.{index} RENAME TO {month.name}_{kind}")


def discard(engine: Engine, prepared: Prepared) -> None:
    """Remove what was prepared."""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS tickwell.{prepared.month.name}_kept")


def forget_blocks(engine: Engine, source: str) -> None:
    """Remove the backfilled values of a source's ticks that were let go of.

    All of its days that were let go of are whole in the lake. It is no part of the swap, for it may
    take long, and to repeat it changes nothing.
    """
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.exec_driver_sql(FORGET_BLOCKS, {"source": source})


def _named(statement: str, named: Mapping[str, Any]) -> str:
    for name, value in named.items():
        statement = statement.replace(f"{{{name}}}", str(value))
    return statement
