"""The audit: who changed what in the registry, when, and from what to what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import audit as table
from registry.definitions import SET_PREFIX, Catalog
from registry.errors import UnknownVersion
from registry.lifecycle.states import name_of, set_named, versions_of

SOURCE_PREFIX = "source:"
"""What stands before the name of a source where the audit is asked for."""


class By(NamedTuple):
    """Who changes something: the person or API key, the request it came with, and why."""

    actor: str
    request_id: str | None = None
    note: str = ""


class Entry(NamedTuple):
    """A line of the audit; `before` and `after` are JSON, None for nothing."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: Any
    after: Any
    request_id: str | None
    note: str


class Line(NamedTuple):
    """What is put on record of one subject; `before` and `after` are JSON."""

    action: str
    subject: str
    after: Any
    before: Any = None


def audit(
    connection: Connection, by: By, action: str, subject: str, after: Any, before: Any = None
) -> None:
    """Record an action in the transaction of `connection`; `before` and `after` are JSON."""
    audit_all(connection, by, [Line(action, subject, after, before)])


def audit_all(connection: Connection, by: By, lines: Sequence[Line]) -> None:
    """Record several actions, in their order."""
    if lines:
        connection.execute(insert(table), [line._asdict() | _told(by) for line in lines])


def _told(by: By) -> dict[str, Any]:
    return {"actor": by.actor, "request_id": by.request_id, "note": by.note}


def entries(
    connection: Connection, subjects: Iterable[str], limit: int, below: int | None = None
) -> list[Entry]:
    """The newest entries about some subjects, the newest first; with `below` those of lower ids."""
    wanted = select(*(table.c[name] for name in Entry._fields)).where(
        table.c.subject.in_(list(subjects))
    )
    if below is not None:
        wanted = wanted.where(table.c.id < below)
    found = connection.execute(wanted.order_by(table.c.id.desc()).limit(limit))
    return [Entry(*row) for row in found]


def subjects_of(known: Catalog, text: str) -> list[str]:
    """The subjects of lines about a feature with its versions, a set, or a source with its rows.

    Raises `UnknownVersion`.
    """
    if text.startswith(SET_PREFIX):
        return [set_named(known, text)]
    if text.startswith(SOURCE_PREFIX):
        source = text.removeprefix(SOURCE_PREFIX)
        if source not in known.sources:
            sources = ", ".join(known.sources)
            raise UnknownVersion(f"there is no source {source}; there are {sources}")
        return [source, *(str(s.id) for s in known.schemas.values() if s.source == source)]
    name = name_of(known, text)
    return [name, *(feature.ref for feature in versions_of(known, name))]
