"""Clients that ask without a pause: `python -m benchmarks.asking PORT CONNECTIONS SECONDS WHAT`.

WHAT is `one` (an entity, all features), `batch` or `compact` (100 entities) or `arrow` (500). Each
connection sends its next request when the answer to the one before has arrived. What is asked goes
round the entities. Prints, as JSON, how many requests were answered, how many not with 200, and
percentiles of the time to an answer; those of the first second do not count.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from http import HTTPStatus
from itertools import cycle
from typing import Any

import numpy as np
import uvloop

from tickwell.bench.connection import Connection

ENTITIES = 1_000
FEATURES = (
    *("current_price", "price_sma_5", "price_sma_20", "price_volatility"),
    *("current_volume", "volume_sma_10", "momentum", "turnover"),
)
WARM_SECONDS = 1.0
MANY = {"batch": 100, "compact": 100, "arrow": 500}
BODIES = 200
"""Different requests."""


def bodies(question: str) -> list[bytes]:
    """The bodies of requests, one after the other."""
    names = [{"symbol": f"S{number}"} for number in range(ENTITIES)]
    if question == "one":
        asked: list[dict[str, Any]] = [
            {"features": FEATURES, "entity": names[7 * i % ENTITIES]} for i in range(BODIES)
        ]
    else:
        many = MANY[question]
        turns = [names[7 * i % ENTITIES :] + names[: 7 * i % ENTITIES] for i in range(BODIES)]
        asked = [{"features": FEATURES, "entities": turn[:many]} for turn in turns]
    return [json.dumps(one).encode() for one in asked]


def requests(question: str) -> list[bytes]:
    """The same as HTTP."""
    path = "/features/online" if question == "one" else "/features/batch"
    if question == "compact":
        path += "?compact"
    accept = "application/vnd.apache.arrow.stream" if question == "arrow" else "*/*"
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\nContent-Length: "
    return [head.encode() + b"%d\r\n\r\n%b" % (len(body), body) for body in bodies(question)]


async def ask(port: int, connections: int, seconds: float, question: str) -> dict[str, Any]:
    """What clients have seen."""
    asked, found, refused = cycle(requests(question)), list[float](), list[str]()

    def ask_again(connection: Connection) -> None:
        connection.began = time.perf_counter()
        connection.ask(next(asked))

    def heard(connection: Connection, status: int, body: bytes) -> None:
        found.append(time.perf_counter() - connection.began)
        if status != HTTPStatus.OK:
            refused.append(f"status {status}")
        ask_again(connection)

    def lost(connection: Connection, why: str) -> None:
        refused.append(why)

    loop = asyncio.get_running_loop()
    for _ in range(connections):
        _, opened = await loop.create_connection(lambda: Connection(heard, lost), "127.0.0.1", port)
        ask_again(opened)
    await asyncio.sleep(WARM_SECONDS)
    warm, began = len(found), time.perf_counter()
    await asyncio.sleep(seconds)
    took, answered = time.perf_counter() - began, found[warm:]
    if not answered:
        raise SystemExit(f"no request was answered: {refused[:3]}")
    p50, p99, worst = (np.percentile(answered, (50, 99, 100)) * 1000).round(3).tolist()
    return {
        "answered": len(answered),
        "with_the_first_second": len(found),
        "a_second": len(answered) / took,
        "refused": len(refused),
        "ms": {"p50": p50, "p99": p99, "max": worst},
    }


if __name__ == "__main__":
    port, connections, seconds, question = sys.argv[1:]
    print(json.dumps(uvloop.run(ask(int(port), int(connections), float(seconds), question))))
