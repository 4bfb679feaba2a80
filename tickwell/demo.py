"""Real market data that ticks now: daily bars of five companies, over and over.

The bars are those of the package `bokeh_sampledata` (adjusted closes and volumes, 2000 to 2013);
GOOG is also sent as GOOGL. Two portfolios hold some of them. Where a symbol's history begins again
its price jumps, so it is reset first, as it would be for a split.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from threading import Event
from typing import Any

import msgspec

from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.producer import Tick, TickProducer
from pipelines.kafka.topics import find_topics

SYMBOLS = {
    "AAPL": "AAPL",
    "FB": "FB",
    "GOOG": "GOOG",
    "GOOGL": "GOOG",
    "IBM": "IBM",
    "MSFT": "MSFT",
}
PORTFOLIOS = {
    "P1": {"AAPL": 300, "GOOGL": 40, "IBM": -120, "MSFT": 500},
    "P2": {"AAPL": -150, "FB": 800, "GOOG": -25, "MSFT": 200},
}
BARS_A_SECOND = 10.0
REBALANCE_BARS = 50
"""A portfolio changes one position after so many bars."""

Message = tuple[str, Tick]
encode = msgspec.json.Encoder().encode


def bars() -> dict[str, list[tuple[float, float]]]:
    """(adjusted close, volume) of each day, by symbol, oldest first."""
    from bokeh_sampledata import stocks

    history: dict[str, list[tuple[float, float]]] = {}
    for symbol, package_name in SYMBOLS.items():
        days: Any = getattr(stocks, package_name)
        history[symbol] = list(zip(days["adj_close"], days["volume"], strict=True))
    return history


def messages() -> Iterator[list[Message]]:
    """What to send at each step: a bar of each symbol, now and then a changed position."""
    history = bars()
    yield [
        _position(portfolio, symbol) for portfolio in PORTFOLIOS for symbol in PORTFOLIOS[portfolio]
    ]
    for number in count():
        step = [message for symbol in history for message in _bar(history[symbol], symbol, number)]
        if number % REBALANCE_BARS == REBALANCE_BARS - 1:
            step += _rebalance(number // REBALANCE_BARS)
        yield step


def stream(kafka: KafkaConnection, stop: Event) -> None:
    """Send until `stop` is set, ten bars of each symbol a second.

    Raises `TopicMissing` and `BrokerUnavailable`.
    """
    topics = {name: f"ticks.{name}" for name in ("price", "volume", "position")}
    find_topics(kafka, list(topics.values()), stop)
    producers = {name: TickProducer(kafka, topic) for name, topic in topics.items()}
    due = time.monotonic()
    for step in messages():
        for topic, tick in step:
            producers[topic].send(tick)
        due = max(due + 1 / BARS_A_SECOND, time.monotonic())
        if stop.wait(due - time.monotonic()):
            break
    for producer in producers.values():
        producer.flush()


def _bar(history: list[tuple[float, float]], symbol: str, number: int) -> Iterator[Message]:
    """The bar of a step, as a price and a volume; where the history begins, a reset before it."""
    day = number % len(history)
    price, volume = history[day]
    at = {"symbol": symbol, "ts": _now()}
    for topic, values in (("price", {"price": price}), ("volume", {"volume": volume})):
        if day == 0:
            yield topic, Tick(symbol.encode(), encode({**at, "op": "reset"}))
        yield topic, Tick(symbol.encode(), encode({**at, **values, "seq": number}))


def _position(portfolio: str, symbol: str, change: int = 0) -> Message:
    tick = {
        "portfolio": portfolio,
        "symbol": symbol,
        "quantity": PORTFOLIOS[portfolio][symbol] + change,
        "multiplier": 1,
        "ts": _now(),
    }
    return "position", Tick(portfolio.encode(), encode(tick))


def _rebalance(number: int) -> list[Message]:
    """One position of each portfolio moves by a tenth, or back, by a rule and not by chance."""
    moved = []
    for portfolio, positions in PORTFOLIOS.items():
        symbol = sorted(positions)[number % len(positions)]
        moved.append(_position(portfolio, symbol, positions[symbol] // 10 * (number % 3 - 1)))
    return moved


def _now() -> int:
    return time.time_ns() // 10**6
