"""What the name of a feature means: moved to another version, and back.

Online reads, views and training sets follow one pointer. Requests that pin a version do not move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import activations, active_versions, feature_versions
from registry.definitions import Catalog
from registry.errors import NotAllowed
from registry.formats.heartbeat import Heartbeat
from registry.lifecycle.audit import Line, audit, audit_all
from registry.lifecycle.changing import Change
from registry.lifecycle.readiness import check_ready
from registry.lifecycle.states import (
    check_no_experiment,
    check_not_retired,
    name_of,
    version_of,
)

Action = Literal["activate", "roll back"]


class Activation(NamedTuple):
    """A move of a feature's name from the version `previous` to `version`."""

    at: datetime
    name: str
    version: str
    previous: str | None
    action: str
    actor: str
    note: str


def activate(
    change: Change,
    ref: str,
    without_history: bool = False,
    heartbeats: Iterable[Heartbeat] | None = None,
) -> None:
    """Make a name mean one of its versions; one that was deprecated is so no longer.

    Where it means that already nothing is changed. Raises `UnknownVersion`, `NotAllowed` for a
    version that is retired, and as `check_ready`.
    """
    feature = version_of(change.known, ref)
    check_not_retired(change.known, ref)
    check_no_experiment(change.known, feature.name)
    if change.known.active.get(feature.name) != feature.version:
        check_ready(change, ref, without_history, heartbeats)
        _take_back(change, ref)
        move_name(change, feature.name, feature.version, "activate")


def roll_back(change: Change, text: str) -> str:
    """Make a name mean what it did before its version was activated; returns that version.

    So a second roll-back goes one further back, and never forth. Raises `UnknownVersion`, and
    `NotAllowed` where there is nothing to go back to.
    """
    if "@" in text:
        raise NotAllowed(
            "a roll-back goes to what the name meant before, and to no version that is named: give "
            f"the name alone, or activate {text}"
        )
    name = name_of(change.known, text)
    check_no_experiment(change.known, name)
    now = change.known.active.get(name)
    if now is None:
        raise NotAllowed(f"no version of {name} is active: activate one")
    before = _before(change.connection, name)
    if before is None:
        raise NotAllowed(
            f"{name} had no other version before {now}: `tickwell features history {name}` shows "
            "what it had; activate the one that you want"
        )
    ref = f"{name}@{before}"
    check_not_retired(change.known, ref)
    _take_back(change, ref)
    move_name(change, name, before, "roll back")
    return before


def move_name(change: Change, name: str, version: str, action: Action) -> None:
    """Make a name mean a version, and put that on record."""
    move_names(change, {name: version}, action)


def move_names(change: Change, versions: Mapping[str, str], action: Action) -> None:
    """Make each name mean its version, and put that on record."""
    if not versions:
        return
    connection, by, active = change.connection, change.by, change.known.active
    moved = insert(active_versions)
    connection.execute(
        moved.on_conflict_do_update(
            index_elements=[active_versions.c.name], set_={"version": moved.excluded.version}
        ),
        [{"name": name, "version": version} for name, version in versions.items()],
    )
    connection.execute(
        insert(activations),
        [
            {
                "name": name,
                "version": version,
                "previous": active.get(name),
                "action": action,
                "actor": by.actor,
                "note": by.note,
            }
            for name, version in versions.items()
        ],
    )
    lines = [
        Line(action, name, {"version": version}, _meant(active.get(name)))
        for name, version in versions.items()
    ]
    audit_all(connection, by, lines)


def history(connection: Connection, catalog: Catalog, text: str, limit: int) -> list[Activation]:
    """The newest moves of a feature's name, the newest first. Raises `UnknownVersion`."""
    name = name_of(catalog, text)
    found = connection.execute(
        select(*(activations.c[column] for column in Activation._fields))
        .where(activations.c.name == name)
        .order_by(activations.c.id.desc())
        .limit(limit)
    )
    return [Activation(*row) for row in found]


def _meant(version: str | None) -> dict[str, str] | None:
    return None if version is None else {"version": version}


def _before(connection: Connection, name: str) -> str | None:
    """What a name meant before its version was activated.

    An activation is laid on those before it, and a roll-back takes the uppermost away.
    """
    moves = connection.execute(
        select(activations.c.action, activations.c.version)
        .where(activations.c.name == name)
        .order_by(activations.c.id)
    )
    laid: list[str] = []
    for action, version in moves:
        if action == "activate":
            laid.append(version)
        else:
            del laid[-1:]
    return laid[-2] if len(laid) > 1 else None


def _take_back(change: Change, ref: str) -> None:
    """Let a version be deprecated no longer."""
    withdrawal = change.known.withdrawn.get(ref)
    if withdrawal is None:
        return
    name, _, version = ref.partition("@")
    change.connection.execute(
        update(feature_versions)
        .where(feature_versions.c.name == name, feature_versions.c.version == version)
        .values(deprecated_at=None, replacement=None)
    )
    before = {"since": withdrawal.since.isoformat(), "replacement": withdrawal.replacement}
    audit(change.connection, change.by, "take back deprecation", ref, None, before)
