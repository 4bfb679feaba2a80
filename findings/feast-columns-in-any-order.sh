#!/usr/bin/env bash
# Library: Feast 0.67.0, with its online store on SQLite.
# Behaviour: the columns of `get_online_features` do not come in the order of the request but in
# that of a set of texts: another one in each process, unless PYTHONHASHSEED is set.
# Why it matters to a feature store: `to_df().to_numpy()` of the same request hands a model its
# features in another order after each restart of the server, all of the right type and shape.
# Output seen on 2026-11-30 (four features are asked for in this order, by processes that differ
# in PYTHONHASHSEED alone):
# > asked: bid ask last size
# > seed 1: last bid ask size
# > seed 2: size last ask bid
# > seed 3: size last bid ask
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    feast==0.67.0 pandas==2.3.3 || exit 2

cat >"$work/asked.py" <<'END'
import os
import sys

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64

folder = sys.argv[1]
names = ["bid", "ask", "last", "size"]
store = FeatureStore(
    config=RepoConfig(
        project="finding",
        provider="local",
        registry=f"{folder}/registry.db",
        online_store={"type": "sqlite", "path": f"{folder}/online.db"},
        entity_key_serialization_version=3,
    )
)
symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
quotes = FeatureView(
    name="quotes",
    entities=[symbol],
    schema=[Field(name=name, dtype=Float64) for name in names],
    source=FileSource(name="file", path=f"{folder}/none.parquet", timestamp_field="time"),
)
store.apply([symbol, quotes])
row = {"symbol": ["AAPL"], "time": [pd.Timestamp.now(tz="UTC")], **dict.fromkeys(names, [1.0])}
store.write_to_online_store("quotes", df=pd.DataFrame(row))
found = store.get_online_features(
    features=[f"quotes:{name}" for name in names], entity_rows=[{"symbol": "AAPL"}]
).to_df()
if os.environ["PYTHONHASHSEED"] == "1":
    print("asked:", *names)
print(f"seed {os.environ['PYTHONHASHSEED']}:", *(name for name in found if name != "symbol"))
END
for seed in 1 2 3; do
    PYTHONHASHSEED=$seed "$work/venv/bin/python" -W ignore "$work/asked.py" "$work" \
        >>"$work/seen" || true
done

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: the order of columns (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
