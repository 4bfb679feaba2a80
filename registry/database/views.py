"""One view for each source in the SQL schema `features`, for people who write SQL.

Columns: the key fields, `entity` (the key fields in one, see `formats.redis_keys`), `ts`
(timestamptz, microseconds), `event_time` (nanoseconds), `sequence`, the raw fields, `known_at`, and
the source's features by name in the order in which rows first had them (the active version; NULL
without a value). A column never moves and is never removed: people's own views and grants depend on
it. New columns come last, which is all that Postgres can do to a view in use.

`entity`, and the only key field of a source, are the column of the table, so a query by them uses
its primary key. Of two key fields each is a substring of that column, which no index covers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import errorcodes
from sqlalchemy import (
    Connection,
    Double,
    Row,
    Select,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.sql.elements import ColumnElement

from registry.database.tables import feature_rows
from registry.definitions import Catalog, RowSchema, Source
from registry.errors import NotOurView, ViewBusy
from registry.formats.redis_keys import SEPARATOR
from registry.resources import sql

VIEW_COLUMNS = sql(__package__, "view_columns")
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
PROBE = "pg_temp.tickwell_view"
PATIENCE = "5s"
"""Time that a change of a view may wait for its readers, and delay the queries behind it."""

rows = feature_rows.c
Columns = Mapping[str, ColumnElement[Any]]
"""The expression of each column by its name, in the order of a new view."""


@dataclass(frozen=True, slots=True)
class _Names:
    """A view's name as it is quoted in SQL (a source may be called `order`), and as it is shown."""

    quoted: str
    shown: str


def create_views(connection: Connection, catalog: Catalog, patience: str = PATIENCE) -> None:
    """Create and extend the view of each source, in the caller's transaction.

    A view that is right already is not touched. Raises `NotOurView`, and `ViewBusy` when a reader
    holds a view for longer than `patience`, a duration as Postgres writes it.
    """
    connection.execute(text(f"SET LOCAL lock_timeout = '{patience}'"))
    for source in catalog.sources.values():
        quoted = DIALECT.identifier_preparer.quote(source.name)
        names = _Names(f"features.{quoted}", f"features.{source.name}")
        _create_view(connection, names, catalog, source, patience)


def _create_view(
    connection: Connection, names: _Names, catalog: Catalog, source: Source, patience: str
) -> None:
    columns, schemas = _columns(catalog, source), _schemas(catalog, source)
    present = connection.execute(text(VIEW_COLUMNS), {"view": names.quoted}).one_or_none()
    order = [] if present is None else _order(present, columns, names)
    order += [name for name in columns if name not in order]
    wanted = select(*(columns[name].label(name) for name in order)).where(
        rows.schema_id.in_([schema.id for schema in schemas])
    )
    if len(schemas) > 1:
        wanted = wanted.where(~_is_in_newer(schemas))
    query = _sql(wanted)
    if present is None:
        connection.exec_driver_sql(f"CREATE VIEW {names.quoted} AS {query}")
        return
    if _has_query(connection, names, query):
        return
    options = f" WITH ({', '.join(present.options)})" if present.options else ""
    try:
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {names.quoted}{options} AS {query}")
    except (OperationalError, ProgrammingError) as error:
        match getattr(error.orig, "pgcode", None):
            case errorcodes.LOCK_NOT_AVAILABLE:
                raise ViewBusy(names.shown, patience) from None
            case errorcodes.INVALID_TABLE_DEFINITION:
                what = str(error.orig).strip().split("\n")[0]
                raise NotOurView(names.shown, f"cannot be extended ({what})") from None
        raise


def _order(present: Row[Any], columns: Columns, names: _Names) -> list[str]:
    """The columns that the view has. Raises `NotOurView` for one that Tickwell does not make."""
    if present.kind != "v":
        raise NotOurView(names.shown, "is no view")
    strange = [name for name in present.columns if name not in columns]
    if strange:
        raise NotOurView(names.shown, f"has the columns {', '.join(strange)}")
    return list(present.columns)


def _has_query(connection: Connection, names: _Names, query: str) -> bool:
    """Whether the view has this query: Postgres writes both in its own form to compare."""
    connection.exec_driver_sql(f"CREATE TEMPORARY VIEW tickwell_view AS {query}")
    same = select(func.pg_get_viewdef(_class(PROBE)) == func.pg_get_viewdef(_class(names.quoted)))
    answer = connection.execute(same).scalar_one()
    connection.exec_driver_sql(f"DROP VIEW {PROBE}")
    return bool(answer)


def _class(name: str) -> ColumnElement[Any]:
    return cast(name, postgresql.REGCLASS)


def _sql(query: Select[Any]) -> str:
    compiled = query.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True})
    return str(compiled).replace("%%", "%")


def _schemas(catalog: Catalog, source: Source) -> list[RowSchema]:
    return [schema for schema in catalog.schemas.values() if schema.source == source.name]


def _columns(catalog: Catalog, source: Source) -> dict[str, ColumnElement[Any]]:
    """The columns of a new view, in their order."""
    keys: dict[str, ColumnElement[Any]] = {
        name: func.split_part(rows.entity, SEPARATOR, number)
        for number, name in enumerate(source.key, 1)
    }
    if len(keys) == 1:
        keys = dict.fromkeys(keys, rows.entity)
    fields = {
        name: _absent(rows.fields[number]) for number, name in enumerate(source.field_names, 1)
    }
    return {
        **keys,
        "entity": rows.entity,
        "ts": _timestamp(rows.event_time),
        "event_time": rows.event_time,
        "sequence": rows.sequence,
        **fields,
        "known_at": _timestamp(rows.known_at),
        **_features(catalog, _schemas(catalog, source)),
    }


def _features(catalog: Catalog, schemas: Sequence[RowSchema]) -> dict[str, ColumnElement[Any]]:
    """A column for each feature that rows ever had: its active version's value."""
    ever = [catalog.features[ref].name for schema in schemas for ref in schema.features]
    return {
        name: _feature(schemas, f"{name}@{catalog.active.get(name)}")
        for name in dict.fromkeys(ever)
    }


def _feature(schemas: Sequence[RowSchema], ref: str) -> ColumnElement[Any]:
    values = {
        schema.id: rows.features[schema.features.index(ref) + 1]
        for schema in schemas
        if ref in schema.features
    }
    return _absent(case(values, value=rows.schema_id)) if values else cast(null(), Double)


def _is_in_newer(schemas: Sequence[RowSchema]) -> ColumnElement[bool]:
    """Whether the tick of a row also has a row in a newer row schema, which has all its features.

    A replay stores a tick again in the schema that is written now; it is still one tick.
    """
    newer = feature_rows.alias("newer")
    return exists().where(
        newer.c.entity == rows.entity,
        newer.c.schema_id.in_([schema.id for schema in schemas]),
        newer.c.schema_id > rows.schema_id,
        newer.c.event_time == rows.event_time,
        newer.c.sequence == rows.sequence,
        newer.c.revision == rows.revision,
    )


def _absent(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.nullif(value, literal_column("'NaN'::float8"))


def _timestamp(nanoseconds: ColumnElement[int]) -> ColumnElement[Any]:
    microseconds = nanoseconds.op("/")(literal_column("1000"))
    epoch: ColumnElement[Any] = literal_column("timestamptz '1970-01-01 00:00:00Z'")
    return epoch.op("+")(microseconds.op("*")(literal_column("interval '1 microsecond'")))
