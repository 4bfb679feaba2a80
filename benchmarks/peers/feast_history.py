"""Training sets by Feast's offline stores: `feast_history.py KIND FOLDER TIMES`, run by its Python.

The folder has `ticks.parquet` (symbol, timestamp, features) and `rows.parquet` (symbol, timestamp).
KIND is `duckdb` or `dask`. Prints, as JSON, milliseconds of each time from the frame of entity rows
to the frame of features, and the most resident memory in MB. Imports nothing of ours.
"""

import json
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

MOMENT = "timestamp"


def main() -> None:
    kind, folder, times = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    (folder / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: {folder}/{kind}.db\n"
        f"offline_store:\n  type: {kind}\n"
        f"online_store:\n  type: sqlite\n  path: {folder}/{kind}.online\n"
        "entity_key_serialization_version: 3\n"
    )
    store = FeatureStore(repo_path=str(folder))
    ticks = folder / "ticks.parquet"
    features = [n for n in pq.read_schema(ticks).names if n not in ("symbol", MOMENT)]
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    view = FeatureView(
        name="price",
        entities=[symbol],
        ttl=timedelta(days=3_650),
        schema=[Field(name=feature, dtype=Float64) for feature in features],
        source=FileSource(name="price", path=str(ticks), timestamp_field=MOMENT),
    )
    store.apply([symbol, view])
    rows = pd.read_parquet(folder / "rows.parquet")
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        asked = store.get_historical_features(rows, [f"price:{feature}" for feature in features])
        if len(asked.to_df()) == 0:
            raise SystemExit("there are no rows")
        taken.append((time.perf_counter() - began) * 1_000)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    print(json.dumps({"milliseconds": taken, "memory_mb": most}))


if __name__ == "__main__":
    main()
