"""Everything about one version: what it means, its state, what it has values of, who uses it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sqlalchemy import Connection, select

from registry.database.tables import feature_versions
from registry.definitions import Catalog, FeatureVersion
from registry.lifecycle.coverage import coverage, is_recorded_only
from registry.lifecycle.states import State, state_of, users_of, version_of


class Details(NamedTuple):
    """Everything about a version; `digest` identifies what it means, as hexadecimal text.

    `state` is also `recorded`: no worker has stored a run with it yet. Of `stored` offsets of the
    source's topic it has values of `covered`; both are 0 of a derived version.
    """

    feature: FeatureVersion
    state: State | Literal["recorded"]
    covered: int
    stored: int
    digest: str
    created_at: str
    created_by: str
    note: str
    users: list[str]


def details_of(connection: Connection, known: Catalog, ref: str) -> Details:
    """Everything about a version, `name@version`. Raises `UnknownVersion`."""
    feature = version_of(known, ref)
    row = connection.execute(
        select(feature_versions).where(
            feature_versions.c.name == feature.name,
            feature_versions.c.version == feature.version,
        )
    ).one()
    parts = [one for one in coverage(connection, known, ref) if one.is_current]
    state: State | Literal["recorded"] = state_of(known, ref)
    if state == "standby" and is_recorded_only(connection, known, ref):
        state = "recorded"
    return Details(
        feature=feature,
        state=state,
        covered=sum(end - begin for one in parts for begin, end in one.covered),
        stored=sum(one.stored.end - one.stored.begin for one in parts),
        digest="" if row.digest is None else bytes(row.digest).hex(),
        created_at=row.created_at.isoformat(),
        created_by=row.created_by,
        note=row.note,
        users=users_of(known, ref),
    )
