"""One view for each source in the SQL schema `features`, for people who write SQL.

Columns: the key fields, `entity` (the key fields in one, see `formats.entity_name`), `ts`
(timestamptz, microseconds), `event_time` (nanoseconds), `sequence`, the raw fields, `known_at`, and
the source's features by name in the order in which rows first had them (the active version; NULL
without a value). A column never moves and is never removed: people's own views and grants depend on
it. New columns come last, which is all that Postgres can do to a view in use.

A source that was repaired has a second view, `price_repaired` beside `price`: its rows are newest
revisions, without what was cancelled; those of `price` are what was served, which nothing changes.

Which version is active, and which row schemas there are, a view looks up
(`registry.database.active_columns`): it is replaced for a new column alone, which waits for its
readers, and which may fail while all else goes on.

A row whose row schema lacks the active version has the value that a backfill stored beside it
(`registry.lifecycle.backfills`). Only columns of features that ever had one look there, so all
others are as fast as without; such a column is replaced at the end of the first backfill.

`entity`, and the only key field of a source, are the column of the table, so a query by them uses
its primary key. Of two key fields each is a substring of that column, which no index covers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from typing import Any

from psycopg2 import errorcodes
from sqlalchemy import (
    Connection,
    Double,
    Engine,
    Row,
    Select,
    and_,
    case,
    cast,
    exists,
    func,
    literal_column,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.sql.elements import ColumnElement

from registry.catalog import read
from registry.database.active_columns import DIALECT, names_of, schemas_of
from registry.database.backfill_tables import backfills
from registry.database.repair_tables import CANCELLED, repairs
from registry.database.tables import feature_rows, row_schemas, sources
from registry.definitions import Catalog, Source
from registry.errors import NotOurView, ViewBusy
from registry.formats.entity_name import SEPARATOR
from registry.naming import LONGEST_NAME, REPAIRED_SUFFIX
from registry.resources import sql

VIEW_COLUMNS = sql(__package__, "view_columns")
ACTIVE_VALUE = sql(__package__, "active_value")
BACKFILLED_VALUE = sql(__package__, "backfilled_value")
PROBE = "pg_temp.tickwell_view"
LOCK = 7_242_019_006
"""Advisory lock: of two processes that change views at once, the second finds nothing to do."""

PATIENCE = "5s"
"""Time that a change of a view may wait for its readers, and delay the queries behind it."""

rows = feature_rows.c
Columns = Mapping[str, ColumnElement[Any]]
"""The expression of each column by its name, in the order of a new view."""


@dataclass(frozen=True, slots=True)
class _View:
    """The view of a source: of what was served, or of what is after repairs."""

    source: Source
    is_repaired: bool = False

    @property
    def quoted(self) -> str:
        """Its name in SQL: a source may be called `order`."""
        return f"features.{DIALECT.identifier_preparer.quote(self._name)}"

    @property
    def shown(self) -> str:
        """Its name for people."""
        return f"features.{self._name}"

    @property
    def _name(self) -> str:
        if not self.is_repaired:
            return self.source.name
        return self.source.name[: LONGEST_NAME - len(REPAIRED_SUFFIX)] + REPAIRED_SUFFIX

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """Which rows it has."""
        of_source = func.tickwell.is_row_schema(self.source.name, rows.schema_id)
        if self.is_repaired:
            which = [rows.op != CANCELLED, ~_is_revised(self.source)]
        else:
            which = [~_is_in_newer(self.source), rows.revision == 0]
        return [of_source, *which, _is_planned_for(self.source)]


def create_views(
    engine: Engine, patience: str = PATIENCE, only: Collection[str] | None = None
) -> None:
    """Create and extend the view of each recorded source, each in a transaction of its own.

    With `only` those of these sources alone.

    A view that is right already is not touched, and one that cannot be changed keeps no other from
    it. Raises then `NotOurView`, and `ViewBusy` when a reader holds a view for longer than
    `patience`, a duration as Postgres writes it. What is missing is made by calling it again.
    """
    with engine.connect() as connection:
        names = connection.execute(select(sources.c.name).order_by(sources.c.name)).scalars().all()
    failed: list[NotOurView | ViewBusy] = []
    for name in names:
        if only is not None and name not in only:
            continue
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
                connection.execute(text(f"SET LOCAL lock_timeout = '{patience}'"))
                # Read under the lock: who is late would take the columns of others for strange.
                catalog = read(connection)
                _create_view(connection, catalog, _View(catalog.sources[name]), patience)
                if connection.execute(select(exists().where(repairs.c.source == name))).scalar():
                    view = _View(catalog.sources[name], is_repaired=True)
                    _create_view(connection, catalog, view, patience)
        except (NotOurView, ViewBusy) as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _create_view(connection: Connection, catalog: Catalog, view: _View, patience: str) -> None:
    backfilled = connection.execute(select(backfills.c.name).distinct()).scalars()
    columns = _columns(catalog, view.source, set(backfilled))
    present = connection.execute(text(VIEW_COLUMNS), {"view": view.quoted}).one_or_none()
    order = [] if present is None else _order(present, columns, view)
    order += [name for name in columns if name not in order]
    query = _sql(select(*(columns[name].label(name) for name in order)).where(*view.conditions))
    if present is None:
        connection.exec_driver_sql(f"CREATE VIEW {view.quoted} AS {query}")
        return
    if len(order) == len(present.columns) and _has_query(connection, view, query):
        return
    kept = [option for option in present.options or () if not option.startswith("check_option=")]
    options = f" WITH ({', '.join(kept)})" if kept else ""
    try:
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {view.quoted}{options} AS {query}")
    except (OperationalError, ProgrammingError) as error:
        match getattr(error.orig, "pgcode", None):
            case errorcodes.LOCK_NOT_AVAILABLE:
                raise ViewBusy(view.shown, patience) from None
            case errorcodes.INVALID_TABLE_DEFINITION:
                what = str(error.orig).strip().split("\n")[0]
                raise NotOurView(view.shown, f"cannot be extended ({what})") from None
        raise


def _order(present: Row[Any], columns: Columns, view: _View) -> list[str]:
    """The columns that the view has. Raises `NotOurView` for one that Tickwell does not make."""
    if present.kind != "v":
        raise NotOurView(view.shown, "is no view")
    strange = [name for name in present.columns if name not in columns]
    if strange:
        raise NotOurView(view.shown, f"has the columns {', '.join(strange)}")
    return list(present.columns)


def _has_query(connection: Connection, view: _View, query: str) -> bool:
    """Whether the view has this query: Postgres writes both in its own form to compare."""
    connection.exec_driver_sql(f"CREATE TEMPORARY VIEW tickwell_view AS {query}")
    same = select(func.pg_get_viewdef(_class(PROBE)) == func.pg_get_viewdef(_class(view.quoted)))
    answer = connection.execute(same).scalar_one()
    connection.exec_driver_sql(f"DROP VIEW {PROBE}")
    return bool(answer)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _class(name: str) -> ColumnElement[Any]:
    return cast(name, postgresql.REGCLASS)


def _sql(query: Select[Any]) -> str:
    compiled = query.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True})
    return str(compiled).replace("%%", "%")


def _columns(
    catalog: Catalog, source: Source, backfilled: Set[str]
) -> dict[str, ColumnElement[Any]]:
    """The columns of a new view, in their order; features in `backfilled` have had a backfill."""
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
        **{
            name: _feature(source, name, name in backfilled)
            for name in names_of(schemas_of(catalog, source.name))
        },
    }


def _feature(source: Source, name: str, backfilled: bool) -> ColumnElement[Any]:
    """The active version's value: as text, since a row may have a thousand."""
    of_row = _of_feature(ACTIVE_VALUE, source, name)
    if not backfilled:
        return _absent(of_row)
    # A row schema with the version has NaN where there is no value, so only others look further.
    return _absent(func.coalesce(of_row, _of_feature(BACKFILLED_VALUE, source, name)))


