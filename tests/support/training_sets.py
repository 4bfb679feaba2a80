"""A server that joins training sets, and entity rows of which it is known what belongs to them."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from serving.app import ServerOptions, create_app
from tests.support.past import PORTFOLIOS, SYMBOLS, Cell, Market, asked, cells, joining
from tests.support.rebuilds import Stores
from tests.support.running_server import running
from tests.support.served import beating

FEATURES = ["current_price", "price_sma_5", "portfolio_exposure"]
ARROW = "application/vnd.apache.arrow.stream"


class Made(NamedTuple):
    """A server, and rows of which it is known what belongs to them."""

    url: str
    postgres: str
    symbols: list[str]
    portfolios: list[str]
    moments: list[int]
    expected: dict[str, list[Cell]]

    def arrow(self) -> pa.Table:
        stamps = pa.array(self.moments).cast(pa.timestamp("ns", "UTC"))
        label = pa.array(range(len(self.moments)), pa.int8() if len(self.moments) < 100 else None)
        columns = {"symbol": self.symbols, "at": stamps, "portfolio": self.portfolios}
        return pa.table({**columns, "label": label})

    def check(self, found: Any, features: list[str] = FEATURES) -> None:
        """A table of Arrow has what belongs to the rows."""
        for name in features:
            values = found.column(name).to_pylist()
            statuses = found.column(f"{name}__status").to_pylist()
            assert [
                (None if value is None or value != value else float(value).hex(), status)
                for value, status in zip(values, statuses, strict=True)
            ] == [(bits, status) for bits, status, _ in self.expected[name]]


@contextmanager
def making(stores: Stores, hot_redis: str) -> Iterator[Made]:
    """A server on a market of two sources, and sixty rows."""
    chance = random.Random(7)
    market = Market(stores, chance, stores.catalog)
    moments = []
    for _ in range(20):
        market.tick(chance.choice(["price", "price", "position"]), 8)
        market.at_ms += 1_000
        moments.append(market.at_ms * 10**6 + chance.randrange(10**6))
    market.close(market.at_ms + 60_000)
    n = 60
    symbols = [chance.choice([*SYMBOLS, "nobody"]) for _ in range(n)]
    portfolios = [chance.choice(PORTFOLIOS) for _ in range(n)]
    times = chance.choices(moments, k=n)
    with joining(stores.postgres, FEATURES) as join:
        columns = join.columns(asked(times, symbol=symbols, portfolio=portfolios))
    expected = {name: cells(column) for name, column in columns.items()}
    assert {status for found in expected.values() for _, status, _ in found} >= {"ok", "missing"}
    options = ServerOptions(stores.redis_url, hot_redis, stores.postgres)
    with beating(stores.redis_url), running(create_app(options)) as url:
        yield Made(url, stores.postgres, symbols, portfolios, times, expected)


def rfc_3339(moment: int) -> str:
    return f"{datetime.fromtimestamp(moment // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{moment % 10**9:09}Z"


def in_json(made: Made, **more: Any) -> dict[str, Any]:
    return {
        "features": FEATURES,
        "entities": [
            {"symbol": symbol, "portfolio": portfolio}
            for symbol, portfolio in zip(made.symbols, made.portfolios, strict=True)
        ],
        "timestamps": [rfc_3339(moment) for moment in made.moments],
        **more,
    }


def ipc(table: Any, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def run(made: Made, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What `tickwell training-set` says, which sees no more than the database."""
    return subprocess.run(
        [sys.executable, "-m", "tickwell", "training-set", *map(str, arguments)],
        env={"TICKWELL_POSTGRES": made.postgres, "PATH": "", "TICKWELL_DATA": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
