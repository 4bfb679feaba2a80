"""Recording a features file: new versions, what is active, sets, and the row schemas to write."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import msgspec
from sqlalchemy import Engine, func
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import (
    feature_sets,
    row_schemas,
)
from registry.database.views import PATIENCE, create_views
from registry.definitions import Catalog, Definitions, FeatureSet
from registry.errors import DefinitionError
from registry.features_file import Text, read_text
from registry.lifecycle import histories
from registry.lifecycle.activation import move_names
from registry.lifecycle.audit import NEW_SCHEMA, By, audit
from registry.lifecycle.changes import Changes, changes_of
from registry.lifecycle.changing import Change, changing
from registry.lifecycle.source_recording import (
    Begin,
    change_rules,
    declare_source,
    reword_source,
)
from registry.lifecycle.version_recording import record_versions
from registry.serial import Serial
from registry.source_rules import check_sources


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may ask of the database."""

    features_in_row: int = 1_000
    """Number of feature versions in a row: its view has a column for each name, and Postgres allows
    1,664."""

    view_patience: str | None = PATIENCE
    """Time that a change of a view may wait for its readers, as Postgres writes it; None to leave
    the views to the caller."""


LIMITS = Limits()


def record(
    engine: Engine,
    given: Definitions | Text,
    actor: str | By,
    rejected_topic: str | None = None,
    limits: Limits = LIMITS,
    begin: Begin | None = None,
    expected: Serial | None = None,
) -> Catalog:
    """Record a features file: new versions, what is active, sets, and the row schemas to write.

    Its text is read beside what is recorded then, of which nothing is changed meanwhile.

    One transaction, one at a time; recording the same file again, in whatever order it is written,
    changes nothing. The version that a file lists last for a name becomes the active one, if the
    name has none yet; a later version stands by. What is written stays in the row schema that is
    written, declared or not, and new versions are added to it: no version that is served stops
    because a file forgets it.

    The rules of a recorded source change only with `begin`, which says where the new ones begin,
    and is called also where none have changed. Its history is no rule, and changes without. With
    `expected` nothing is recorded unless the registry still has that serial.

    Raises `StalePlan`, `VersionChanged` when the file defines a recorded version otherwise,
    `RulesChanged` when it changes rules, `RulesOfEarlierBuild` where this build does not have them,
    and `DefinitionError` when it contradicts what is recorded, a source reads `rejected_topic`, or
    its history is too short for its versions. What is recorded stays so where a view cannot be
    extended, which raises `NotOurView` or `ViewBusy`.
    """
    by = actor if isinstance(actor, By) else By(actor)
    with changing(engine, by, expected) as change:
        definitions = read_text(given, change.known) if isinstance(given, Text) else given
        check_sources(change.known, definitions, may_change=begin is not None)
        record_definitions(change, definitions, rejected_topic, limits)
        if begin is not None:  # last, as it changes more than what is undone with the transaction
            change_rules(change.connection, definitions.sources, change.known, by, begin)
    if limits.view_patience is not None:
        create_views(engine, limits.view_patience)
    return change.recorded


def record_definitions(
    change: Change, definitions: Definitions, rejected_topic: str | None, limits: Limits
) -> None:
    """Record definitions, of which the rules of sources apart. Raises as `record`."""
    changes = changes_of(change.known, definitions, rejected_topic)
    check_limits(change.known, changes, definitions, limits)
    for source in changes.sources:
        declare_source(change.connection, source, change.known, change.by)
    for source in changes.reworded_sources:
        reword_source(change.connection, source, change.known, change.by)
    versions = (*changes.versions, *changes.reworded)
    record_versions(change.connection, change.known, change.by, versions)
    move_names(change, changes.activated, "activate")
    for one in changes.sets:
        _record_set(change, one)
    for name, features in changes.rows.items():
        record_schema(change, name, features)


def check_limits(
    known: Catalog, changes: Changes, definitions: Definitions, limits: Limits
) -> None:
    """Refuse what no worker could compute, and no view show. Raises `DefinitionError`."""
    file = definitions.file
    sources = known.sources | {source.name: source for source in definitions.sources}
    for kept in changes.reworded_sources:
        histories.check_source(known, kept, file)
    for feature in changes.versions:
        histories.check_version(feature, sources, file)
    for source, features in changes.rows.items():
        if len(features) > limits.features_in_row:
            raise DefinitionError(
                f"{file}: source {source}",
                f"would have {len(features)} feature versions in each row, and may have "
                f"{limits.features_in_row}: declare fewer new ones, or retire some",
            )


def remarks(catalog: Catalog, definitions: Definitions) -> list[str]:
    """What a person should know after recording a file, one line a feature.

    A line says which version is active where there are several, and what is still computed although
    the file does not declare it; one says what of the file is not recorded.
    """
    declared = {feature.ref for feature in definitions.features}
    lines = []
    new = [*(ref for ref in declared if ref not in catalog.features)]
    new += [one.ref for one in definitions.sets if one.ref not in catalog.sets]
    new += [
        f"`history = {source.history}` of the source {source.name}"
        for source in histories.reworded(catalog, definitions)
    ]
    if new:
        lines.append(
            f"not recorded: {', '.join(sorted(new))}; see what they would change by `tickwell "
            "features plan`, and record them by `tickwell features apply`"
        )
    versions = defaultdict[str, list[str]](list)
    for feature in catalog.features.values():
        versions[feature.name].append(feature.version)
    for name, version in catalog.active.items():
        others = versions[name]
        others.remove(version)
        remark = ""
        if f"{name}@{version}" not in declared:
            remark += " and stays active, although the file does not declare it"
        if others:
            remark += f"; also recorded: {', '.join(others)}"
        if remark:
            lines.append(f"{name}: {version} is active{remark}")
    return lines


def record_schema(change: Change, source: str, features: tuple[str, ...]) -> None:
    """Record the row schema in which a source is written from now on."""
    values = {"source": source, "features": list(features)}
    created = change.connection.execute(
        insert(row_schemas).values(**values).returning(row_schemas.c.id)
    ).scalar_one()
    audit(change.connection, change.by, NEW_SCHEMA, str(created), values)


def _record_set(change: Change, one: FeatureSet) -> None:
    connection, known, by = change.connection, change.known, change.by
    recorded = known.sets.get(one.ref)
    definition = msgspec.to_builtins(one)
    statement = insert(feature_sets).values(
        name=one.name,
        version=one.version,
        definition=definition,
        created_by=by.actor,
        created_at=func.clock_timestamp(),
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[feature_sets.c.name, feature_sets.c.version],
            set_={"definition": statement.excluded.definition},
        )
    )
    action = "record set" if recorded is None else "reword set"
    before = None if recorded is None else msgspec.to_builtins(recorded)
    audit(connection, by, action, one.ref, definition, before)
