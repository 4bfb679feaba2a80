"""The registry in Postgres: record what a features file declares, load what is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ProgrammingError

from registry.consistency import check, check_rejected_topic
from registry.database.tables import (
    active_versions,
    audit,
    feature_versions,
    row_schemas,
    sources,
)
from registry.database.views import create_views
from registry.definitions import Catalog, FeatureVersion, RowSchema, Source
from registry.errors import DefinitionError, NewerRegistry, RegistryEmpty, VersionChanged
from registry.features_file import Definitions

LOCK = 7_242_019_003
MOST_FEATURES = 1_000
"""Of one row: a view has a column for each name, and Postgres allows 1,664."""

MEANING = ("entity", "expression", "source", "over", "max_age_ns")
"""What of a version decides its values and statuses; the rest may be reworded."""

Definition = TypeVar("Definition", Source, FeatureVersion)


def load(engine: Engine) -> Catalog:
    """What is recorded, as one consistent reading.

    Raises `RegistryEmpty` when nothing is, `NewerRegistry` when it cannot be read.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        try:
            catalog = _load(connection)
        except ProgrammingError as error:
            if getattr(error.orig, "pgcode", None) != errorcodes.UNDEFINED_TABLE:
                raise
            raise RegistryEmpty from None
    if not catalog.writing:
        raise RegistryEmpty
    return catalog


