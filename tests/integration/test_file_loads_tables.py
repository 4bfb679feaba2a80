"""Tables and queries of other databases, loaded into history."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2.extras
import pytest
from sqlalchemy.engine import make_url

from pipelines.errors import PipelineError
from pipelines.load.table_copy import Wanted, copy_table
from pipelines.produce.errors import Mistaken
from tests.support.file_loads import GO_ON, Asked, load_files, loaded_rows, loads_at
from tests.support.sinks import query

BEGIN = datetime(2021, 3, 4, tzinfo=UTC)


@pytest.fixture
def table(database: str) -> list[tuple[Any, ...]]:
    """The table `old.quotes`: a number, a decimal, a null; times with a zone, in microseconds."""
    chance = random.Random(1)
    rows = [
        (
            number,
            chance.choice("AB"),
            chance.uniform(1, 2),
            chance.choice([None, Decimal(chance.randrange(10**6)) / 1000]),
            BEGIN + timedelta(seconds=number // 3, microseconds=number),
        )
        for number in range(12_000)
    ]
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA old")
        cursor.execute(
            "CREATE TABLE old.quotes (id integer PRIMARY KEY, symbol text, price double precision,"
            " size numeric, ts timestamptz)"
        )
        statement = "INSERT INTO old.quotes VALUES %s"
        psycopg2.extras.execute_values(cursor, statement, rows)
    connection.close()
    return rows


def copied(url: str, directory: Path, table: str | None = None, query: str | None = None) -> Path:
    return copy_table(url, Wanted(table, query), directory, lambda rows: None, GO_ON)


def test_every_bit_of_a_table_arrives(
    database: str, table: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    file = copied(database, tmp_path, "old.quotes")
    asked = Asked(run_ticks=5_000)
    load_files(database, [file], asked)
    stored = query(
        database,
        "SELECT entity, event_time, fields[1], nullif(fields[2], 'NaN')"
        " FROM tickwell.feature_rows WHERE schema_id < 0 ORDER BY event_time",
    )
    nanoseconds = [(row[4] - BEGIN) // timedelta(microseconds=1) * 1000 for row in table]
    begin = int(BEGIN.timestamp()) * 10**9
    assert stored == [
        (row[1], begin + time, row[2], None if row[3] is None else float(row[3]))
        for row, time in zip(table, nanoseconds, strict=True)
    ]
    assert load_files(database, [copied(database, tmp_path, "old.quotes")], asked).offsets == 0
    (load,) = loads_at(database)
    assert [one.name for one in load.files] == ["table.csv"]


@pytest.mark.usefixtures("table")
def test_a_query_has_what_it_says(database: str, tmp_path: Path) -> None:
    wanted = "SELECT symbol, price, ts FROM old.quotes WHERE id % 100 = 0 AND symbol LIKE 'A%' "
    file = copied(database, tmp_path, query=wanted + "ORDER BY ts")
    load_files(database, [file])
    assert {row[1] for row in loaded_rows(database)} == {"A"}
    assert 20 < len(loaded_rows(database)) < 100


def test_an_error_shows_no_password(database: str, tmp_path: Path) -> None:
    secret = make_url(database).set(password="open-sesame", host="127.0.0.1", port=1)
    url = secret.render_as_string(hide_password=False)
    with pytest.raises(PipelineError, match=r"\*\*\*@127.0.0.1.* cannot be read") as error:
        copied(url, tmp_path, "old.quotes")
    assert "open-sesame" not in str(error.value)
    with pytest.raises(PipelineError, match="cannot be read"):
        copied(database, tmp_path, "old.nothing")
    with pytest.raises(Mistaken, match="URL of a database"):
        copied("s3://bucket/file", tmp_path, "old.quotes")
