"""One change of the registry: a transaction, one at a time, that moves the serial at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from registry.catalog import migrated, read
from registry.database.active_columns import update_active_columns
from registry.definitions import Catalog
from registry.errors import DefinitionError, StalePlan
from registry.lifecycle.audit import By
from registry.lifecycle.search_documents import update_search
from registry.lifecycle.version_recording import complete
from registry.naming import is_storable
from registry.serial import Serial, move, serial_in

LOCK = 7_242_019_003
"""Advisory lock: of two changes at once, the second sees what the first has recorded."""

LONGEST_NOTE = 1_000
"""Characters of a note."""


@dataclass
class Change:
    """A change that is under way: its transaction, what is recorded before it, and who makes it.

    `recorded` is what is recorded after it, once the block that makes it has ended.
    """

    connection: Connection
    known: Catalog
    by: By
    recorded: Catalog


@contextmanager
def changing(
    engine: Engine, by: By, expected: Serial | None = None, whole: bool = False
) -> Iterator[Change]:
    """Change what is recorded; nothing is, where the block raises.

    With `expected` the change was decided on when the registry had that serial. Raises `StalePlan`
    where it has another one by now, and `DefinitionError` for a note that cannot be kept. What
    views and searches look up changes with it, with `whole` all of it: an earlier build has left
    none. New columns of views are a step of their own (`registry.database.views.create_views`).
    """
    if len(by.note) > LONGEST_NOTE or not is_storable(by.note):
        raise DefinitionError(
            "note", f"must be text of at most {LONGEST_NOTE} characters, without NUL"
        )
    with migrated(), engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        if expected is not None and serial_in(connection) != expected:
            raise StalePlan
        before = read(connection)
        known = complete(connection, before, by)
        change = Change(connection, known, by, known)
        yield change
        change.recorded = read(connection, before)
        update_active_columns(connection, change.recorded)  # also what was backfilled counts
        if change.recorded != before or whole:
            _update_search(change, before, whole)
        if change.recorded != before:
            move(connection)


def _update_search(change: Change, known: Catalog, whole: bool) -> None:
    recorded = change.recorded
    if whole or known.features != recorded.features or known.sources != recorded.sources:
        update_search(change.connection, recorded)
    else:  # a document depends on which version is active only by what is shown
        moved = {name for name, _ in known.active.items() ^ recorded.active.items()}
        update_search(change.connection, recorded, moved)