def record(
    engine: Engine, definitions: Definitions, actor: str, rejected_topic: str | None = None
) -> Catalog:
    """Record a features file: new versions, what is active, and the row schemas to write.

    One transaction, one at a time; recording the same file again, in whatever order it is written,
    changes nothing. The version that a file lists last for a name becomes the active one, if the
    name has none yet. What is written stays in the row schema that is written, declared or not, and
    new versions come beside it: no version that is served goes dead because a file forgets it.

    Raises `VersionChanged` when the file says something else of a recorded version, and
    `DefinitionError` when it does not go together with what is recorded, or a source reads
    `rejected_topic`.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        known = _load(connection)
        _check(definitions, known, rejected_topic)
        for source in definitions.sources:
            _record_source(connection, source, known, actor)
        for feature in definitions.features:
            _record_version(connection, feature, known, actor)
        for name, version in {f.name: f.version for f in definitions.features}.items():
            if name not in known.active:
                connection.execute(insert(active_versions).values(name=name, version=version))
                _audit(connection, actor, "activate", name, {"version": version})
        declared = _load(connection)
        # new sources in the file's order: ids of row schemas are handed out by it
        for name in dict.fromkeys([*known.sources, *(s.name for s in definitions.sources)]):
            _record_schema(connection, declared.sources[name], definitions, declared, actor)
        catalog = _load(connection)
        create_views(connection, catalog)
    return catalog


def remarks(catalog: Catalog, definitions: Definitions) -> list[str]:
    """What a person should know after recording a file, a line a feature: which version is active
    where there are several, and what goes on although the file does not declare it."""
    declared = {feature.ref for feature in definitions.features}
    lines = []
    for name, version in catalog.active.items():
        beside = [f.version for f in catalog.features.values() if f.name == name]
        beside.remove(version)
        line = f"{name}: {version} is active"
        if f"{name}@{version}" not in declared:
            line += " and goes on, though the file does not declare it"
        if beside:
            line += f"; recorded beside it: {', '.join(beside)}"
        if line != f"{name}: {version} is active":
            lines.append(line)
    return lines


def encode(catalog: Catalog) -> bytes:
    """A JSON copy of the catalog."""
    return msgspec.json.encode(catalog)


def decode(copy: bytes) -> Catalog:
    """The catalog of its JSON copy. Raises `NewerRegistry` when it cannot be read."""
    try:
        return msgspec.json.decode(copy, type=Catalog)
    except msgspec.DecodeError as error:
        raise NewerRegistry(str(error)) from None


def _load(connection: Connection) -> Catalog:
    known_sources = {
        row.name: _converted(row.definition, Source)
        for row in connection.execute(select(sources).order_by(sources.c.name))
    }
    versions = [
        _converted(row.definition, FeatureVersion)
        for row in connection.execute(
            select(feature_versions.c.definition).order_by(
                feature_versions.c.name, feature_versions.c.created_at
            )
        )
    ]
    active = connection.execute(select(active_versions).order_by(active_versions.c.name))
    schemas = [
        RowSchema(row.id, row.source, tuple(row.features))
        for row in connection.execute(select(row_schemas).order_by(row_schemas.c.id))
    ]
    return Catalog(
        sources=known_sources,
        features={version.ref: version for version in versions},
        active={row.name: row.version for row in active},
        schemas={schema.id: schema for schema in schemas},
        writing={schema.source: schema.id for schema in schemas},
    )


def _converted(definition: Any, kind: type[Definition]) -> Definition:
    try:
        return msgspec.convert(definition, kind)
    except msgspec.ValidationError as error:
        raise NewerRegistry(f"{definition.get('name')}: {error}") from None


def _check(definitions: Definitions, known: Catalog, rejected_topic: str | None) -> None:
    """Whether the file goes together with what is recorded."""
    file = definitions.file
    for source in definitions.sources:
        changed = _difference(known.sources.get(source.name), source, source.__struct_fields__)
        if changed:
            raise DefinitionError(
                f"{file}: source {source.name}",
                f"is recorded, and its {changed}: rows of it exist, so it cannot change; declare a "
                "source with a new name and a topic of its own",
            )
    for feature in definitions.features:
        changed = _difference(known.features.get(feature.ref), feature, MEANING)
        if changed:
            raise VersionChanged(f"{file}: feature {feature.name}", feature.ref, changed)
    every_source = known.sources | {source.name: source for source in definitions.sources}
    features = known.features | {feature.ref: feature for feature in definitions.features}
    check(every_source, features.values(), file)
    if rejected_topic is not None:
        check_rejected_topic(every_source.values(), rejected_topic, file)


def _difference(recorded: object, declared: object, names: Iterable[str]) -> str:
    """What is declared otherwise than recorded, in words; nothing of what is not recorded."""
    if recorded is None:
        return ""
    pairs = [(name, getattr(recorded, name), getattr(declared, name)) for name in names]
    return " and ".join(
        f"{name} `{was}` would become `{now}`" for name, was, now in pairs if was != now
    )


def _record_source(connection: Connection, source: Source, known: Catalog, actor: str) -> None:
    if source.name in known.sources:
        return
    definition = msgspec.to_builtins(source)
    connection.execute(insert(sources).values(name=source.name, definition=definition))
    _audit(connection, actor, "declare source", source.name, definition)


def _record_version(
    connection: Connection, feature: FeatureVersion, known: Catalog, actor: str
) -> None:
    recorded = known.features.get(feature.ref)
    if recorded == feature:
        return
    definition = msgspec.to_builtins(feature)
    statement = insert(feature_versions).values(
        name=feature.name,
        version=feature.version,
        definition=definition,
        created_by=actor,
        created_at=func.clock_timestamp(),
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[feature_versions.c.name, feature_versions.c.version],
            set_={"definition": statement.excluded.definition},
        )
    )
    action = "record version" if recorded is None else "reword version"
    _audit(connection, actor, action, feature.ref, definition)


def _record_schema(
    connection: Connection, source: Source, definitions: Definitions, known: Catalog, actor: str
) -> None:
    """A new row schema where one has to be: what is written, then what is new."""
    writing = known.writing.get(source.name)
    written = () if writing is None else known.schemas[writing].features
    active = [known.features[f"{name}@{version}"] for name, version in known.active.items()]
    wanted = [f.ref for f in (*definitions.features, *active) if f.source == source.name]
    features = list(dict.fromkeys([*written, *wanted]))
    if len(features) == len(written):
        return
    if len(features) > MOST_FEATURES:
        raise DefinitionError(
            f"{definitions.file}: source {source.name}",
            f"would have {len(features)} feature versions in each row, and may have "
            f"{MOST_FEATURES}: declare fewer new ones",
        )
    values = {"source": source.name, "features": features}
    created = connection.execute(
        insert(row_schemas).values(**values).returning(row_schemas.c.id)
    ).scalar_one()
    _audit(connection, actor, "new row schema", str(created), values)


def _audit(connection: Connection, actor: str, action: str, subject: str, detail: object) -> None:
    connection.execute(
        insert(audit).values(actor=actor, action=action, subject=subject, detail=detail)
    )