def _of_feature(template: str, source: Source, name: str) -> ColumnElement[Any]:
    value = template.replace(":source", _quoted(source.name)).replace(":name", _quoted(name))
    return literal_column(f"({value})", Double())


def _is_in_newer(source: Source) -> ColumnElement[bool]:
    """Whether the tick of a row also has a row in a newer row schema.

    A replay stores a tick again in the schema that is written now; it is still one tick. One that
    was loaded at its key is another one: a load is stored in one row schema.
    """
    newer = feature_rows.alias("newer")
    return exists().where(
        func.tickwell.is_later_row_schema(source.name, newer.c.schema_id),
        newer.c.entity == rows.entity,
        rows.schema_id > 0,
        newer.c.schema_id > rows.schema_id,
        newer.c.event_time == rows.event_time,
        newer.c.sequence == rows.sequence,
        newer.c.revision == rows.revision,
    )


def _is_revised(source: Source) -> ColumnElement[bool]:
    """Whether the tick of a row has a newer revision, or the same one in a newer row schema.

    The newest is the one that became known last (`serving/history/sql/ticks_as_known.sql`, which
    says, too, why a cancel takes away what was loaded at its key).
    """
    other = feature_rows.alias("other")
    return exists().where(
        func.tickwell.is_row_schema(source.name, other.c.schema_id),
        other.c.entity == rows.entity,
        other.c.event_time == rows.event_time,
        other.c.sequence == rows.sequence,
        case(
            (
                (other.c.schema_id > 0) == (rows.schema_id > 0),
                tuple_(_revised_at(other.c), other.c.revision, other.c.schema_id)
                > tuple_(_revised_at(rows), rows.revision, rows.schema_id),
            ),
            else_=and_(rows.schema_id < 0, other.c.op == CANCELLED),
        ),
    )


def _revised_at(row: Any) -> ColumnElement[int]:
    return case((row.revision > 0, row.known_at), else_=literal_column("-1"))


def _is_planned_for(source: Source) -> ColumnElement[bool]:
    """Raises, in Postgres, where the plan of a query lacks a row schema that the query sees."""
    newest = select(func.max(row_schemas.c.id)).where(row_schemas.c.source == source.name)
    planned = func.tickwell.newest_row_schema(source.name)
    refuse = func.tickwell.refuse_old_plan(source.name)
    return case((newest.scalar_subquery() > planned, refuse), else_=true())


def _absent(value: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.nullif(value, literal_column("'NaN'::float8"))


def _timestamp(nanoseconds: ColumnElement[int]) -> ColumnElement[Any]:
    microseconds = nanoseconds.op("/")(literal_column("1000"))
    epoch: ColumnElement[Any] = literal_column("timestamptz '1970-01-01 00:00:00Z'")
    return epoch.op("+")(microseconds.op("*")(literal_column("interval '1 microsecond'")))
