"""Training sets that are kept by name: how each was made, and all that it takes to prove it again.

The entity rows are kept as a Parquet file in pieces, so that no statement holds all of it. Whoever
repairs a tick finds the sets that have it by their entities' first and last moments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import BigInteger, Connection, Text, cast, column, delete, func, insert, select
from sqlalchemy.dialects.postgresql import ARRAY

from registry.database.training_set_tables import (
    training_set_entities,
    training_set_frames,
    training_sets,
)
from registry.errors import DefinitionError, NotAllowed, UnknownVersion
from registry.lifecycle.audit import TRAINING_SET_PREFIX, By, audit

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""Names of training sets, which are told from files by having no dot and no slash."""

ENTITIES_A_STATEMENT = 10_000


class StoredUntil(Struct, frozen=True):
    """What was stored of a partition when a set was made.

    `closed_until` is the moment before which all was, nanoseconds UTC.
    """

    topic: str
    partition: int
    next_offset: int | None
    closed_until: int


class TrainingSet(Struct, frozen=True):
    """A training set on record.

    `made` says how it was made (`serving.history.made.Made`), `features` which versions it has
    values of. `digests` has one of the entity rows, under "", and one of the bits of each feature;
    `statuses` counts rows by status for each feature.
    """

    name: str
    made: dict[str, Any]
    features: tuple[str, ...]
    rows: int
    statuses: dict[str, dict[str, int]]
    digests: dict[str, str]
    sources: tuple[StoredUntil, ...]
    frame_bytes: int
    built_at: datetime
    built_by: str


class Range(Struct, frozen=True):
    """The first and the last moment of an entity in a set, nanoseconds UTC."""

    source: str
    entity: str
    first: int
    last: int


def check_name(connection: Connection, name: str) -> None:
    """Raises `DefinitionError` for what is no name, and `NotAllowed` for one that is taken."""
    if not NAME.fullmatch(name):
        raise DefinitionError(
            f"training set {name!r}", "cannot be a name: use letters, digits, _ and -, at most 100"
        )
    taken = select(training_sets.c.name).where(training_sets.c.name == name)
    if connection.execute(taken).first() is not None:
        raise NotAllowed(
            f"there is a training set {name} already: choose another name, or delete it "
            f"(`tickwell training-set delete {name}`)"
        )


def save(
    connection: Connection,
    by: By,
    made: Mapping[str, Any],
    frame: Iterable[bytes],
    entities: Iterable[Range],
) -> None:
    """Put a training set on record, with the columns of `training_sets`. Raises as `check_name`."""
    check_name(connection, made["name"])
    connection.execute(insert(training_sets).values(**made, built_by=by.actor))
    for number, content in enumerate(frame):
        row = {"name": made["name"], "number": number, "content": content}
        connection.execute(insert(training_set_frames).values(row))
    for some in _some(entities):
        rows = [
            {
                "source": one.source,
                "entity": one.entity,
                "name": made["name"],
                "first": one.first,
                "last": one.last,
            }
            for one in some
        ]
        connection.execute(insert(training_set_entities), rows)
    after = {"rows": made["rows"], "features": list(made["features"])}
    audit(connection, by, "save training set", f"{TRAINING_SET_PREFIX}{made['name']}", after)


def remove(connection: Connection, by: By, name: str) -> None:
    """Forget a training set. Raises `UnknownVersion`."""
    found = named(connection, name)
    connection.execute(delete(training_sets).where(training_sets.c.name == name))
    before = {"rows": found.rows, "features": list(found.features), "digests": found.digests}
    subject = f"{TRAINING_SET_PREFIX}{name}"
    audit(connection, by, "delete training set", subject, None, before)


def listed(connection: Connection) -> list[TrainingSet]:
    """All training sets, the newest first."""
    wanted = select(training_sets).order_by(training_sets.c.built_at.desc(), training_sets.c.name)
    return [_of(row) for row in connection.execute(wanted)]


def named(connection: Connection, name: str) -> TrainingSet:
    """One training set. Raises `UnknownVersion`."""
    row = connection.execute(select(training_sets).where(training_sets.c.name == name)).first()
    if row is None:
        raise UnknownVersion(
            f"there is no training set {name}: `tickwell training-set list` shows what there is"
        )
    return _of(row)


def frame_of(connection: Connection, name: str) -> Iterator[bytes]:
    """The entity rows of a training set, a piece of the file after the other."""
    pieces = training_set_frames.c
    numbers = select(pieces.number).where(pieces.name == name).order_by(pieces.number)
    for number in connection.execute(numbers).scalars().all():
        content = select(pieces.content).where(pieces.name == name, pieces.number == number)
        yield bytes(connection.execute(content).scalar_one())


def versions_in(connection: Connection) -> dict[str, Sequence[str]]:
    """The versions, `name@version`, that each training set has values of."""
    found = connection.execute(select(training_sets.c.name, training_sets.c.features))
    return {name: tuple(features) for name, features in found}


def _of(row: Any) -> TrainingSet:
    values = dict(row._mapping)
    values["features"] = tuple(values["features"])
    values["sources"] = tuple(StoredUntil(**one) for one in values["sources"])
    return TrainingSet(**values)


def _some(entities: Iterable[Range]) -> Iterator[list[Range]]:
    some: list[Range] = []
    for one in entities:
        some.append(one)
        if len(some) == ENTITIES_A_STATEMENT:
            yield some
            some = []
    if some:
        yield some


def containing(connection: Connection, source: str, since: Mapping[str, int]) -> list[str]:
    """The named sets that have moments of entities at or after these times, nanoseconds UTC."""
    of = training_set_entities.c
    arrays = cast(list(since), ARRAY(Text)), cast(list(since.values()), ARRAY(BigInteger))
    columns = column("entity", Text), column("since", BigInteger)
    asked = func.unnest(*arrays).table_valued(*columns, name="asked").render_derived()
    found = (
        select(of.name)
        .distinct()
        .join_from(training_set_entities, asked, of.entity == asked.c.entity)
        .where(of.source == source, of.last >= asked.c.since)
        .order_by(of.name)
    )
    return list(connection.execute(found).scalars())
