"""Feast's repository over Redis: `feast_repository.py FOLDER REDIS SYMBOLS`, in its environment.

The features are those that Tickwell's server is asked for, three times as a user of Feast would
have them: views of prices and volumes with an on-demand view of the derived ones, and one view of
all eight, with a service whose vectors are computed when they are written. Imports nothing of ours.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64

PRICES = ("current_price", "price_sma_5", "price_sma_20", "price_volatility")
VOLUMES = ("current_volume", "volume_sma_10")
DERIVED = ("momentum", "turnover")


def main() -> None:
    folder, address, symbols = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    (folder / "feature_store.yaml").write_text(
        "project: bench\nprovider: local\nregistry: registry.db\n"
        f"online_store:\n  type: redis\n  connection_string: {address}\n"
        "entity_key_serialization_version: 3\n"
    )
    store = FeatureStore(repo_path=str(folder))
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)

    def view(name: str, features: tuple[str, ...]) -> Any:
        return FeatureView(
            name=name,
            entities=[symbol],
            ttl=timedelta(days=1),
            schema=[Field(name=feature, dtype=Float64) for feature in features],
            source=FileSource(name=name, path=f"{folder}/none.parquet", timestamp_field="time"),
        )

    price, volume = view("price", PRICES), view("volume", VOLUMES)
    whole = view("whole", (*PRICES, *VOLUMES, *DERIVED))

    def derived(inputs: dict[str, Any]) -> dict[str, Any]:
        means = zip(inputs["price_sma_5"], inputs["price_sma_20"], strict=True)
        held = zip(inputs["current_price"], inputs["current_volume"], strict=True)
        return {
            "momentum": [short / long - 1 for short, long in means],
            "turnover": [one * many for one, many in held],
        }

    on_demand = on_demand_feature_view(
        sources=[price, volume],
        schema=[Field(name=feature, dtype=Float64) for feature in DERIVED],
        mode="python",  # quicker than with pandas
    )
    vectors = FeatureService(name="precomputed", features=[whole], precompute_online=True)
    store.apply([symbol, price, volume, whole, on_demand(derived), vectors])
    now = pd.Timestamp.now(tz="UTC")
    rows = pd.DataFrame({"symbol": [f"S{number}" for number in range(symbols)], "time": now})
    for place, feature in enumerate((*PRICES, *VOLUMES)):
        rows[feature] = [100 + number / 7 + place / 3 for number in range(symbols)]
    rows["momentum"] = rows["price_sma_5"] / rows["price_sma_20"] - 1
    rows["turnover"] = rows["current_price"] * rows["current_volume"]
    for name, features in {
        "price": PRICES,
        "volume": VOLUMES,
        "whole": (*PRICES, *VOLUMES, *DERIVED),
    }.items():
        store.write_to_online_store(name, df=rows[["symbol", "time", *features]])
    written = store.precompute_feature_service("precomputed")
    if written != symbols:
        sys.exit(f"{written} vectors were written, not {symbols}")


if __name__ == "__main__":
    main()
