"""The registry in Postgres: record what a features file declares, load what is recorded."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.dialects.postgresql import insert

from registry.definitions import Catalog, FeatureVersion, RowSchema, Source
from registry.errors import DefinitionError, RegistryEmpty, VersionChanged
from registry.features_file import Definitions
from registry.models import (
    active_versions,
    audit,
    feature_versions,
    row_schemas,
    sources,
)
from registry.views import create_views

LOCK = 7_242_019_003


def load(engine: Engine) -> Catalog:
    """What is recorded, as one consistent reading. Raises `RegistryEmpty` when nothing is."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        catalog = _load(connection)
    if not catalog.writing:
        raise RegistryEmpty
    return catalog


def record(engine: Engine, definitions: Definitions, actor: str) -> Catalog:
    """Record a features file: new versions, what is active, and the row schemas to write.

    One transaction, one at a time; recording the same file again changes nothing. The version that
    a file lists last for a name becomes the active one, if the name has none yet. Raises
    `VersionChanged` when the file says something else of a recorded version.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        known = _load(connection)
        for source in definitions.sources:
            _record_source(connection, source, known, actor)
        for feature in definitions.features:
            _record_version(connection, feature, known, actor)
        for name, version in {f.name: f.version for f in definitions.features}.items():
            if name not in known.active:
                connection.execute(insert(active_versions).values(name=name, version=version))
                _audit(connection, actor, "activate", name, {"version": version})
        for source in definitions.sources:
            refs = [f.ref for f in definitions.features if f.source == source.name]
            _record_schema(connection, source, refs, known, actor)
        catalog = _load(connection)
        create_views(connection, catalog)
    return catalog


def encode(catalog: Catalog) -> bytes:
    """A JSON copy of the catalog."""
    return msgspec.json.encode(catalog)


def decode(copy: bytes) -> Catalog:
    """The catalog of its JSON copy."""
    return msgspec.json.decode(copy, type=Catalog)


def _load(connection: Connection) -> Catalog:
    known_sources = {
        row.name: msgspec.convert(row.definition, Source)
        for row in connection.execute(select(sources).order_by(sources.c.name))
    }
    versions = [
        msgspec.convert(row.definition, FeatureVersion)
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


def _record_source(connection: Connection, source: Source, known: Catalog, actor: str) -> None:
    recorded = known.sources.get(source.name)
    if recorded == source:
        return
    if recorded is not None:
        raise DefinitionError(
            f"source {source.name}",
            f"is recorded as {recorded} and now reads {source}: rows of it exist, so it cannot "
            "change; declare a source with a new name",
        )
    definition = msgspec.to_builtins(source)
    connection.execute(insert(sources).values(name=source.name, definition=definition))
    _audit(connection, actor, "declare source", source.name, definition)


def _record_version(
    connection: Connection, feature: FeatureVersion, known: Catalog, actor: str
) -> None:
    recorded = known.features.get(feature.ref)
    if recorded is not None:
        if _meaning(recorded) != _meaning(feature):
            raise VersionChanged(feature.ref, recorded.expression, feature.expression)
        return
    definition = msgspec.to_builtins(feature)
    connection.execute(
        insert(feature_versions).values(
            name=feature.name,
            version=feature.version,
            definition=definition,
            created_by=actor,
            created_at=func.clock_timestamp(),
        )
    )
    _audit(connection, actor, "record version", feature.ref, definition)


def _meaning(feature: FeatureVersion) -> tuple[object, ...]:
    """What of a version decides its values and statuses; a description may be reworded."""
    return (
        feature.entity,
        feature.expression,
        feature.source,
        feature.over,
        feature.max_age_ns,
    )


def _record_schema(
    connection: Connection, source: Source, refs: Iterable[str], known: Catalog, actor: str
) -> None:
    features = tuple(refs)
    writing = known.writing.get(source.name)
    if not features or (writing is not None and known.schemas[writing].features == features):
        return
    values = {"source": source.name, "features": list(features)}
    created = connection.execute(
        insert(row_schemas).values(**values).returning(row_schemas.c.id)
    ).scalar_one()
    _audit(connection, actor, "new row schema", str(created), values)


def _audit(connection: Connection, actor: str, action: str, subject: str, detail: object) -> None:
    connection.execute(
        insert(audit).values(actor=actor, action=action, subject=subject, detail=detail)
    )
