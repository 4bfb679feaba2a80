#!/usr/bin/env bash
# Library: Feast 0.67.0, with its default offline store (Dask on Parquet files).
# Behaviour: `get_historical_features` leaves out a question whose entity is known but has no
# value within the ttl: before its first value, or after its last one has expired. One such view
# removes the row even where another view has a value. A question about an unknown entity is
# kept, with NaN.
# Why it matters to a feature store: the training set loses just the rows where serving answers
# "no value", labels by position no longer match, and a model never learns to meet a missing
# value.
# Output seen on 2026-11-28 (ttl of one hour; of AAPL `quotes` has a value at 14:30 alone and
# `spreads` one an hour from 12:30 on; of MSFT nothing is stored; four questions):
# > spreads: AAPL 13:00 0.01, AAPL 15:00 0.03, AAPL 16:00 0.04, MSFT 15:00 nan
# > quotes: AAPL 15:00 189.0, MSFT 15:00 nan
# > quotes and spreads: AAPL 15:00 189.0 0.03, MSFT 15:00 nan nan
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    feast==0.67.0 dask==2026.8.0 pandas==2.3.3 || exit 2

"$work/venv/bin/python" -W ignore - "$work" >"$work/seen" <<'END' || true
import sys
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

folder = sys.argv[1]
symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)


def at(*times):
    return [pd.Timestamp(f"2026-11-02 {time}", tz="UTC") for time in times]


def view(name, column, times, values):
    path = f"{folder}/{name}.parquet"
    pd.DataFrame({"symbol": "AAPL", "time": at(*times), column: values}).to_parquet(path)
    return FeatureView(
        name=name,
        entities=[symbol],
        ttl=timedelta(hours=1),
        schema=[Field(name=column, dtype=Float64)],
        source=FileSource(path=path, timestamp_field="time"),
    )


store = FeatureStore(
    config=RepoConfig(
        project="finding",
        provider="local",
        registry=f"{folder}/registry.db",
        online_store={"type": "sqlite", "path": f"{folder}/online.db"},
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
    )
)
store.apply(
    [
        symbol,
        view("quotes", "price", ["14:30"], [189.0]),
        view("spreads", "spread", ["12:30", "13:30", "14:30", "15:30"], [0.01, 0.02, 0.03, 0.04]),
    ]
)
questions = pd.DataFrame(
    {
        "symbol": ["AAPL", "AAPL", "AAPL", "MSFT"],
        "event_timestamp": at("13:00", "15:00", "16:00", "15:00"),
    }
)
for name, features in {
    "spreads": ["spreads:spread"],
    "quotes": ["quotes:price"],
    "quotes and spreads": ["quotes:price", "spreads:spread"],
}.items():
    rows = store.get_historical_features(entity_df=questions, features=features).to_df()
    rows = rows.sort_values(["symbol", "event_timestamp"])
    print(
        f"{name}:",
        ", ".join(
            f"{row[0]} {row[1]:%H:%M} {' '.join(str(value) for value in row[2:])}"
            for row in rows.itertuples(index=False, name=None)
        ),
    )
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: which rows Feast's history leaves out (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
