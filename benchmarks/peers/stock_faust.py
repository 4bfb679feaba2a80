"""A stock Faust agent with the same price features, one Redis SET an event.

It is what one writes after reading Faust's documentation: the aiokafka driver, a typed record, a
window for each symbol in memory, one write an event. It keeps nothing across a restart and
checks nothing, so it does less than the worker it is compared with.
"""

from __future__ import annotations

import os
from collections import defaultdict

import faust
import redis.asyncio

from benchmarks.peers.price_window import advance
from benchmarks.peers.progress import Progress

app = faust.App(
    os.environ["BENCH_GROUP"],
    broker=f"kafka://{os.environ['TICKWELL_KAFKA']}",
    store="memory://",
    topic_disable_leader=True,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
)


class Price(faust.Record):
    symbol: str
    price: float
    ts: int


ticks = app.topic(os.environ["BENCH_TOPIC"], value_type=Price)
store = redis.asyncio.Redis.from_url(os.environ["TICKWELL_REDIS"])
windows: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
progress = Progress()


@app.agent(ticks)  # type: ignore[arg-type]  # it wants any stream
async def materialize(stream: faust.Stream[Price]) -> None:
    async for tick in stream:
        features = advance(*windows[tick.symbol], tick.price)
        await store.set(f"{os.environ['BENCH_GROUP']}:{tick.symbol}", repr(features))
        progress.add()
