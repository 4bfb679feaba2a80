#!/usr/bin/env bash
# Library: Feast 0.67.0, with its offline stores on DuckDB and on Dask, over one Parquet file.
# Behaviour: DuckDB's store compares moments cut to microseconds. A row of a training set gets a
# value that was measured up to a microsecond after it, but only when a later row is asked for in
# the same call; asked alone, or of Dask's store, it gets the value of before.
# Why it matters to a feature store: exchanges stamp in nanoseconds. The model sees the print that
# it is to predict, and the same row has another value in another batch.
# Output seen on 2026-12-01 (the price is 1.0 at t, and 2.0 at t + 400 ns):
# > duckdb, t alone: [1.0]
# > duckdb, t and t + 1 s: [2.0, 2.0]
# > dask, t alone: [1.0]
# > dask, t and t + 1 s: [1.0, 2.0]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    'feast[duckdb]==0.67.0' pandas==2.3.3 || exit 2

cat >"$work/asked.py" <<'END'
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

folder, kind = sys.argv[1:]
moment = pd.Timestamp("2026-11-24T10:00:00.000001Z").value
prices = pa.table(
    {
        "symbol": ["AAPL", "AAPL"],
        "price": [1.0, 2.0],
        "event_timestamp": pa.array([moment, moment + 400], pa.timestamp("ns", "UTC")),
    }
)
pq.write_table(prices, f"{folder}/prices.parquet")
store = FeatureStore(
    config=RepoConfig(
        project="finding",
        provider="local",
        registry=f"{folder}/{kind}.db",
        offline_store={"type": kind},
        online_store={"type": "sqlite", "path": f"{folder}/online.db"},
        entity_key_serialization_version=3,
    )
)
symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
source = FileSource(
    name="file", path=f"{folder}/prices.parquet", timestamp_field="event_timestamp"
)
fields = [Field(name="price", dtype=Float64)]
store.apply([symbol, FeatureView(name="prices", entities=[symbol], schema=fields, source=source)])
for what, moments in (("t alone", [moment]), ("t and t + 1 s", [moment, moment + 10**9])):
    rows = pd.DataFrame(
        {"symbol": "AAPL", "event_timestamp": pd.to_datetime(moments, utc=True)}
    )
    found = store.get_historical_features(rows, ["prices:price"]).to_df()
    print(f"{kind}, {what}:", found.sort_values("event_timestamp")["price"].tolist())
END
for kind in duckdb dask; do
    "$work/venv/bin/python" -W ignore "$work/asked.py" "$work" "$kind" 2>"$work/errors" \
        >>"$work/seen" || { cat "$work/errors" >&2; exit 2; }
done

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: what a row is given by Feast's offline stores (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
