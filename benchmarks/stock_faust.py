"""The peer: a stock Faust agent with the same price features, one Redis SET an event.

It is what one writes after reading Faust's documentation: the aiokafka driver, a typed record, a
window for each symbol in memory, one write an event. It keeps nothing across a restart and
checks nothing, so it does less than the worker it is compared with.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict, deque
from itertools import pairwise

import faust
import redis.asyncio

app = faust.App(
    os.environ["BENCH_GROUP"],
    broker=f"kafka://{os.environ['TICKWELL_KAFKA']}",
    store="memory://",
    topic_disable_leader=True,
    web_enabled=False,
    consumer_auto_offset_reset="earliest",
)


class Price(faust.Record):  # type: ignore[misc]
    symbol: str
    price: float
    ts: int


ticks = app.topic(os.environ["BENCH_TOPIC"], value_type=Price)
store = redis.asyncio.Redis.from_url(os.environ["TICKWELL_REDIS"])
windows: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=21))


def deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def features(window: deque[float]) -> str:
    """current_price, price_sma_5, price_sma_20 and price_volatility, as text."""
    values = list(window)
    returns = [math.log(after / before) for before, after in pairwise(values)]
    return repr(
        (
            values[-1],
            sum(values[-5:]) / 5 if len(values) >= 5 else None,
            sum(values[-20:]) / 20 if len(values) >= 20 else None,
            deviation(returns) if len(returns) == 20 else None,
        )
    )


@app.agent(ticks)  # type: ignore[untyped-decorator]
async def materialize(stream: faust.Stream[Price]) -> None:
    async for tick in stream:
        window = windows[tick.symbol]
        window.append(tick.price)
        await store.set(f"{os.environ['BENCH_GROUP']}:{tick.symbol}", features(window))
