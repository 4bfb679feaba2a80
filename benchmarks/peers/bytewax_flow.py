"""A Bytewax dataflow with the same price features in keyed state, written nowhere.

Run by `python -m bytewax.run`. Large source batches, as its documentation advises for throughput;
no recovery store, so nothing survives a restart.
"""

from __future__ import annotations

import os

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from benchmarks.peers.price_window import Features, advance
from benchmarks.peers.progress import Progress

State = tuple[list[float], list[float]]


def decoded(messages: list[KafkaSourceMessage]) -> list[tuple[str, float]]:
    """Symbol and price of each message."""
    ticks = [orjson.loads(message.value) for message in messages]
    return [(tick["symbol"], tick["price"]) for tick in ticks]


class Window(StatefulBatchLogic[float, Features, State]):  # type: ignore[misc]
    """The prices of one symbol. `stateful_map` is shorter, and a tenth slower."""

    def __init__(self, state: State | None) -> None:
        self._prices, self._returns = state or ([], [])

    def on_batch(self, values: list[float]) -> tuple[list[Features], bool]:
        return [advance(self._prices, self._returns, price) for price in values], False

    def snapshot(self) -> State:
        return [*self._prices], [*self._returns]


class _Counting(StatelessSinkPartition[tuple[str, Features]]):  # type: ignore[misc]
    def __init__(self) -> None:
        self._progress = Progress()

    def write_batch(self, items: list[tuple[str, Features]]) -> None:
        self._progress.add(len(items))


class Nowhere(DynamicSink[tuple[str, Features]]):  # type: ignore[misc]
    """Counts what comes and drops it."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Counting:
        return _Counting()


flow = Dataflow("features")
messages = op.input(
    "ticks",
    flow,
    KafkaSource([os.environ["TICKWELL_KAFKA"]], [os.environ["BENCH_TOPIC"]], batch_size=10_000),
)
prices = op.flat_map_batch("decode", messages, decoded)
features = op.stateful_batch("features", prices, Window)
op.output("nowhere", features, Nowhere())
