"""Recording a features file: new versions, what is active, and the row schemas to write."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, Engine, func, text
from sqlalchemy.dialects.postgresql import insert

from registry.catalog import read
from registry.consistency import check_against
from registry.database.tables import (
    active_versions,
    feature_versions,
    row_schemas,
)
from registry.database.views import PATIENCE, create_views
from registry.definitions import Catalog, Definitions, FeatureVersion
from registry.errors import DefinitionError
from registry.language.program import lookback
from registry.lifecycle.audit import audit
from registry.lifecycle.source_recording import Begin, change_rules, declare_source
from registry.serial import move
from registry.source_rules import check_sources

LOCK = 7_242_019_003
"""Advisory lock: of two recordings at once, the second sees what the first has recorded."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may ask of the database."""

    features_in_row: int = 1_000
    """Number of feature versions in a row: its view has a column for each name, and Postgres allows
    1,664."""

    history: int | None = None
    """Ticks of an entity that are kept, which a new version may need; None where nobody knows."""

    view_patience: str = PATIENCE
    """Time that a change of a view may wait for its readers, as Postgres writes it."""


LIMITS = Limits()


def record(
    engine: Engine,
    definitions: Definitions,
    actor: str,
    rejected_topic: str | None = None,
    limits: Limits = LIMITS,
    begin: Begin | None = None,
) -> Catalog:
    """Record a features file: new versions, what is active, and the row schemas to write.

    One transaction, one at a time; recording the same file again, in whatever order it is written,
    changes nothing. The version that a file lists last for a name becomes the active one, if the
    name has none yet. What is written stays in the row schema that is written, declared or not, and
    new versions are added to it: no version that is served stops because a file forgets it.

    The rules of a recorded source change only with `begin`, which says where the new ones begin,
    and is called also where none have changed.

    Raises `VersionChanged` when the file defines a recorded version otherwise, `RulesChanged` when
    it changes rules, `RulesOfEarlierBuild` where this build does not have them, `DefinitionError`
    when it contradicts what is recorded, or a source reads `rejected_topic`, and `NotOurView` and
    `ViewBusy` when a view cannot be changed.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        known = read(connection)
        check_sources(known, definitions, may_change=begin is not None)
        check_against(known, definitions, rejected_topic)
        for source in definitions.sources:
            declare_source(connection, source, known, actor)
        for feature in definitions.features:
            if feature.ref not in known.features:
                _check_history(feature, definitions, limits.history)
            _record_version(connection, feature, known, actor)
        for name, version in {f.name: f.version for f in definitions.features}.items():
            if name not in known.active:
                connection.execute(insert(active_versions).values(name=name, version=version))
                audit(connection, actor, "activate", name, {"version": version})
        declared = read(connection)
        # New sources follow in the file's order, which decides the ids of their row schemas.
        for name in dict.fromkeys([*known.sources, *(s.name for s in definitions.sources)]):
            features = _row(name, definitions, declared)
            if len(features) == len(_written(name, declared)):
                continue
            if len(features) > limits.features_in_row:
                raise DefinitionError(
                    f"{definitions.file}: source {name}",
                    f"would have {len(features)} feature versions in each row, and may have "
                    f"{limits.features_in_row}: declare fewer new ones",
                )
            _record_schema(connection, name, features, actor)
        create_views(connection, read(connection), limits.view_patience)
        if begin is not None:  # last, as it changes more than what is undone with the transaction
            change_rules(connection, definitions.sources, known, actor, begin)
        recorded = read(connection)
        if recorded != known:
            move(connection)
        return recorded


def remarks(catalog: Catalog, definitions: Definitions) -> list[str]:
    """What a person should know after recording a file, one line a feature.

    A line says which version is active where there are several, and what is still computed although
    the file does not declare it.
    """
    declared = {feature.ref for feature in definitions.features}
    lines = []
    for name, version in catalog.active.items():
        others = [f.version for f in catalog.features.values() if f.name == name]
        others.remove(version)
        remark = ""
        if f"{name}@{version}" not in declared:
            remark += " and stays active, although the file does not declare it"
        if others:
            remark += f"; also recorded: {', '.join(others)}"
        if remark:
            lines.append(f"{name}: {version} is active{remark}")
    return lines


def _check_history(feature: FeatureVersion, definitions: Definitions, history: int | None) -> None:
    """Refuse what no worker could compute: a recorded version is never taken back."""
    if feature.source is None or history is None:
        return
    (source,) = (each for each in definitions.sources if each.name == feature.source)
    needed = lookback(feature.expression, source, feature.ref)
    if needed > history:
        raise DefinitionError(
            f"{definitions.file}: feature {feature.name}",
            f"needs {needed} ticks, and of each entity {history} are kept: set TICKWELL_HISTORY to "
            f"at least {needed}, here and for the workers, and restart those first",
        )


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
    audit(connection, actor, action, feature.ref, definition)


def _record_schema(connection: Connection, source: str, features: list[str], actor: str) -> None:
    values = {"source": source, "features": features}
    created = connection.execute(
        insert(row_schemas).values(**values).returning(row_schemas.c.id)
    ).scalar_one()
    audit(connection, actor, "new row schema", str(created), values)


def _row(source: str, definitions: Definitions, recorded: Catalog) -> list[str]:
    """The feature versions that rows of a source should hold: what they hold, then what is new."""
    active = [recorded.features[f"{name}@{version}"] for name, version in recorded.active.items()]
    wanted = [f.ref for f in (*definitions.features, *active) if f.source == source]
    return list(dict.fromkeys([*_written(source, recorded), *wanted]))


def _written(source: str, recorded: Catalog) -> tuple[str, ...]:
    """The feature versions that rows of a source hold today."""
    writing = recorded.writing.get(source)
    return () if writing is None else recorded.schemas[writing].features
