"""Versions as the database has them: what they are, what identifies them, and who recorded them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from registry.catalog import read
from registry.database.tables import feature_versions as table
from registry.definitions import Catalog, FeatureVersion
from registry.language.canonical import digest, identity
from registry.lifecycle.audit import By, Line, audit_all
from registry.lifecycle.changes import pinned

WORDS = ("definition", "digest", "identity")
"""What of a recorded version may become another one: its words, and what was not recorded yet."""


def record_versions(
    connection: Connection, known: Catalog, by: By, features: Sequence[FeatureVersion]
) -> None:
    """Record versions, new ones and such as say the same in other words than those in `known`."""
    if not features:
        return
    given = [
        {
            "name": feature.name,
            "version": feature.version,
            "definition": msgspec.to_builtins(feature),
            "created_by": by.actor,
            "digest": digest(feature),
            "identity": identity(feature),
            "note": by.note,
        }
        for feature in features
    ]
    statement = insert(table).values(created_at=func.clock_timestamp())
    updated = statement.on_conflict_do_update(
        index_elements=[table.c.name, table.c.version],
        set_={name: statement.excluded[name] for name in WORDS},
    )
    connection.execute(updated, given)
    recorded = [known.features.get(feature.ref) for feature in features]
    lines = [
        Line(
            "record version" if before is None else "reword version",
            feature.ref,
            one["definition"],
            None if before is None else msgspec.to_builtins(before),
        )
        for feature, one, before in zip(features, given, recorded, strict=True)
    ]
    audit_all(connection, by, lines)


def complete(connection: Connection, known: Catalog, by: By) -> Catalog:
    """Record what earlier builds have not: pins of derived versions, and digests.

    A part without a pin is the version that its name means now, as it was for that build. Returns
    what is recorded then.
    """
    meant = {name: f"{name}@{version}" for name, version in known.active.items()}
    derived = [feature for feature in known.features.values() if feature.derived]
    unpinned = [found for one in derived if (found := pinned(one, known, meant)) != one]
    record_versions(connection, known, by, unpinned)
    for row in connection.execute(select(table.c.definition).where(table.c.digest.is_(None))).all():
        feature = msgspec.convert(row.definition, FeatureVersion)
        connection.execute(
            update(table)
            .where(table.c.name == feature.name, table.c.version == feature.version)
            .values(digest=digest(feature), identity=identity(feature))
        )
    return read(connection, known) if unpinned else known
