"""A Quix Streams application with the same price features in its state, written nowhere.

The defaults of its documentation: state in RocksDB with a changelog topic, at least once, a commit
every five seconds; larger fetches and a state of prices alone were both slower. Unlike the other
peers it keeps its state over a restart.
"""

from __future__ import annotations

import os
from typing import Any

from quixstreams import Application, State

from benchmarks.peers.price_window import Features, advance
from benchmarks.peers.progress import Progress

progress = Progress()


def materialized(tick: dict[str, Any], state: State) -> Features:
    prices, returns = state.get("window") or ([], [])
    features = advance(prices, returns, tick["price"])
    state.set("window", (prices, returns))
    progress.add()
    return features


def main() -> None:
    app = Application(
        broker_address=os.environ["TICKWELL_KAFKA"],
        consumer_group=os.environ["BENCH_GROUP"],
        auto_offset_reset="earliest",
        state_dir=os.environ["BENCH_STATE"],
        loglevel="WARNING",
    )
    ticks = app.topic(os.environ["BENCH_TOPIC"], value_deserializer="json")
    app.dataframe(ticks).apply(materialized, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
