"""One view a source in the SQL schema `features`, for people who write SQL.

Columns: the key fields, `ts` (timestamptz, microseconds), `event_time` (nanoseconds), `sequence`,
the raw fields, the active features of the source by name (NULL without a value), `known_at`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, case, func, literal_column, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import ColumnElement

from registry.definitions import Catalog, Source
from registry.keys import SEPARATOR
from registry.models import feature_rows

rows = feature_rows.c


def create_views(connection: Connection, catalog: Catalog) -> None:
    """Make the view of each source anew, in the caller's transaction."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for source in catalog.sources.values():
        query = _view(catalog, source).compile(
            dialect=dialect, compile_kwargs={"literal_binds": True}
        )
        # names of sources are [a-z0-9_]+, checked when they were read
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS features.{source.name}")
        view = str(query).replace("%%", "%")
        connection.exec_driver_sql(f"CREATE VIEW features.{source.name} AS {view}")


def _view(catalog: Catalog, source: Source) -> Select[Any]:
    schemas = [schema for schema in catalog.schemas.values() if schema.source == source.name]
    keys: list[ColumnElement[object]] = [
        func.split_part(rows.entity, SEPARATOR, place).label(name)
        for place, name in enumerate(source.key, 1)
    ]
    fields = [
        _absent(rows.fields[place]).label(name) for place, name in enumerate(source.field_names, 1)
    ]
    features = []
    for name, version in catalog.active.items():
        ref = f"{name}@{version}"
        if catalog.features[ref].source != source.name:
            continue
        places = {
            schema.id: rows.features[schema.features.index(ref) + 1]
            for schema in schemas
            if ref in schema.features
        }
        if places:
            features.append(_absent(case(places, value=rows.schema_id)).label(name))
    times = [
        _timestamp(rows.event_time).label("ts"),
        rows.event_time,
        rows.sequence,
    ]
    columns = [*keys, *times, *fields, *features, _timestamp(rows.known_at).label("known_at")]
    return select(*columns).where(rows.schema_id.in_([schema.id for schema in schemas]))


def _absent(value: ColumnElement[object]) -> ColumnElement[object]:
    return func.nullif(value, literal_column("'NaN'::float8"))


def _timestamp(nanoseconds: ColumnElement[int]) -> ColumnElement[object]:
    microseconds = nanoseconds.op("/")(literal_column("1000"))
    epoch: ColumnElement[Any] = literal_column("timestamptz '1970-01-01 00:00:00Z'")
    return epoch.op("+")(microseconds.op("*")(literal_column("interval '1 microsecond'")))
