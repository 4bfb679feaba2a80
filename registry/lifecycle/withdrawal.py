"""Giving up a version, or a set: deprecated first, while it is still computed, and then retired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table, func, update

from registry.database.tables import feature_sets, feature_versions
from registry.definitions import SET_PREFIX, Catalog
from registry.errors import NotAllowed
from registry.lifecycle import backfills
from registry.lifecycle.audit import audit
from registry.lifecycle.changes import rows_of
from registry.lifecycle.changing import Change
from registry.lifecycle.recording import record_schema
from registry.lifecycle.sets import models_of
from registry.lifecycle.states import (
    check_no_experiment,
    check_not_retired,
    set_named,
    state_of,
    users_of,
    version_of,
)


def deprecate(change: Change, ref: str, replacement: str | None = None) -> None:
    """Say that a version, or a set, is to be given up, and what its readers should take.

    It is computed on and read as before; answers say since when. To deprecate it again changes its
    `replacement`. Raises `UnknownVersion`, and `NotAllowed` for an active or a retired version.
    """
    known = change.known
    _check_known(known, ref)
    check_not_retired(known, ref)
    if state_of(known, ref) == "active":
        raise NotAllowed(
            f"{ref} is active, which its readers by name would not expect: activate another "
            "version first"
        )
    running = known.experiments.get(ref.partition("@")[0])
    if running is not None and f"experiment {running.name}" in users_of(known, ref):
        check_no_experiment(known, running.feature)
    if replacement is not None:
        _check_replacement(known, ref, replacement)
    withdrawal = known.withdrawn.get(ref)
    if withdrawal is not None and withdrawal.replacement == replacement:
        return
    since = func.now() if withdrawal is None else withdrawal.since
    _update(change, ref, deprecated_at=since, replacement=replacement)
    before = None if withdrawal is None else {"replacement": withdrawal.replacement}
    audit(change.connection, change.by, "deprecate", ref, {"replacement": replacement}, before)


def retire(change: Change, ref: str, readers: Sequence[str] = ()) -> None:
    """Give up a version, or a set, that is deprecated: no new row has it, nobody can read it.

    What is stored of it stays; a backfill of it is cancelled. Raises `UnknownVersion`, and
    `NotAllowed` unless it is deprecated and nothing uses it: a derived version, a set, a model, or
    one of its recent `readers`.
    """
    known = change.known
    _check_known(known, ref)
    if state_of(known, ref) == "retired":
        return
    if state_of(known, ref) != "deprecated":
        raise NotAllowed(
            f"{ref} is {state_of(known, ref)}: deprecate it first, so that its readers can see it"
        )
    is_set = ref.startswith(SET_PREFIX)
    users = models_of(change.connection, ref) if is_set else users_of(known, ref)
    users += [f"{reader} (in the last seven days)" for reader in readers]
    if users:
        raise NotAllowed(f"{ref} is read by {', '.join(users)}: let them take another one first")
    _update(change, ref, retired_at=func.now())
    states = {"state": "retired"}, {"state": "deprecated"}
    audit(change.connection, change.by, "retire", ref, *states)
    if not is_set:
        backfills.cancel(change, ref)
    source = None if is_set else known.features[ref].source
    if source is not None:
        held = rows_of(known, source)
        if ref in held:
            record_schema(change, source, tuple(one for one in held if one != ref))


def _check_known(known: Catalog, ref: str) -> None:
    if ref.startswith(SET_PREFIX):
        set_named(known, ref)
    else:
        version_of(known, ref)


def _check_replacement(known: Catalog, ref: str, replacement: str) -> None:
    """Raises `UnknownVersion` and `NotAllowed` for what nobody could take instead."""
    _check_known(known, replacement)
    check_not_retired(known, replacement)
    if replacement == ref or replacement.startswith(SET_PREFIX) != ref.startswith(SET_PREFIX):
        raise NotAllowed(f"{replacement} cannot replace {ref}: name another one of its kind")


def _update(change: Change, ref: str, **values: Any) -> None:
    is_set = ref.startswith(SET_PREFIX)
    table: Table = feature_sets if is_set else feature_versions
    name, _, version = ref.removeprefix(SET_PREFIX).partition("@")
    change.connection.execute(
        update(table).where(table.c.name == name, table.c.version == version).values(**values)
    )
