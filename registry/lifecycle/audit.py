"""The audit: who changed what in the registry, when, and from what to what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import audit as table
from registry.database.tables import schema_starts, topics
from registry.definitions import SET_PREFIX, Catalog
from registry.errors import UnknownVersion
from registry.lifecycle.states import name_of, set_named, version_of, versions_of

NEW_SCHEMA = "new row schema"
"""The action of a line whose subject is the id of a row schema."""

MOST_STARTS = 100
"""Partitions of which a line says where a row schema begins."""

TRAINING_SET_PREFIX = "training-set:"
"""What stands before the name of a training set."""

SOURCE_PREFIX = "source:"
"""What stands before the name of a source where the audit is asked for."""


class By(NamedTuple):
    """Who changes something: the person or API key, the request it came with, and why."""

    actor: str
    request_id: str | None = None
    note: str = ""


class SchemaStart(NamedTuple):
    """The first offset of a partition from which rows are in a row schema."""

    topic: str
    partition: int
    offset: int


class Entry(NamedTuple):
    """A line of the audit; `before` and `after` are JSON, None for nothing.

    Of a new row schema, whose id is the `subject`, `starts` says where it begins: in the first
    `MOST_STARTS` partitions that have a row in it.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: Any
    after: Any
    request_id: str | None
    note: str
    starts: tuple[SchemaStart, ...] = ()


COLUMNS = Entry._fields[:-1]


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
    wanted = select(*(table.c[name] for name in COLUMNS)).where(table.c.subject.in_(list(subjects)))
    if below is not None:
        wanted = wanted.where(table.c.id < below)
    found = connection.execute(wanted.order_by(table.c.id.desc()).limit(limit))
    lines = [Entry(*row) for row in found]
    ids = [int(line.subject) for line in lines if line.action == NEW_SCHEMA]
    starts = _starts(connection, ids) if ids else {}
    return [
        line._replace(starts=starts.get(line.subject, ())) if line.action == NEW_SCHEMA else line
        for line in lines
    ]


def _starts(connection: Connection, ids: Sequence[int]) -> dict[str, tuple[SchemaStart, ...]]:
    """Where row schemas begin, by their ids as text, the newest incarnation of a topic first."""
    of = schema_starts.c
    number = func.row_number().over(
        partition_by=of.schema_id, order_by=(topics.c.incarnation.desc(), of.partition)
    )
    numbered = (
        select(of.schema_id, topics.c.topic, of.partition, of.from_offset, number.label("number"))
        .join(topics, topics.c.topic_id == of.topic_id)
        .where(of.schema_id.in_(ids))
        .subquery()
    )
    wanted = numbered.c
    first = select(wanted.schema_id, wanted.topic, wanted.partition, wanted.from_offset)
    found = defaultdict[str, list[SchemaStart]](list)
    for schema_id, *start in connection.execute(
        first.where(wanted.number <= MOST_STARTS).order_by(wanted.schema_id, wanted.number)
    ):
        found[str(schema_id)].append(SchemaStart(*start))
    return {schema_id: tuple(starts) for schema_id, starts in found.items()}


def subjects_of(known: Catalog, text: str) -> list[str]:
    """The subjects of lines about a feature with its versions, a set, or a source with its rows.

    Of a training set it is the name that it is asked for by.

    To a version belong the row schemas with which it came into the rows of its source, and left
    them. Raises `UnknownVersion`.
    """
    if text.startswith(SET_PREFIX):
        return [set_named(known, text)]
    if text.startswith(TRAINING_SET_PREFIX):
        return [text]  # also of one that was deleted
    if text.startswith(SOURCE_PREFIX):
        source = text.removeprefix(SOURCE_PREFIX)
        if source not in known.sources:
            sources = ", ".join(known.sources)
            raise UnknownVersion(f"there is no source {source}; there are {sources}")
        return [source, *(str(s.id) for s in known.schemas.values() if s.source == source)]
    name = name_of(known, text)
    pin = text.partition("@")[2]
    versions = [version_of(known, f"{name}@{pin}")] if pin else versions_of(known, name)
    refs = {version.ref for version in versions}
    return [name, *refs, *_schemas_of(known, refs)]


def _schemas_of(known: Catalog, refs: set[str]) -> Iterator[str]:
    """The row schemas that hold other ones of some versions than those of their source before."""
    before: dict[str, set[str]] = {}
    for schema in sorted(known.schemas.values(), key=lambda schema: schema.id):
        held = refs.intersection(schema.features)
        if held != before.get(schema.source, set()):
            yield str(schema.id)
        before[schema.source] = held
