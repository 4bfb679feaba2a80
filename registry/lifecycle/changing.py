"""One change of the registry: a transaction, one at a time, that moves the serial at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text

from registry.catalog import read
from registry.database.active_columns import update_active_columns
from registry.definitions import Catalog
from registry.errors import StalePlan
from registry.lifecycle.audit import By
from registry.lifecycle.search_documents import update_search
from registry.serial import Serial, move, serial_in

LOCK = 7_242_019_003
"""Advisory lock: of two changes at once, the second sees what the first has recorded."""


class Change(NamedTuple):
    """A change that is under way: its transaction, what is recorded before it, and who makes it."""

    connection: Connection
    known: Catalog
    by: By


@contextmanager
def changing(engine: Engine, by: By, expected: Serial | None = None) -> Iterator[Change]:
    """Change what is recorded; nothing is, where the block raises.

    With `expected` the change was decided on when the registry had that serial. Raises `StalePlan`
    where it has another one by now. What views look up changes with it; new columns of views are a
    step of their own (`registry.database.views.create_views`).
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        if expected is not None and serial_in(connection) != expected:
            raise StalePlan
        known = read(connection)
        yield Change(connection, known, by)
        changed = read(connection)
        update_active_columns(connection, changed)
        update_search(connection, changed)
        if changed != known:
            move(connection)
