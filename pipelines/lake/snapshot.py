"""One moment of the database for one day of the lake.

A day is read in a snapshot of its own, so that none is held for longer than a day takes: the server
keeps what was deleted or replaced since for it. What a file has is therefore said by its day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from registry import catalog
from registry.database.month_partitions import HOLD
from registry.definitions import Catalog

NO_LIMITS = text(
    "SELECT set_config('statement_timeout', '0', true),"
    " set_config('idle_in_transaction_session_timeout', '0', true),"
    " set_config('work_mem', :memory, true)"
)
SORT_MEMORY = "64MB"
"""Memory in which the server sorts a day's rows, as Postgres writes it; beyond it uses files."""

COPY = "COPY ({}) TO STDOUT (FORMAT binary)"
CHUNK_BYTES = 1 << 20


class DaySnapshot:
    """The database as it was at one moment; `day_snapshot` makes one."""

    def __init__(self, copying: Connection, asking: Connection) -> None:
        self._copying = copying
        self.asking = asking
        self.catalog: Catalog = catalog.read(asking)

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows of a statement; also while another one is copied."""
        return list(self.asking.exec_driver_sql(statement, dict(parameters)).fetchall())

    def copy(self, statement: str, parameters: Mapping[str, Any], to: Any) -> None:
        """Write the rows of a statement to `to` as they come, in PostgreSQL's binary COPY format.

        What `to.write` raises ends the statement. Raises SQLAlchemy's `DBAPIError`.
        """
        raw: Any = self._copying.connection.driver_connection
        try:
            with raw.cursor() as cursor:
                made = cursor.mogrify(statement, parameters).decode()
                cursor.copy_expert(COPY.format(made), to, CHUNK_BYTES)
        except psycopg2.Error as error:  # SQLAlchemy does not see what goes past it
            raise DBAPIError.instance("COPY", {}, error, psycopg2.Error) from None
        except BaseException:
            self._copying.invalidate()  # the statement still runs
            raise


@contextmanager
def day_snapshot(engine: Engine) -> Iterator[DaySnapshot]:
    """The database as it is now. Raises SQLAlchemy's `DBAPIError`."""
    with ExitStack() as stack:
        copying = stack.enter_context(_reading(engine))
        copying.exec_driver_sql(HOLD)
        seen = copying.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        asking = stack.enter_context(_reading(engine))
        asking.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{seen}'")  # has to be the first one
        for connection in (copying, asking):
            connection.execute(NO_LIMITS, {"memory": SORT_MEMORY})
        yield DaySnapshot(copying, asking)


@contextmanager
def _reading(engine: Engine) -> Iterator[Connection]:
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection:
        transaction = connection.begin()
        try:
            yield connection
        finally:
            if not connection.invalidated:
                transaction.rollback()
