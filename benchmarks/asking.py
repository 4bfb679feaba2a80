"""Clients that ask without a pause: `python -m benchmarks.asking PORT CONNECTIONS SECONDS WHAT`.

WHAT is `one` (an entity, all features), `batch` or `compact` (100 entities) or `arrow` (500). With
`--key` each request has this API key, a deadline and a request id. With `--of feast` Feast's own
server is asked, with `--of precomputed` for its vectors that are computed when they are written.
Each connection sends its next request when the answer to the one before has arrived. What is asked
goes round `--entities`. Prints, as JSON, how many requests were answered, how many not with 200,
and percentiles of the time to an answer; those of the first second do not count for these.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from itertools import cycle
from typing import Any, Literal

import numpy as np
import uvloop

from tickwell.bench.connection import Connection

Api = Literal["tickwell", "feast", "precomputed"]
"""Whose requests: Feast's name features, or a service whose vectors are precomputed."""

ENTITIES = 1_000
PRICES = ("current_price", "price_sma_5", "price_sma_20", "price_volatility")
VOLUMES = ("current_volume", "volume_sma_10")
DERIVED = ("momentum", "turnover")
FEATURES = (*PRICES, *VOLUMES, *DERIVED)
PRECOMPUTED = "precomputed"
"""The name of Feast's service."""

WARM_SECONDS = 1.0
MANY = {"one": 1, "batch": 100, "compact": 100, "arrow": 500}
BODIES, BATCHES = 20_000, 200
"""Different requests at the most, of one entity and of more."""

STEP = 7_919
"""From one request's first entity to the next one's: a prime, so all are asked for in turn."""

DEADLINE_MS = 5_000
OPEN_SECONDS = 30.0
"""In which all connections must have been answered once."""


def bodies(question: str, entities: int = ENTITIES, api: Api = "tickwell") -> Iterator[bytes]:
    """The bodies of requests, one after the other."""
    many = MANY[question]
    for turn in range(min(entities, BODIES if many == 1 else BATCHES)):
        symbols = [f"S{(STEP * turn + place) % entities}" for place in range(many)]
        yield json.dumps(_body(question, symbols, api)).encode()


def _body(question: str, symbols: list[str], api: Api) -> dict[str, Any]:
    if api == "feast":
        groups = {"price": PRICES, "volume": VOLUMES, "derived": DERIVED}
        features = [f"{view}:{name}" for view, names in groups.items() for name in names]
        return {"features": features, "entities": {"symbol": symbols}}
    if api == "precomputed":
        service = {"feature_service": PRECOMPUTED, "full_feature_names": True}  # or there are none
        return {**service, "entities": {"symbol": symbols}}
    named = [{"symbol": symbol} for symbol in symbols]
    if question == "one":
        return {"features": FEATURES, "entity": named[0]}
    return {"features": FEATURES, "entities": named}


def head(question: str, api: Api = "tickwell", key: str = "") -> tuple[str, dict[str, str]]:
    """The path, and the headers that all requests have."""
    path = "/features/online" if question == "one" else "/features/batch"
    if api != "tickwell":
        path = "/get-online-features"
    if question == "compact":
        path += "?compact"
    accept = "application/vnd.apache.arrow.stream" if question == "arrow" else "*/*"
    headers = {"Host": "bench", "Accept": accept, "Content-Type": "application/json"}
    if key:
        headers |= {"Authorization": f"Bearer {key}", "X-Deadline-Ms": str(DEADLINE_MS)}
    return path, headers


def requests(
    question: str, entities: int = ENTITIES, api: Api = "tickwell", key: str = ""
) -> list[bytes]:
    """All as HTTP; with `key` also with a deadline, and a request id of its own each."""
    path, headers = head(question, api, key)
    asked = []
    for number, body in enumerate(bodies(question, entities, api)):
        own = {"X-Request-Id": f"bench-{number:08d}"} if key else {}
        own["Content-Length"] = str(len(body))
        lines = [f"{name}: {value}\r\n" for name, value in {**headers, **own}.items()]
        asked.append(f"POST {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body)
    return asked


async def ask(
    port: int, connections: int, seconds: float, different: list[bytes]
) -> dict[str, Any]:
    """What clients have seen who send `different` requests in turn.

    Nobody asks again before all have been answered once: where a thousand asked again and again as
    soon as each was connected, about half were not answered for seconds, and so were in no figure.
    What still waits in the end counts with the time until then.
    """
    asked, found, refused = cycle(different), list[float](), list[str]()
    opened, has_begun = list[Connection](), asyncio.Event()

    def ask_again(connection: Connection) -> None:
        connection.began = time.perf_counter()
        connection.ask(next(asked))

    def heard(connection: Connection, status: int, body: bytes) -> None:
        found.append(time.perf_counter() - connection.began)
        if status != HTTPStatus.OK:
            refused.append(f"status {status}: {body[:200]!r}")
        if has_begun.is_set():
            ask_again(connection)
        elif len(found) == connections:
            has_begun.set()

    def lost(connection: Connection, why: str) -> None:
        refused.append(why)
        has_begun.set()

    loop = asyncio.get_running_loop()
    for _ in range(connections):
        _, made = await loop.create_connection(lambda: Connection(heard, lost), "127.0.0.1", port)
        opened.append(made)
        ask_again(made)
    await asyncio.wait_for(has_begun.wait(), OPEN_SECONDS)
    for connection in opened:
        if not connection.is_asking:
            ask_again(connection)
    await asyncio.sleep(WARM_SECONDS)
    warm, began = len(found), time.perf_counter()
    await asyncio.sleep(seconds)
    now, answered = time.perf_counter(), found[warm:]
    if not answered:
        raise SystemExit(f"no request was answered: {refused[:3]}")
    waited = [now - connection.began for connection in opened if connection.is_asking]
    shown = np.percentile([*answered, *waited], (50, 99, 100)) * 1000
    p50, p99, worst = shown.round(3).tolist()
    return {
        "answered": len(answered),
        "in_all": len(found),
        "a_second": len(answered) / (now - began),
        "refused": len(refused),
        "why": refused[:3],
        "ms": {"p50": p50, "p99": p99, "max": worst},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asking")
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("question", choices=MANY)
    parser.add_argument("--entities", type=int, default=ENTITIES)
    parser.add_argument("--of", choices=("tickwell", "feast", "precomputed"), default="tickwell")
    parser.add_argument("--key", default="")
    told = parser.parse_args()
    different = requests(told.question, told.entities, told.of, told.key)
    print(json.dumps(uvloop.run(ask(told.port, told.connections, told.seconds, different))))


if __name__ == "__main__":
    main()
