"""A stock Faust agent with the same price features, one INSERT an event, each its own transaction.

The row is narrower than a worker's: no origin, no status, no raw fields.
"""

from __future__ import annotations

import os
from collections import defaultdict

import faust
import psycopg2

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


CREATE = """
CREATE TABLE IF NOT EXISTS stock_features (
    symbol text NOT NULL,
    ts bigint NOT NULL,
    current_price double precision NOT NULL,
    price_sma_5 double precision,
    price_sma_20 double precision,
    price_volatility double precision
);
CREATE INDEX IF NOT EXISTS stock_features_by_symbol ON stock_features (symbol, ts);
"""
INSERT = "INSERT INTO stock_features VALUES (%s, %s, %s, %s, %s, %s)"

ticks = app.topic(os.environ["BENCH_TOPIC"], value_type=Price)
connection = psycopg2.connect(os.environ["TICKWELL_POSTGRES"])
connection.autocommit = True
cursor = connection.cursor()
cursor.execute(CREATE)
windows: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
progress = Progress()


@app.agent(ticks)  # type: ignore[arg-type]  # it wants any stream
async def materialize(stream: faust.Stream[Price]) -> None:
    async for tick in stream:
        features = advance(*windows[tick.symbol], tick.price)
        cursor.execute(INSERT, (tick.symbol, tick.ts, *features))
        progress.add()
