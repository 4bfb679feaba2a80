"""A table or a query of any database that SQLAlchemy knows, copied here as a CSV before it is read.

Rows are fetched by a cursor on the server, a few thousand at a time, so neither side holds them
all. Cells are written exactly (a float with all its digits, a decimal with its own), and become
numbers and times in the reader of files. What is stored of the load is a digest of the rows: no
address, and so no password.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, MetaData, Result, Table, create_engine, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pipelines.errors import PipelineError, Stopped
from pipelines.produce.errors import Mistaken
from pipelines.replay.stop import Stop

ROWS_A_PIECE = 5_000
"""Rows that are fetched at a time."""


POSTGRES, OWN_DRIVER = ("postgresql", "postgres"), "postgresql+psycopg2"
"""Names of Postgres without a driver, and the one that is installed with Tickwell."""


class Wanted(NamedTuple):
    """What is read: all rows of a table, as `schema.table`, or those of a query."""

    table: str | None
    query: str | None


def copy_table(
    url: str, wanted: Wanted, directory: Path, progress: Callable[[int], None], stop: Stop
) -> Path:
    """A CSV of the rows. `progress` is told how many there are so far.

    The rows of a table are in the order of its primary key, so that it is the same load the next
    time. Raises `Mistaken` for an address, a table or a query that cannot be, `PipelineError` where
    it cannot be read, and `Stopped`.
    """
    try:
        address = make_url(url)
        if address.drivername in POSTGRES:
            address = address.set(drivername=OWN_DRIVER)
        engine = create_engine(address, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise Mistaken(
            "--from with --table or --query: it is the URL of a database whose driver is "
            f"installed, as postgresql://user@host/name ({type(error).__name__})"
        ) from None
    file = directory / ("table.csv" if wanted.table else "query.csv")
    try:
        with engine.connect().execution_options(stream_results=True) as connection:
            found = _rows(connection, wanted)
            _write(found, file, progress, stop)
    except SQLAlchemyError as error:
        shown = " ".join(str(getattr(error, "orig", None) or error).split())
        if address.password is not None:
            shown = shown.replace(str(address.password), "***")
        raise PipelineError(
            f"{address.render_as_string(hide_password=True)} cannot be read: {shown}"
        ) from None
    finally:
        engine.dispose()
    return file


def _rows(connection: Connection, wanted: Wanted) -> Result[Any]:
    if wanted.query is not None:
        return connection.execute(text(wanted.query))
    assert wanted.table is not None, "one of the two is given"
    schema, _, name = wanted.table.rpartition(".")
    table = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
    return connection.execute(select(table).order_by(*table.primary_key.columns))


def _write(found: Result[Any], file: Path, progress: Callable[[int], None], stop: Stop) -> None:
    rows = 0
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(found.keys())
        for piece in found.partitions(ROWS_A_PIECE):
            if stop.is_set():
                raise Stopped("nothing was stored")
            writer.writerows([_cells(row) for row in piece])
            rows += len(piece)
            progress(rows)


def _cells(row: Sequence[Any]) -> list[str]:
    return [_cell(value) for value in row]


def _cell(value: Any) -> str:
    """A value as text that is read as the same value; no value is an empty cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value)
