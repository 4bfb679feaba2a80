"""What the views of sources look up: their row schemas, and where the active versions are.

To activate a version is to update a row of `tickwell.active_columns`; a row schema more is that and
a function replaced. Neither waits for who reads a view, and a query that runs goes on with what it
began with. The view itself is replaced only for a new column (`registry.database.views`).

The row schemas are in functions that the planner expands, and not in a table, because a plan
depends on them: of a source with one row schema no tick can be in two, `ORDER BY event_time` is the
order of the primary key, and a table would only be read once the plan is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Text,
    case,
    delete,
    false,
    literal,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.elements import ColumnElement

from registry.database.backfill_tables import backfills
from registry.database.load_tables import loads
from registry.database.tables import active_columns
from registry.definitions import Catalog, RowSchema
from registry.formats.loaded_rows import loaded
from registry.resources import sql

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
SOURCE = literal_column("$1", Text)
SCHEMA_ID = literal_column("$2", Integer)
"""The parameters of the functions."""

FUNCTION_BODY = sql(__package__, "function_body")


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of the migration `v0012`, which says what it is for."""

    name: str
    parameters: Mapping[str, str]
    """Their types by name."""
    returns: str


OF_A_ROW = {"source": "text", "schema_id": "integer"}
IS_ROW_SCHEMA = _Function("is_row_schema", OF_A_ROW, "boolean")
IS_LATER_ROW_SCHEMA = _Function("is_later_row_schema", OF_A_ROW, "boolean")
NEWEST_ROW_SCHEMA = _Function("newest_row_schema", {"source": "text"}, "integer")

Key = tuple[str, str]
"""A source and the name of a feature."""


class _Found(NamedTuple):
    """Where the active version of a feature is: in rows, and in blocks if it was backfilled."""

    indexes: list[int]
    backfill: int | None


def update_active_columns(connection: Connection, catalog: Catalog) -> None:
    """Bring what the views look up to `catalog`, in the transaction that records it.

    Only what differs is written. The caller holds the lock of recordings.
    """
    table = active_columns.c
    found = connection.execute(select(active_columns))
    known: dict[Key, _Found] = {
        (row.source, row.name): _Found(row.indexes, row.backfill) for row in found
    }
    wanted = _wanted(catalog, _complete(connection))
    changed = [
        {"source": source, "name": name, **one._asdict()}
        for (source, name), one in wanted.items()
        if known.get((source, name)) != one
    ]
    if changed:
        written = insert(active_columns)
        updated = written.on_conflict_do_update(
            index_elements=[table.source, table.name],
            set_={"indexes": written.excluded.indexes, "backfill": written.excluded.backfill},
        )
        connection.execute(updated, changed)
    if gone := known.keys() - wanted.keys():
        connection.execute(
            delete(active_columns).where(tuple_(table.source, table.name).in_(list(gone)))
        )
    ids = {name: [each.id for each in schemas_of(catalog, name)] for name in catalog.sources}
    if not ids:
        return
    later = {name: found[1:] for name, found in ids.items()}
    of_loads = _of_loads(connection)
    all_ids = {name: [*found, *of_loads.get(name, ())] for name, found in ids.items()}
    _replace_function(connection, IS_ROW_SCHEMA, _by_source(all_ids, _is_in))
    _replace_function(connection, IS_LATER_ROW_SCHEMA, _by_source(later, _is_in))
    _replace_function(connection, NEWEST_ROW_SCHEMA, _by_source(ids, _newest))


def schemas_of(catalog: Catalog, source: str) -> list[RowSchema]:
    """The row schemas of a source, the oldest first."""
    return sorted(
        (schema for schema in catalog.schemas.values() if schema.source == source),
        key=lambda schema: schema.id,
    )


def names_of(schemas: Sequence[RowSchema]) -> list[str]:
    """The names of the features that rows ever had, in the order in which they first had them."""
    names = (ref.partition("@")[0] for schema in schemas for ref in schema.features)
    return list(dict.fromkeys(names))


def _of_loads(connection: Connection) -> dict[str, list[int]]:
    """The ids under which a source has loaded rows; a source without loads has none."""
    of, found = loads.c, dict[str, list[int]]()
    wanted = select(of.source, of.schema_id).distinct().order_by(of.source, of.schema_id)
    for source, schema_id in connection.execute(wanted):
        found.setdefault(source, []).append(loaded(schema_id))
    return found


def _complete(connection: Connection) -> dict[str, int]:
    """The backfills that are complete, by their versions."""
    of = backfills.c
    found = connection.execute(select(of.name, of.version, of.id).where(of.state == "complete"))
    return {f"{name}@{version}": number for name, version, number in found}


def _wanted(catalog: Catalog, complete: Mapping[str, int]) -> dict[Key, _Found]:
    """Of each column the index of the active version, from 1, at each id of a row schema."""
    wanted = {}
    for source in catalog.sources:
        schemas = schemas_of(catalog, source)
        places = [{ref: number for number, ref in enumerate(s.features, 1)} for s in schemas]
        for name in names_of(schemas):
            active = f"{name}@{catalog.active.get(name)}"
            indexes = [0] * schemas[-1].id
            for schema, found in zip(schemas, places, strict=True):
                indexes[schema.id - 1] = found.get(active, 0)
            wanted[source, name] = _Found(indexes, complete.get(active))
    return wanted


def _is_in(ids: Sequence[int]) -> ColumnElement[Any]:
    return SCHEMA_ID.in_(ids) if ids else false()


def _newest(ids: Sequence[int]) -> ColumnElement[Any]:
    return literal(max(ids, default=0))


def _by_source(
    ids: dict[str, list[int]], expression: Callable[[Sequence[int]], ColumnElement[Any]]
) -> ColumnElement[Any]:
    return case({name: expression(found) for name, found in sorted(ids.items())}, value=SOURCE)


def _replace_function(
    connection: Connection, function: _Function, expression: ColumnElement[Any]
) -> None:
    """Replace a function, unless it has this expression: plans that have it are made again."""
    compiled = expression.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True})
    body = f"SELECT {compiled}"
    types = ", ".join(function.parameters.values())
    present = {"function": f"tickwell.{function.name}({types})"}
    if connection.execute(text(FUNCTION_BODY), present).scalar() == body:
        return
    parameters = ", ".join(f"{name} {kind}" for name, kind in function.parameters.items())
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION tickwell.{function.name}({parameters}) "
        f"RETURNS {function.returns} LANGUAGE sql STABLE PARALLEL SAFE AS $body${body}$body$"
    )
