"""The catalog: what is recorded in Postgres, and its JSON copy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from msgspec import structs
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, Table, case, literal_column, null, select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.sql.elements import ColumnElement

from registry.database.tables import (
    active_versions,
    experiments,
    feature_sets,
    feature_versions,
    row_schemas,
    rules_starts,
    source_rules,
    sources,
)
from registry.definitions import (
    SET_PREFIX,
    Catalog,
    Experiment,
    FeatureSet,
    FeatureVersion,
    RecordedRules,
    RowSchema,
    RulesStart,
    Source,
    Withdrawal,
)
from registry.errors import NewerRegistry, OldRegistry, RegistryEmpty

Definition = TypeVar("Definition", Source, FeatureVersion, FeatureSet, Experiment)
Versioned = TypeVar("Versioned", FeatureVersion, FeatureSet)

NOTHING = Catalog({}, {}, {}, {}, {})
OWN_ROW: ColumnElement[bool] = literal_column("xmin = pg_current_xact_id_if_assigned()::xid")
"""Whether a row was written by the transaction that reads it."""

ALWAYS_RECORDED = ("partitioner", "earliest_ns")
"""What definitions say of a source since its rules decide every tick: builds before that kept the
partition of an entity's first tick, took earlier times, and refused numbers in quotes."""


def load(engine: Engine) -> Catalog:
    """What is recorded, as one consistent reading.

    Raises `RegistryEmpty` when nothing is, `NewerRegistry` when it cannot be read, `OldRegistry`
    when the tables are of an earlier build.
    """
    isolated = engine.connect().execution_options(isolation_level="REPEATABLE READ")
    with migrated(), isolated as connection:
        catalog = read(connection)
    if not catalog.writing:
        raise RegistryEmpty
    return catalog


@contextmanager
def migrated() -> Iterator[None]:
    """Raises `RegistryEmpty` and `OldRegistry` where tables or columns are missing in the block."""
    try:
        yield
    except ProgrammingError as error:
        match getattr(error.orig, "pgcode", None):
            case errorcodes.UNDEFINED_TABLE if "tickwell.sources" in str(error.orig):
                raise RegistryEmpty from None
            case errorcodes.UNDEFINED_TABLE | errorcodes.UNDEFINED_COLUMN:
                raise OldRegistry from None
        raise


def read(connection: Connection, before: Catalog | None = None) -> Catalog:
    """What is recorded, as the transaction of `connection` sees it; it may be nothing.

    With `before`, which this transaction has read under the lock of recordings, definitions are
    read again only where the transaction itself has written them: nobody else can have. Raises
    `NewerRegistry` when it cannot be read.
    """
    known_sources = {
        row.name: _converted(row.definition, Source)
        for row in connection.execute(select(sources).order_by(sources.c.name))
    }
    known = before or NOTHING
    versions, withdrawn = _versions(connection, feature_versions, known.features, FeatureVersion)
    sets, withdrawn_sets = _versions(connection, feature_sets, known.sets, FeatureSet)
    active = connection.execute(select(active_versions).order_by(active_versions.c.name))
    newer = select(row_schemas).where(row_schemas.c.id > max(known.schemas, default=0))
    schemas = [
        *known.schemas.values(),  # none ever changes
        *(
            RowSchema(row.id, row.source, tuple(row.features))
            for row in connection.execute(newer.order_by(row_schemas.c.id))
        ),
    ]
    return Catalog(
        sources=known_sources,
        features=versions,
        active={row.name: row.version for row in active},
        schemas={schema.id: schema for schema in schemas},
        writing={schema.source: schema.id for schema in schemas},
        rules=_rules(connection, known_sources),
        sets=sets,
        withdrawn=withdrawn | withdrawn_sets,
        experiments=_experiments(connection),
    )


def _versions(
    connection: Connection, table: Table, known: Mapping[str, Versioned], kind: type[Versioned]
) -> tuple[dict[str, Versioned], dict[str, Withdrawal]]:
    """Versions of features or sets, and those that are withdrawn, by how requests name them.

    Those that are `known` have their definitions, unless this transaction has written them.
    """
    definition: ColumnElement[Any] = table.c.definition
    if known:
        definition = case((OWN_ROW, definition), else_=null()).label("definition")
    names = (table.c.name, table.c.version)
    wanted = (definition, table.c.deprecated_at, table.c.retired_at, table.c.replacement)
    found, withdrawn = dict[str, Versioned](), {}
    in_order = select(*names, *wanted).order_by(table.c.name, table.c.created_at)
    prefix = SET_PREFIX if kind is FeatureSet else ""
    for row in connection.execute(in_order):
        if row.definition is None:
            version = known[f"{prefix}{row.name}@{row.version}"]
        else:
            version = _converted(row.definition, kind)
        found[version.ref] = version
        if row.deprecated_at is not None:
            withdrawn[version.ref] = Withdrawal(row.deprecated_at, row.retired_at, row.replacement)
    return found, withdrawn


def _experiments(connection: Connection) -> dict[str, Experiment]:
    """The experiments that run, by their features."""
    running = select(experiments.c.definition).where(experiments.c.stopped_at.is_(None))
    found = [
        _converted(row.definition, Experiment)
        for row in connection.execute(running.order_by(experiments.c.name))
    ]
    return {one.feature: one for one in found}


def _rules(
    connection: Connection, known_sources: Mapping[str, Source]
) -> dict[str, tuple[RecordedRules, ...]]:
    """What each source was declared to be, by its name, the oldest first.

    Its `history` is no rule: all have the one that the source has now.
    """
    starts = defaultdict[int, list[RulesStart]](list)
    in_order = (rules_starts.c.topic_id, rules_starts.c.partition)
    for row in connection.execute(select(rules_starts).order_by(*in_order)):
        start = RulesStart(row.topic_id.bytes, row.partition, row.from_offset)
        starts[row.rules_id].append(start)
    found = defaultdict[str, list[RecordedRules]](list)
    for row in connection.execute(select(source_rules).order_by(source_rules.c.id)):
        definition = row.definition
        if row.source not in known_sources:
            continue  # it was recorded since they were read, where the reading is not of one moment
        history = known_sources[row.source].history
        found[row.source].append(
            RecordedRules(
                id=row.id,
                source=structs.replace(_converted(definition, Source), history=history),
                starts=tuple(starts[row.id]),
                of_earlier_build=any(name not in definition for name in ALWAYS_RECORDED),
            )
        )
    return {name: tuple(rules) for name, rules in found.items()}


def encode(catalog: Catalog) -> bytes:
    """A JSON copy of the catalog."""
    return msgspec.json.encode(catalog)


def decode(copy: bytes) -> Catalog:
    """The catalog of its JSON copy. Raises `NewerRegistry` when it cannot be read."""
    try:
        return msgspec.json.decode(copy, type=Catalog)
    except msgspec.DecodeError as error:
        raise NewerRegistry(str(error)) from None


def _converted(definition: Any, kind: type[Definition]) -> Definition:
    try:
        return msgspec.convert(definition, kind)
    except msgspec.ValidationError as error:
        raise NewerRegistry(f"{definition.get('name')}: {error}") from None
