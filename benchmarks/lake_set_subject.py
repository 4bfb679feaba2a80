"""One subject of `benchmarks.lake_sets`: tells its seconds and memory as a line of JSON.

python -m benchmarks.lake_set_subject NAME POSTGRES LAKE ENTITIES OUT
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from benchmarks.lake_sets import FEATURES, OURS
from registry.formats.lake import status_column, value_column

MOST_BYTES = 14 << 30
"""Bytes of address space that a subject may have."""


def main() -> None:
    """Do what the arguments say."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    name, postgres, lake, entities, out = sys.argv[1:]
    files = Path(lake), Path(entities), Path(out)
    if name == OURS:
        work = _ours(postgres, *files)
    elif name.startswith("polars"):
        work = _polars(name, *files)
    else:
        work = _duckdb(name, *files)
    began, used = time.perf_counter(), time.process_time()
    work()
    told = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    print(json.dumps({**told, "mb": most}))


def _ours(postgres: str, lake: Path, entities: Path, out: Path) -> Callable[[], Any]:
    import serving.history.set_sweep  # noqa: F401  what is compiled is loaded
    from serving.history.building import build
    from serving.history.snapshot import LakeReads
    from serving.history.wanted import Wanted

    wanted = Wanted(FEATURES, allow_open=True)

    def work() -> None:
        stores = postgres, LakeReads(lake)
        report = build(stores, (entities, out), wanted, lambda *_: None, Event())
        assert report.plans == {"price": "sweep"}

    return work


def _columns() -> list[str]:
    columns = []
    for name in FEATURES:
        columns += [value_column(f"{name}@1.0.0"), status_column(f"{name}@1.0.0")]
    return columns


def _polars(name: str, lake: Path, entities: Path, out: Path) -> Callable[[], Any]:
    import polars as pl

    def work() -> None:
        columns = _columns()
        ticks = pl.scan_parquet(lake / "rows/source=price/*/*/*.parquet")
        if name.endswith("plain"):
            ticks = ticks.select("entity", *columns, at="event_time").sort("at")
        else:
            at = pl.max_horizontal("event_time", "known_at")
            ticks = ticks.select("entity", "event_time", "sequence", *columns, at=at)
            ticks = ticks.sort("at", "event_time", "sequence")
            newest = pl.col("event_time").cum_max().over("entity")
            ticks = ticks.filter(pl.col("event_time") == newest).drop("event_time", "sequence")
        rows = pl.scan_parquet(entities).with_row_index("row")
        rows = rows.with_columns(at=pl.col("timestamp").cast(pl.Int64)).sort("at")
        how: Any = {"by_left": "symbol", "by_right": "entity", "check_sortedness": False}
        joined = rows.join_asof(ticks, on="at", **how).sort("row").drop("row", "at")
        if "streaming" in name:
            joined.sink_parquet(out, engine="streaming")
        else:
            joined.collect().write_parquet(out)

    return work


def _duckdb(name: str, lake: Path, entities: Path, out: Path) -> Callable[[], Any]:
    import duckdb

    columns = ", ".join(_columns())
    read = f"read_parquet('{lake}/rows/source=price/*/*/*.parquet')"
    ticks = f"SELECT entity AS symbol, event_time AS moment, {columns} FROM {read}"
    if name.endswith("right"):
        ticks = f"""
            SELECT symbol, moment, {columns} FROM (
                SELECT *, max(event_time) OVER (
                    PARTITION BY symbol ORDER BY moment, event_time, sequence
                ) AS newest
                FROM (SELECT *, greatest(event_time, known_at) AS moment FROM {read})
            ) WHERE event_time = newest"""
    query = f"""
        COPY (
            SELECT rows.symbol, rows.timestamp, {columns}
            FROM (SELECT *, epoch_ns(timestamp) AS moment FROM read_parquet('{entities}')) AS rows
            ASOF LEFT JOIN ({ticks}) AS ticks
                ON rows.symbol = ticks.symbol AND rows.moment >= ticks.moment
        ) TO '{out}' (FORMAT parquet)"""

    def work() -> None:
        connection = duckdb.connect()
        connection.execute("SET threads = 2")
        connection.execute("SET memory_limit = '8GB'")
        connection.execute(query)

    return work


if __name__ == "__main__":
    main()
