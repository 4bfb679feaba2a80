"""One client that asks for the newest prices again and again, and remembers when it heard what."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from benchmarks.results import Failed

HEADERS = {"Content-Type": "application/json"}


class Value(Struct):
    value: float | None


class Answer(Struct):
    features: dict[str, Value]


class Answers(Struct):
    results: list[Answer]


@dataclass
class Heard:
    """At each moment (monotonic clock) the price of each symbol, -1 for none."""

    moments: list[float] = field(default_factory=list)
    prices: list[list[float]] = field(default_factory=list)


def batch_body(symbols: Sequence[str]) -> bytes:
    """A question for the current price of each symbol."""
    entities = [{"symbol": symbol} for symbol in symbols]
    return msgspec.json.encode({"features": ["current_price"], "entities": entities})


def probe(port: int, symbols: Sequence[str], pause: float, over: Callable[[Heard], bool]) -> Heard:
    """Ask every `pause` seconds, or at once when the last answer took longer, until `over`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body, decode, heard = batch_body(symbols), msgspec.json.Decoder(Answers).decode, Heard()
    following = time.monotonic()
    while not over(heard):
        connection.request("POST", "/features/batch", body, HEADERS)
        response = connection.getresponse()
        content = response.read()
        heard.moments.append(time.monotonic())
        if response.status != 200:
            raise Failed(f"the server answered {response.status}: {content[:300]!r}")
        values = [answer.features["current_price"].value for answer in decode(content).results]
        heard.prices.append([-1.0 if value is None else value for value in values])
        following = max(following + pause, time.monotonic())
        time.sleep(max(0.0, following - time.monotonic()))
    connection.close()
    return heard
