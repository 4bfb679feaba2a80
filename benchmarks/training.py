"""A training set from Postgres, beside the as-of joins of others over rows that they have at hand.

All join the same entity rows with the same ticks in one database of six months. The others are
given the ticks as frames, in the order that they want, and do the plain join: the newest tick by
event time, whatever had arrived. Theirs is the time of the join alone; ours begins with connecting
and ends with a table of values and statuses. How long the ticks take out of Postgres is told
beside: it is what others need first. Of one size Feast's offline stores make the set, too, from a
Parquet file of the ticks (`feast_history`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from io import BytesIO
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import psycopg2
import pyarrow as pa
from sqlalchemy import Engine

from benchmarks.feast_history import STORES, feast
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from benchmarks.views import FEATURES, FIRST_NS, MONTH, MONTH_NS, MONTHS
from registry import catalog
from registry.database.engine import connect
from registry.formats.row import ValueStatus
from serving.history.snapshot import snapshot
from serving.history.wanted import SetJoin, Wanted

TICKS, ENTITIES = 1_000_000, 500
SIZES = (10, 10_000, 100_000)
"""Entity rows of a training set."""

TIMES = 5
FEAST_ROWS, FEAST_TIMES = 10_000, 2
"""Entity rows of the set that Feast makes, and how often: it takes half a minute."""

SEED = 7
ROWS = """
INSERT INTO tickwell.feature_rows
SELECT %(schema)s, 'S' || i %% 500, %(first)s + i::bigint * %(step)s, 0, 0, i, NULL, 0,
    ARRAY[i, 'NaN'::float8], ARRAY[i, i + 1, i + 2, 0.5], %(ok)s,
    %(first)s + i::bigint * %(step)s, '00000000-0000-0000-0000-000000000001', 0, i, 0
FROM generate_series(0, %(rows)s - 1) AS i
"""
OUT = "COPY (SELECT entity, event_time, known_at, features FROM tickwell.feature_rows) TO STDOUT {}"
MOMENT = "timestamp"
OURS = "training set from Postgres"


def sets(services: Services, rows: int) -> Run:
    """Milliseconds of a training set of so many rows, and in `detail` those of the others."""
    settings = services.fresh(services.settings)
    engine = connect(settings.postgres)
    try:
        _fill(engine)
    finally:
        engine.dispose()
    frame = _entity_rows(rows)
    works = {OURS: lambda: _ours(settings.postgres, frame), **_others(frame)}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(TIMES):
        for name, work in works.items():
            taken[name].append(_milliseconds(work))
    medians = {name: statistics.median(found) for name, found in taken.items()}
    if rows == FEAST_ROWS:
        for store in STORES:
            made = feast(services, store, _ticks(), frame, FEAST_TIMES)
            medians[f"Feast, {store}"] = made.milliseconds
    detail = {"rows": rows, "milliseconds": medians, "out": _out(settings.postgres)}
    return Run(value=medians[OURS], unit="ms", detail=detail)


def _fill(engine: Engine) -> None:
    with engine.begin() as connection:
        for month in range(MONTHS):
            begin = FIRST_NS + month * MONTH_NS
            connection.exec_driver_sql(MONTH.format(month, begin, begin + MONTH_NS))
        known = catalog.read(connection)
        values = {
            "schema": known.writing["price"],
            "first": FIRST_NS,
            "step": MONTHS * MONTH_NS // TICKS,
            "ok": bytes([ValueStatus.OK] * len(FEATURES)),
            "rows": TICKS,
        }
        connection.exec_driver_sql(ROWS, values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def _entity_rows(rows: int) -> pa.Table:
    chance = np.random.default_rng(SEED)
    entities = [f"S{number}" for number in chance.integers(0, ENTITIES, rows).tolist()]
    moments = FIRST_NS + chance.integers(0, MONTHS * MONTH_NS, rows)
    stamps = pa.array(moments).cast(pa.timestamp("ns", "UTC"))
    return pa.table({"symbol": entities, MOMENT: stamps})


def _ours(postgres: str, frame: pa.Table) -> int:
    with snapshot(postgres) as seen:
        join = SetJoin(seen, Wanted(FEATURES, MOMENT, allow_open=True))
        join.check([frame])
        return len(join.added(frame))


def _ticks() -> pa.Table:
    number = np.arange(TICKS)
    moments = pa.array(FIRST_NS + number * (MONTHS * MONTH_NS // TICKS))
    return pa.table(
        {
            "symbol": [f"S{one % ENTITIES}" for one in number.tolist()],
            MOMENT: moments.cast(pa.timestamp("ns", "UTC")),
            **{name: number + float(index) for index, name in enumerate(FEATURES)},
        }
    )


def _others(frame: pa.Table) -> dict[str, Callable[[], int]]:
    ticks = _ticks()
    of_pandas = ticks.to_pandas(), frame.to_pandas().sort_values(MOMENT)
    of_polars = pl.DataFrame(ticks), pl.DataFrame(frame).sort(MOMENT)
    connection = duckdb.connect()
    connection.register("ticks", ticks)
    connection.register("asked", frame)
    query = f"SELECT * FROM asked ASOF LEFT JOIN ticks USING (symbol, {MOMENT})"

    def in_pandas() -> int:
        return len(pd.merge_asof(of_pandas[1], of_pandas[0], on=MOMENT, by="symbol"))

    def in_polars() -> int:
        asked, known = of_polars[1], of_polars[0]
        return len(asked.join_asof(known, on=MOMENT, by="symbol", check_sortedness=False))

    def in_duckdb() -> int:
        return len(connection.sql(query).to_arrow_table())

    return {"pandas": in_pandas, "polars": in_polars, "DuckDB": in_duckdb}


def _out(postgres: str) -> float:
    """Milliseconds in which all ticks come out of Postgres by binary COPY."""
    with closing(psycopg2.connect(postgres)) as connection, connection.cursor() as cursor:
        return _milliseconds(
            lambda: cursor.copy_expert(OUT.format("(FORMAT binary)"), BytesIO(), 1 << 20)
        )


def _milliseconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    if work() == 0:
        raise Failed("there are no rows")
    return (time.perf_counter() - began) * 1_000


def table(runs: Sequence[Run]) -> list[str]:
    """Milliseconds by number of entity rows; of others the join alone, and the ratio to ours."""
    found = list({run.subject: run for run in runs if run.value is not None}.values())
    names = list(dict.fromkeys(name for run in found for name in run.detail["milliseconds"]))
    lines = [
        f"| entity rows | {' | '.join(names)} | all ticks out of Postgres |",
        f"|{'---|' * (len(names) + 2)}",
    ]
    for run in found:
        cells = [f"{run.detail['rows']:,}"]
        cells += [_shown(run.detail["milliseconds"], name) for name in names]
        lines.append(f"| {' | '.join(cells)} | {run.detail['out']:.0f} ms |")
    return lines


def _shown(taken: Mapping[str, float], name: str) -> str:
    if name not in taken:
        return ""
    ratio = "" if name == OURS else f" ({taken[name] / taken[OURS]:.2g} ×)"
    return f"{taken[name]:,.0f} ms{ratio}"
