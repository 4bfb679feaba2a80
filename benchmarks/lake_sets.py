"""Training sets from the lake, beside the as-of joins of others over the same files.

The lake has thirty days of ten million ticks, one in fifty known up to an hour late. Each subject
is a process of its own (`benchmarks.lake_set_subject`) that reads the entity rows from a file and
writes them with values and statuses to another one. Others join twice: plainly, the newest tick by
event time, whatever had arrived; and rightly, with what was known at the moment alone. Ours does
the second. Orders of rows are kept but by DuckDB.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.results import Failed, Run
from benchmarks.services import Services
from pipelines.lake.days import LakeDay, record_day, schemas_of
from pipelines.lake.files import UnfinishedFile, move_to
from registry import catalog
from registry.database.engine import connect
from registry.formats.lake import DAY_NS, day_of, file_path

TICKS, DAYS, SYMBOLS = 10_000_000, 30, 1_000
FIRST_DAY = 20_000
SIZES = (1_000_000, 50_000_000)
"""Entity rows of a set."""

OURS = "tickwell"
SUBJECTS = (
    *(OURS, "polars plain", "polars right", "polars streaming plain", "polars streaming right"),
    *("DuckDB plain", "DuckDB right"),
)
FEATURES = ("current_price", "price_sma_5", "price_sma_20", "price_volatility")
SECONDS = 1_800
"""Seconds that a subject may take."""

HOUR_NS = 3_600 * 10**9
PIECE = 1_000_000


def subject_of(name: str, rows: int) -> str:
    """What a run is called."""
    return f"{name}, {rows:,} rows from the lake"


def join(services: Services, name: str, rows: int) -> Run:
    """Seconds of one subject, and in `memory_mb` the most memory that it had resident."""
    place = services.place / "lake-sets"
    entities = place / f"entities-{rows}.parquet"
    known = place / "postgres"
    if not known.exists():
        place.mkdir()
        settings = services.fresh(services.settings)
        fill(settings.postgres, place / "lake")
        known.write_text(settings.postgres)
    if not entities.exists():
        write_entities(entities, rows)
    out = place / "out.parquet"
    command = [sys.executable, "-m", "benchmarks.lake_set_subject", name, known.read_text()]
    command += [str(place / "lake"), str(entities), str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"it was not done after {SECONDS} s") from None
    out.unlink(missing_ok=True)
    if done.returncode:
        raise Failed(done.stderr.strip().split("\n")[-1] or f"it ended with {done.returncode}")
    told = json.loads(done.stdout.strip().split("\n")[-1])
    detail = {"rows": rows, "name": name}
    cpu = {"subject": told["cpu"]}
    return Run(value=told["seconds"], unit="s", cpu=cpu, memory_mb=told["mb"], detail=detail)


def fill(postgres: str, lake: Path) -> None:
    """Write days as an export would have, with their manifest; Postgres has no rows of them."""
    engine = connect(postgres)
    chance, a_day = np.random.default_rng(7), TICKS // DAYS
    try:
        known = catalog.load(engine)
        with engine.begin() as connection:
            schemas = schemas_of(connection, known)
            connection.exec_driver_sql(
                "INSERT INTO tickwell.entities SELECT 'price', 'S' || i,"
                " '00000000-0000-0000-0000-000000000001', 0 FROM generate_series(0, %(n)s) AS i",
                {"n": SYMBOLS - 1},
            )
        wanted = schemas[known.writing["price"]]
        for number in range(FIRST_DAY, FIRST_DAY + DAYS):
            file = UnfinishedFile(lake, wanted.arrow())
            table = _day(chance, wanted.arrow(), number, a_day)
            for begin in range(0, a_day, 131_072):
                file.add(table.slice(begin, 131_072))
            written = file.finish()
            day = day_of(number)
            move_to(written, lake / file_path("price", wanted.schema.id, day))
            with engine.begin() as connection:
                connection.exec_driver_sql(
                    "SELECT tickwell.change_days('price', 'bench',"
                    " '00000000-0000-0000-0000-000000000001', 0, ARRAY[%(day)s])",
                    {"day": number},
                )
                seen = LakeDay("price", day, 1, None, False, False, ())
                record_day(connection, seen, {}, {wanted.schema.id: (wanted, written)})
    finally:
        engine.dispose()


def _day(chance: np.random.Generator, schema: pa.Schema, number: int, n: int) -> pa.Table:
    """Ticks of a day by entity and time."""
    names = sorted(f"S{one}" for one in range(SYMBOLS))
    entity = np.sort(chance.integers(0, SYMBOLS, n)).astype(np.int32)
    times = number * DAY_NS + chance.integers(0, DAY_NS // 10**6, n) * 10**6
    times = times[np.lexsort((times, entity))]
    same = np.zeros(n, np.bool_)
    same[1:] = (entity[1:] == entity[:-1]) & (times[1:] == times[:-1])
    late = np.where(chance.random(n) < 0.02, chance.integers(0, HOUR_NS, n), 0)
    prices = np.round(100 + np.cumsum(chance.normal(0, 0.01, n)), 2)
    plain: dict[str, Any] = {
        "entity": pa.DictionaryArray.from_arrays(entity, pa.array(names)),
        "event_time": times,
        "tick_time": times,
        "known_at": times + 10**6 + late,
        "sequence": same.astype(np.int64),
        "revision": np.zeros(n, np.int16),
        "ts": pa.array(times // 1_000).cast(pa.timestamp("us", "UTC")),
        "price": prices,
        "size": chance.integers(1, 9, n).astype(np.float64),
        "seq": pa.nulls(n, pa.int64()),
        "offset": np.arange(n),
    }
    plain["symbol"] = plain["entity"]
    zeros = np.zeros(n, np.int32)
    columns = []
    for field in schema:
        if field.name in plain:
            columns.append(plain[field.name])
        elif field.name.endswith("__status"):
            columns.append(pa.DictionaryArray.from_arrays(zeros, pa.array(["ok"])))
        elif pa.types.is_float64(field.type):
            columns.append(prices + chance.normal(0, 1, n).round(3))
        elif pa.types.is_dictionary(field.type):
            columns.append(pa.DictionaryArray.from_arrays(zeros, pa.array(["trade"])))
        else:
            columns.append(pa.nulls(n, field.type) if pa.types.is_string(field.type) else zeros)
    arrays = [
        pa.array(one, field.type) if isinstance(one, np.ndarray) else one
        for one, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_entities(path: Path, rows: int) -> None:
    """Entity rows at any moments of the days, in no order."""
    chance = np.random.default_rng(8)
    names = pa.array([f"S{one}" for one in range(SYMBOLS)])
    writer: Any = None
    for begin in range(0, rows, PIECE):
        n = min(PIECE, rows - begin)
        of = pa.array(chance.integers(0, SYMBOLS, n).astype(np.int32))
        moments = FIRST_DAY * DAY_NS + chance.integers(0, DAYS * DAY_NS, n)
        symbols = pa.DictionaryArray.from_arrays(of, names).cast(pa.string())
        stamps = pa.array(moments).cast(pa.timestamp("ns", "UTC"))
        table = pa.table({"symbol": symbols, "timestamp": stamps})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    writer.close()


def table(runs: Sequence[Run]) -> list[str]:
    """Seconds and memory of each subject by number of entity rows, and the ratio to ours."""
    lines = [
        "| entity rows | | seconds | it / Tickwell | processor | MB |",
        "|---|---|---|---|---|---|",
    ]
    for rows in SIZES:
        found: dict[str, list[Run]] = {}
        for run in runs:
            if run.value is not None and run.detail["rows"] == rows:
                found.setdefault(run.detail["name"], []).append(run)
        of = {name: sorted(one.value or 0 for one in each) for name, each in found.items()}
        for name, values in of.items():
            middle = values[len(values) // 2]
            ratio = ""
            if name != OURS and OURS in of:
                ratio = f"{middle / of[OURS][len(of[OURS]) // 2]:.1f}"
            most = max(one.memory_mb or 0 for one in found[name])
            cpu = min(one.cpu["subject"] for one in found[name])
            cells = f"{middle:.1f} | {ratio} | {cpu:.1f} | {most:,.0f}"
            lines.append(f"| {rows:,} | {name} | {cells} |")
    return lines
