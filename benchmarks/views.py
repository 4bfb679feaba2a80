"""The view of a source beside the one of builds that wrote its row schemas into it.

Both are of the same rows, in databases with one, three and thirty row schemas. Of each row schema
but the first a tenth of the ticks have a row in the one before, too, as after a replay. The two
take turns; of each query the least time counts, as everything else is others' work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import psycopg2
from sqlalchemy import Engine

from benchmarks.results import Run
from benchmarks.services import Services
from registry import catalog
from registry.database.active_columns import update_active_columns
from registry.database.engine import connect
from registry.database.views import create_views

ROW_SCHEMAS = (1, 3, 30)
TIMES = 5
FIRST_NS = 1_764_547_200 * 10**9
MONTH_NS = 30 * 86_400 * 10**9
MONTHS = 6
FEATURES = ("current_price", "price_sma_5", "price_sma_20", "price_volatility")
MONTH = """
CREATE TABLE tickwell.month_{0} PARTITION OF tickwell.feature_rows FOR VALUES FROM ({1}) TO ({2})
"""
ROWS = """
INSERT INTO tickwell.feature_rows
SELECT %(schema)s, 'S' || i %% 500, %(first)s + i::bigint * %(step)s, 0, 0, i, NULL, 0,
    ARRAY[i, 'NaN'::float8], ARRAY[i, i + 1, i + 2, 0.5], '', 2000,
    '00000000-0000-0000-0000-000000000001', 0, i, 0
FROM generate_series(%(begin)s, %(end)s) AS i
"""
ROW_SCHEMA = "INSERT INTO tickwell.row_schemas (source, features) VALUES ('price', %(refs)s)"
EARLIER = """
CREATE VIEW public.earlier AS
SELECT entity AS symbol, entity,
    timestamptz '1970-01-01 00:00:00Z' + event_time / 1000 * interval '1 microsecond' AS ts,
    event_time, sequence, nullif(fields[1], 'NaN') AS price, nullif(fields[2], 'NaN') AS size,
    timestamptz '1970-01-01 00:00:00Z' + known_at / 1000 * interval '1 microsecond' AS known_at{}
FROM tickwell.feature_rows AS rows WHERE schema_id IN ({})
"""
IN_NEWER = """AND NOT EXISTS (
    SELECT FROM tickwell.feature_rows AS newer
    WHERE newer.entity = rows.entity AND newer.schema_id IN ({})
        AND newer.schema_id > rows.schema_id AND newer.event_time = rows.event_time
        AND newer.sequence = rows.sequence AND newer.revision = rows.revision
)"""
RANGE = f"event_time BETWEEN {FIRST_NS + MONTH_NS} AND {FIRST_NS + MONTH_NS * 11 // 10}"
QUERIES = {
    "all columns of all rows": "COPY (SELECT * FROM {}) TO '/dev/null'",
    "the mean of a feature": "SELECT avg(price_sma_5) FROM {}",
    "an entity": "SELECT * FROM {} WHERE symbol = 'S7'",
    "a range of time": f"SELECT * FROM {{}} WHERE {RANGE}",
    "an entity in a range of time": f"SELECT * FROM {{}} WHERE symbol = 'S7' AND {RANGE}",
    "an entity's newest three": (
        "SELECT * FROM {} WHERE symbol = 'S7' ORDER BY event_time DESC LIMIT 3"
    ),
}


def views(services: Services, schemas: int, rows: int) -> Run:
    """How many times as long the view takes for all rows as the earlier one; all in `detail`."""
    settings = services.fresh(services.settings)
    engine = connect(settings.postgres)
    try:
        _fill(engine, schemas, rows)
    finally:
        engine.dispose()
    taken: dict[str, dict[str, float]] = {}
    with closing(psycopg2.connect(settings.postgres)) as connection:
        connection.autocommit = True
        for name, query in QUERIES.items():
            least = dict.fromkeys(("public.earlier", "features.price"), float("inf"))
            for _ in range(TIMES):
                for view in least:
                    least[view] = min(least[view], _milliseconds(connection, query.format(view)))
            taken[name] = {"earlier": least["public.earlier"], "view": least["features.price"]}
    ratio = {name: found["view"] / found["earlier"] for name, found in taken.items()}
    detail = {"schemas": schemas, "milliseconds": taken, "ratio": ratio}
    return Run(value=ratio["all columns of all rows"], unit="× the earlier view", detail=detail)


def _fill(engine: Engine, schemas: int, rows: int) -> None:
    with engine.begin() as connection:
        run = connection.exec_driver_sql
        for month in range(MONTHS):
            begin = FIRST_NS + month * MONTH_NS
            run(MONTH.format(month, begin, begin + MONTH_NS))
        refs = {"refs": [f"{name}@1.0.0" for name in FEATURES]}
        for _ in range(schemas - 1):
            run(ROW_SCHEMA, refs)
        known = catalog.read(connection)
        update_active_columns(connection, known)
        ids = [schema.id for schema in known.schemas.values() if schema.source == "price"]
        each = rows // schemas
        for number, schema in enumerate(ids):
            begin = number * each - (each // 10 if number else 0)
            values = {"schema": schema, "begin": begin, "end": (number + 1) * each - 1}
            run(ROWS, values | {"first": FIRST_NS, "step": MONTHS * MONTH_NS // rows})
        listed = ", ".join(map(str, ids))
        columns = "".join(_earlier(ids, number, name) for number, name in enumerate(FEATURES, 1))
        newer = IN_NEWER.format(listed) if schemas > 1 else ""
        run(EARLIER.format(columns, listed) + newer)
    create_views(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def _earlier(ids: Sequence[int], number: int, name: str) -> str:
    cases = " ".join(f"WHEN {schema} THEN features[{number}]" for schema in ids)
    return f", nullif(CASE schema_id {cases} END, 'NaN') AS {name}"


def _milliseconds(connection: Any, query: str) -> float:
    with connection.cursor() as cursor:
        began = time.perf_counter()
        cursor.execute(query)
        return (time.perf_counter() - began) * 1_000


def table(runs: Sequence[Run]) -> list[str]:
    """Milliseconds and ratios by query and number of row schemas, of the last round."""
    lines = [
        "| | row schemas | earlier view, ms | view, ms | view / earlier |",
        "|---|---|---|---|---|",
    ]
    for run in {run.subject: run for run in runs if run.value is not None}.values():
        for query, taken in run.detail["milliseconds"].items():
            lines.append(
                f"| {query} | {run.detail['schemas']} | {taken['earlier']:.2f} "
                f"| {taken['view']:.2f} | {run.detail['ratio'][query]:.2f} |"
            )
    return lines
