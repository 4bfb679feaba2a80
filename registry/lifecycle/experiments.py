"""Experiments: a feature's name means one version for some who ask, and another one for others.

An experiment is put on record when it starts, when its weights change, and when it stops, in favour
of one of its arms or of none. Who has which arm is in `registry.experiments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import experiments as table
from registry.definitions import Arm, Catalog, Experiment
from registry.errors import DefinitionError, NotAllowed, UnknownVersion
from registry.formats.heartbeat import Heartbeat
from registry.lifecycle.activation import move_name
from registry.lifecycle.audit import audit
from registry.lifecycle.changing import Change
from registry.lifecycle.readiness import check_ready
from registry.lifecycle.states import name_of, state_of, version_of
from registry.naming import NAME

MOST_ARMS = 10
LARGEST_WEIGHT = 1_000_000


class RecordedExperiment(NamedTuple):
    """An experiment with its past; `winner` is the variant that it stopped in favour of."""

    experiment: Experiment
    started_at: datetime
    started_by: str
    stopped_at: datetime | None
    stopped_by: str | None
    winner: str | None


def start(
    change: Change, experiment: Experiment, heartbeats: Sequence[Heartbeat] | None = None
) -> None:
    """Start an experiment, or give the arms of one that runs other weights.

    Raises `DefinitionError`, `UnknownVersion`, `NotAllowed`, and `NotCovered` where an entity has
    no row of an arm yet.
    """
    known = change.known
    _check(known, experiment)
    recorded = _recorded(change.connection, experiment.name)
    before = None
    if recorded is not None:
        before = recorded.experiment
        if recorded.stopped_at is not None:
            raise NotAllowed(
                f"experiment {experiment.name} has run already, and a name stands for one: choose "
                "another one"
            )
        if _without_weights(before) != _without_weights(experiment):
            raise NotAllowed(
                f"experiment {experiment.name} runs with other arms: only their weights can change "
                "while it does; stop it first, and start one with another name"
            )
        if before == experiment:
            return
    else:
        running = known.experiments.get(experiment.feature)
        if running is not None:
            raise NotAllowed(
                f"experiment {running.name} runs with {experiment.feature}: stop it first"
            )
    if before is None:
        for arm in experiment.arms:
            check_ready(change, f"{experiment.feature}@{arm.version}", True, heartbeats)
    definition = msgspec.to_builtins(experiment)
    inserted = insert(table).values(
        name=experiment.name, definition=definition, started_by=change.by.actor
    )
    change.connection.execute(
        inserted.on_conflict_do_update(
            index_elements=[table.c.name], set_={"definition": definition}
        )
    )
    action = "start experiment" if before is None else "change weights"
    told = None if before is None else msgspec.to_builtins(before)
    audit(change.connection, change.by, action, experiment.feature, definition, told)


def stop(
    change: Change,
    name: str,
    winner: str | None = None,
    without_history: bool = False,
    heartbeats: Sequence[Heartbeat] | None = None,
) -> Experiment:
    """Stop an experiment; the feature's name means the version of the variant `winner` then.

    Without a winner it means what it did before. Raises `UnknownVersion`, `NotAllowed`, and as
    `check_ready` for the winner's version.
    """
    recorded = _recorded(change.connection, name)
    if recorded is None:
        raise UnknownVersion(f"there is no experiment {name}: see `tickwell experiment status`")
    experiment = recorded.experiment
    if recorded.stopped_at is not None:
        raise NotAllowed(f"experiment {name} was stopped at {recorded.stopped_at:%Y-%m-%d %H:%M}")
    arms = {arm.variant: arm for arm in experiment.arms}
    if winner is not None and winner not in arms:
        raise UnknownVersion(f"experiment {name} has no variant {winner!r}: {', '.join(arms)}")
    change.connection.execute(
        update(table)
        .where(table.c.name == name)
        .values(stopped_at=func.now(), stopped_by=change.by.actor, winner=winner)
    )
    definition = msgspec.to_builtins(experiment)
    after = {"winner": winner}
    audit(change.connection, change.by, "stop experiment", experiment.feature, after, definition)
    if winner is not None:
        version = arms[winner].version
        ref = f"{experiment.feature}@{version}"
        check_ready(change, ref, without_history, heartbeats)
        if change.known.active.get(experiment.feature) != version:
            move_name(change, experiment.feature, version, "activate")
    return experiment


def listed(connection: Connection) -> list[RecordedExperiment]:
    """All experiments, the newest first."""
    found = connection.execute(select(table).order_by(table.c.started_at.desc(), table.c.name))
    return [
        RecordedExperiment(
            msgspec.convert(row.definition, Experiment),
            *(row.started_at, row.started_by, row.stopped_at, row.stopped_by, row.winner),
        )
        for row in found
    ]


def _recorded(connection: Connection, name: str) -> RecordedExperiment | None:
    return next((one for one in listed(connection) if one.experiment.name == name), None)


def _without_weights(experiment: Experiment) -> Experiment:
    arms = tuple(Arm(arm.variant, arm.version, 0) for arm in experiment.arms)
    return msgspec.structs.replace(experiment, arms=arms)


def _check(known: Catalog, experiment: Experiment) -> None:
    where = f"experiment {experiment.name}"
    for name in (experiment.name, *(arm.variant for arm in experiment.arms)):
        if not NAME.fullmatch(name):
            raise DefinitionError(
                where, f"{name!r} cannot be a name: use a-z, 0-9 and _, begin with a letter"
            )
    if name_of(known, experiment.feature) != experiment.feature:
        raise DefinitionError(where, f"{experiment.feature} is an alias: name the feature itself")
    if known.active.get(experiment.feature) is None:
        raise NotAllowed(f"no version of {experiment.feature} is active: activate one first")
    variants = {arm.variant for arm in experiment.arms}
    versions = {arm.version for arm in experiment.arms}
    count = len(experiment.arms)
    if not 2 <= count <= MOST_ARMS or len(variants) < count or len(versions) < count:
        raise DefinitionError(
            where, f"needs 2 to {MOST_ARMS} arms with different variants and different versions"
        )
    for arm in experiment.arms:
        if not 1 <= arm.weight <= LARGEST_WEIGHT:
            raise DefinitionError(
                where, f"the weight of {arm.variant} must be a whole number, 1 to {LARGEST_WEIGHT}"
            )
        ref = version_of(known, f"{experiment.feature}@{arm.version}").ref
        if state_of(known, ref) not in ("active", "standby"):
            raise NotAllowed(
                f"{ref} is {state_of(known, ref)}: an arm must be active or on standby"
            )
    sources = {known.features[f"{experiment.feature}@{version}"].source for version in versions}
    if len(sources) > 1:
        shown = ", ".join(sorted(map(str, sources)))
        raise DefinitionError(where, f"its arms are of the sources {shown}: they must be of one")
