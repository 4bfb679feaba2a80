"""Whether a version can take the place of the active one, for reads and for history.

It can where it has values of all that the active one has values of. Of what came before its first
tick a person may do without; not of an entity whose newest row lacks it, which would be `missing`
for everybody who asks.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, exists, func, select

from registry.database.tables import entities
from registry.definitions import FeatureVersion
from registry.errors import NotCovered
from registry.formats.heartbeat import Heartbeat
from registry.lifecycle.changing import Change
from registry.lifecycle.coverage import Holes, behind, coverage, holes, united
from registry.lifecycle.states import version_of

MOST_SHOWN = 5
"""Number of partitions that an error names."""


def check_ready(
    change: Change,
    ref: str,
    without_history: bool = False,
    heartbeats: Iterable[Heartbeat] | None = None,
) -> None:
    """Check that the version `ref` can be activated.

    `heartbeats` are those of the online workers, which know what Redis has; without them Redis is
    not looked at. Raises `NotCovered` with what is missing, and `UnknownVersion`.
    """
    connection, known = change.connection, change.known
    feature = version_of(known, ref)
    active = known.features.get(f"{feature.name}@{known.active.get(feature.name)}")
    if active is None:
        return
    covered = {one.partition: one for one in coverage(connection, known, ref)}
    lacking = _lacking(change, feature, active, without_history)
    if lacking:
        raise NotCovered(ref, _shown(lacking), without_history)
    if feature.source != active.source:
        strangers = _strangers(connection, feature, active)
        if strangers:
            raise NotCovered(ref, f"{strangers} entities that {active.ref} has", True)
    # Where it has values of all that is stored, every newest row in Postgres has it.
    partial = {one.partition for one in covered.values() if one.live != united([one.stored])}
    late = [
        one._replace(
            offline=one.offline and one.partition in partial,
            online=heartbeats is not None and one.online is not False,
        )
        for one in behind(connection, known, ref, heartbeats or ())
        if one.partition in covered
    ]
    late = [one for one in late if one.offline or one.online]
    if late:
        stores = {
            "Postgres": any(one.offline for one in late),
            "Redis": any(o.online for o in late),
        }
        shown = " and ".join(store for store, is_late in stores.items() if is_late)
        topic = late[0].partition.topic
        what = f"newest rows of entities in {len(late)} partitions of {topic} ({shown})"
        raise NotCovered(ref, what, True)


def _lacking(
    change: Change, feature: FeatureVersion, active: FeatureVersion, without_history: bool
) -> list[Holes]:
    """The ranges that a version lacks and may not lack."""
    connection, known = change.connection, change.known
    if feature.source != active.source:  # offsets of two topics cannot be compared
        if without_history:
            return []
        of_active = coverage(connection, known, active.ref)
        return [Holes(one.partition, one.covered) for one in of_active if one.covered]
    covered = {one.partition: one.covered for one in coverage(connection, known, feature.ref)}
    lacking = []
    for one in holes(connection, known, feature.name, feature.version):
        begins = [range_.begin for range_ in covered[one.partition]]
        first = begins[0] if begins else None
        ranges = tuple(
            range_
            for range_ in one.ranges
            if not without_history or (first is not None and range_.begin > first)
        )
        if ranges:
            lacking.append(Holes(one.partition, ranges))
    return lacking


def _strangers(connection: Connection, feature: FeatureVersion, active: FeatureVersion) -> int:
    """How many entities of the active version's source the version's source has never seen."""
    seen = entities.alias()
    unseen = ~exists().where(seen.c.source == feature.source, seen.c.entity == entities.c.entity)
    found = select(func.count()).where(entities.c.source == active.source, unseen)
    return int(connection.execute(found).scalar_one())


def _shown(lacking: list[Holes]) -> str:
    shown = "; ".join(
        f"{one.partition.topic}[{one.partition.partition}] offsets "
        + ", ".join(f"{range_.begin} to {range_.end - 1}" for range_ in one.ranges)
        for one in lacking[:MOST_SHOWN]
    )
    more = len(lacking) - MOST_SHOWN
    return shown + (f"; and {more} partitions more" if more > 0 else "")
