"""The page on the lake: what others read by its examples has the bits of Postgres."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sqlalchemy import Engine

from registry.database.engine import connect
from tests.support.lakes import (
    VALUES,
    History,
    as_read,
    bits,
    complete,
    example_of,
    exported,
    files_of,
)
from tests.support.rebuilds import Stores

ENGINES = ("DuckDB", "polars", "pyarrow", "pandas")


@pytest.fixture
def engine(stores: Stores) -> Iterator[Engine]:
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def example(name: str, lake: Path) -> pa.Table:
    """What the example of an engine reads."""
    names: dict[str, Any] = {"lake": lake}
    exec(example_of(name), names)
    rows = names["rows"]
    if isinstance(rows, pd.DataFrame):
        return pa.Table.from_pandas(rows, preserve_index=False)
    return rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows


def read(table: pa.Table) -> list[tuple[Any, ...]]:
    assert table.column_names == ["entity", "event_time", "sequence", *VALUES]
    return [
        tuple(bits(v) if isinstance(v, float) else v for v in row.values())
        for row in table.to_pylist()
    ]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("backfilled", [False, True], ids=["", "backfilled"])
def test_an_example_reads_the_bits_of_postgres(
    stores: Stores, engine: Engine, tmp_path: Path, name: str, backfilled: bool
) -> None:
    """Nulls, ticks of one time, several row schemas, of which one lacks a version, loaded ticks."""
    history = History(stores, engine, random.Random(5))
    for _ in range(4):
        history.live(40, 3)
    history.record_version()
    for _ in range(2):
        history.live(40, 3)
    history.replay()
    history.load(days=1)
    if backfilled:
        history.backfill()
    exported(stores.postgres, tmp_path)
    parts = [path.parent for path in files_of(tmp_path)]
    assert len(set(parts)) < len(parts), "no day has ticks of live and loaded ones"
    there = as_read(stores.postgres, complete(engine))
    assert len({row[:2] for row in there}) < len(there), "no ticks of one time"
    assert {row[-1] is None for row in there} == {True, False}
    assert read(example(name, tmp_path)) == there


def test_what_the_page_says_of_nan(tmp_path: Path) -> None:
    """Why the lake has none: an engine does not find those that others wrote."""
    import pyarrow.parquet as pq

    path = str(tmp_path / "nan.parquet")
    pq.write_table(pa.table({"x": [1.0, float("nan")]}), path)
    assert duckdb.sql(f"SELECT isnan(x) FROM '{path}'").fetchall() == [(False,), (True,)]
    assert duckdb.sql(f"SELECT count(*) FROM '{path}' WHERE isnan(x)").fetchall() == [(0,)]
    assert len(pl.read_parquet(path).filter(pl.col("x").is_nan())) == 1
