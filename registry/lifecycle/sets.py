"""Models that read a set: the last link of the lineage."""

from __future__ import annotations

import re
from collections import defaultdict

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from registry.database.tables import set_models
from registry.definitions import SET_PREFIX
from registry.errors import DefinitionError
from registry.lifecycle.audit import audit
from registry.lifecycle.changing import Change
from registry.lifecycle.states import check_not_retired, set_named

MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
"""Names of models, as model registries have them."""


def use(change: Change, ref: str, model: str) -> None:
    """Put on record that a model reads a set. Raises `UnknownVersion` and `DefinitionError`."""
    set_named(change.known, ref)
    check_not_retired(change.known, ref)
    if not MODEL.fullmatch(model):
        raise DefinitionError(
            f"model {model!r}", "cannot be a name: use letters, digits and . _ : / -, at most 200"
        )
    name, version = _parts(ref)
    inserted = insert(set_models).values(
        name=name, version=version, model=model, recorded_by=change.by.actor
    )
    found = change.connection.execute(inserted.on_conflict_do_nothing())
    if found.rowcount:
        audit(change.connection, change.by, "use", ref, {"model": model})


def stop_using(change: Change, ref: str, model: str) -> None:
    """Put on record that a model reads a set no more. Raises `UnknownVersion`."""
    set_named(change.known, ref)
    name, version = _parts(ref)
    found = change.connection.execute(
        delete(set_models).where(
            set_models.c.name == name,
            set_models.c.version == version,
            set_models.c.model == model,
        )
    )
    if found.rowcount:
        audit(change.connection, change.by, "stop using", ref, None, {"model": model})


def models_of(connection: Connection, ref: str) -> list[str]:
    """The models that read a set."""
    return models(connection).get(ref, [])


def models(connection: Connection) -> dict[str, list[str]]:
    """The models that read each set, by its ref; only of those that some model reads."""
    found = defaultdict[str, list[str]](list)
    for row in connection.execute(select(set_models).order_by(set_models.c.model)):
        found[f"{SET_PREFIX}{row.name}@{row.version}"].append(row.model)
    return dict(found)


def _parts(ref: str) -> tuple[str, str]:
    name, _, version = ref.removeprefix(SET_PREFIX).partition("@")
    return name, version
