"""Training sets by Feast's offline stores, from a Parquet file of ticks that they read themselves.

Theirs is the time from a frame of entity rows to a frame of features, without the start of Python
and the record of the features. They do the plain join: the newest tick by event time.
"""

from __future__ import annotations

import json
import statistics
from typing import Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.peers import environment
from benchmarks.processes import ROOT, Build, run_to_end
from benchmarks.services import Services

PROGRAM = ROOT / "benchmarks/peers/feast_history.py"
QUIET = {"FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}

MOMENT = "timestamp"
Store = Literal["duckdb", "dask"]
STORES: tuple[Store, ...] = get_args(Store)


class Taken(NamedTuple):
    """What a training set took."""

    milliseconds: float
    memory_mb: float


def feast(services: Services, store: Store, ticks: pa.Table, rows: pa.Table, times: int) -> Taken:
    """The median of some times. Raises `Failed`."""
    folder = services.place / "feast-history"
    folder.mkdir(exist_ok=True)
    pq.write_table(ticks, folder / "ticks.parquet")
    # its DuckDB store refuses moments that are no whole microseconds
    cut = pc.multiply(pc.divide(rows[MOMENT].cast(pa.int64()), 1_000), 1_000)
    index = rows.schema.get_field_index(MOMENT)
    cut_rows = rows.set_column(index, MOMENT, cut.cast(pa.timestamp("ns", "UTC")))
    pq.write_table(cut_rows, folder / "rows.parquet")
    command = [str(PROGRAM), store, str(folder), str(times)]
    build = Build(str(environment.FEAST.python()))
    run_to_end("feast-history", command, QUIET, services.place, build)
    told = json.loads((services.place / "feast-history.log").read_text().splitlines()[-1])
    return Taken(statistics.median(told["milliseconds"]), told["memory_mb"])
