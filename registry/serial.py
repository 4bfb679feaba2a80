"""The serial of the registry: one small reading tells whether the catalog has changed.

It is moved in the transaction of the change, under the lock of recordings. So whoever reads a
serial and then the catalog has all that the serial stands for.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.exc import ProgrammingError

from registry.database.tables import serial as table

UNKNOWN = (errorcodes.UNDEFINED_TABLE, errorcodes.INSUFFICIENT_PRIVILEGE)
"""Nobody has migrated the tables to this version yet, or the account may not read this one."""


class Serial(NamedTuple):
    """How often the catalog has changed, and when it did last.

    The time, because a registry that was restored from a copy comes to the same numbers again.
    """

    number: int
    moved_at: datetime


def serial(engine: Engine) -> Serial | None:
    """The serial of the registry, None where it is not known: then the catalog must be read."""
    try:
        with engine.connect() as connection:
            return serial_in(connection)
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) not in UNKNOWN:
            raise
        return None


def serial_in(connection: Connection) -> Serial | None:
    """The serial that a transaction sees."""
    found = connection.execute(select(table.c.number, table.c.moved_at)).first()
    return None if found is None else Serial(found.number, found.moved_at)


def move(connection: Connection) -> None:
    """Move the serial in the transaction of a change."""
    connection.execute(
        update(table).values(number=table.c.number + 1, moved_at=func.clock_timestamp())
    )
