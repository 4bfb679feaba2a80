"""Raw records through the whole pipeline, against the oracle."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.oracle.features import Expected
from tests.support.checks import (
    SPECS,
    assert_no_difference,
    assert_stores_match,
    expected,
)
from tests.support.load import random_positions
from tests.support.logs import NOW_MS, messages
from tests.support.pipeline import Pipeline

Messages = list[tuple[bytes | None, bytes | None]]
EXAMPLES = 40
SMALLEST, LARGEST = 1e-9, 1e12
COMPARED = {
    "current_price": 4_800,
    "price_sma_5": 4_300,
    "price_sma_20": 2_700,
    "price_volatility": 2_600,
    "current_volume": 13_000,
    "volume_sma_10": 3_500,
    "position_size": 200,
    "position_multiplier": 200,
}
"""Values of each feature that must have been compared, at least: a test whose windows never fill
would compare nothing but `warming`."""


@pytest.mark.timeout(400)
def test_whatever_producers_send(running: Pipeline) -> None:
    """Ticks, arrays, resets, duplicates, late ones, and what is not a tick at all."""
    log: Messages = []
    prices = st.lists(messages(), min_size=30, max_size=80)

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(prices)
    def collect(some: Messages) -> None:
        log.extend((key, _shifted(value)) for key, value in some)

    collect()
    running.start_worker("online")
    running.start_worker("offline")
    random.seed(7)
    for start in range(0, len(log), 97):
        running.produce("price", log[start : start + 97])
    running.produce("price", _walk("price", _names("CALM", 50), 60, _calm))
    running.produce("price", _walk("price", _names("WILD", 50), 60, _wild))
    running.produce("price", _walk("price", ["SAME"], 60, lambda price: price))
    running.produce("volume", _walk("volume", _names("V", 1200), 15, _leaps))
    running.produce("position", random_positions(random.Random(7), time.time_ns() // 10**6))
    running.wait_drained("online", "offline")
    compared: Counter[str] = Counter()
    for source in ("price", "volume", "position"):
        found = expected(running, source)
        assert_stores_match(running, source, found)
        compared += _compared(source, found)
        if source == "price":
            constant = [row.values[-1] for row in found.rows["SAME",]]
            assert {value.value for value in constant} == {None, 0.0}  # and so in both stores
    assert all(compared[feature] >= least for feature, least in COMPARED.items()), compared
    assert compared.keys() == COMPARED.keys()
    assert assert_no_difference(running).looked["rows in Redis"] > 1_300


def _compared(source: str, found: Expected) -> Counter[str]:
    """How often each feature has a value that was compared."""
    _, _, features = SPECS[source]
    return Counter(
        feature.name
        for rows in found.rows.values()
        for row in rows
        for feature, value in zip(features, row.values, strict=True)
        if value.status == "ok" and value.magnitude < 1e306  # from there on it may be undefined
    )


def _shifted(value: bytes | None) -> bytes | None:
    """The same message a few years later, so that its times are near its record's."""
    if value is None:
        return None
    now = (time.time_ns() // 10**6) - 1_000
    return value.replace(str(NOW_MS)[:8].encode(), str(now)[:8].encode())


def _walk(
    field: str, symbols: Iterable[str], ticks: int, step: Callable[[float], float]
) -> Messages:
    """So many ticks of each symbol, from magnitudes of 1e-9 to 1e12 on, in any order of symbols."""
    values = {symbol: 10.0 ** random.uniform(-9, 12) for symbol in symbols}
    order = [symbol for symbol in values for _ in range(ticks)]
    random.shuffle(order)
    now = time.time_ns() // 10**6
    made: Messages = []
    for number, symbol in enumerate(order):
        values[symbol] = min(max(step(values[symbol]), SMALLEST), LARGEST)
        tick: dict[str, Any] = {
            "symbol": symbol,
            field: values[symbol],
            "ts": now - random.choice([0, 0, 1, 500, 1500]),
            "seq": number // 2,
        }
        made.append((symbol.encode(), json.dumps(tick).encode()))
    return made


def _names(prefix: str, symbols: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(symbols)]


def _calm(value: float) -> float:
    """Returns of 1e-6: a logarithm of the quotient would lose what it is about."""
    return value * random.choice([1.0, 1.000001, 0.999999])


def _wild(value: float) -> float:
    """The smallest and the largest price beside each other."""
    return random.choice([SMALLEST, LARGEST, 10.0 ** random.uniform(-9, 12)])


def _leaps(value: float) -> float:
    return value * random.choice([1.0, 1.0001, 0.9999, 1e-3, 1e3])
