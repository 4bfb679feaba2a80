"""Raw records through the whole pipeline, against the oracle."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.acceptance.checks import assert_stores_match, expected
from tests.acceptance.pipeline import Pipeline
from tests.logs import NOW_MS, messages

Messages = list[tuple[bytes | None, bytes | None]]
EXAMPLES = 40


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
    running.produce("volume", _walk("volume", symbols=3000, ticks=12_000))
    running.produce("position", _positions(400))
    running.wait_drained("online", "offline")
    for source in ("price", "volume", "position"):
        found = expected(running, source)
        assert found.rows
        assert_stores_match(running, source, found)


def _shifted(value: bytes | None) -> bytes | None:
    """The same message a few years later, so that its times are near its record's."""
    if value is None:
        return None
    now = (time.time_ns() // 10**6) - 1_000
    return value.replace(str(NOW_MS)[:8].encode(), str(now)[:8].encode())


def _walk(field: str, symbols: int, ticks: int) -> Messages:
    """Random walks of thousands of entities, magnitudes from 1e-9 to 1e12."""
    values = {number: 10.0 ** random.uniform(-9, 12) for number in range(symbols)}
    now = time.time_ns() // 10**6
    made: Messages = []
    for number in range(ticks):
        symbol = random.randrange(symbols)
        values[symbol] *= random.choice([1.0, 1.0001, 0.9999, 1e-3, 1e3])
        tick: dict[str, Any] = {
            "symbol": f"S{symbol}",
            field: values[symbol],
            "ts": now - random.choice([0, 0, 1, 500, 1500]),
            "seq": number // 2,
        }
        made.append((tick["symbol"].encode(), json.dumps(tick).encode()))
    return made


def _positions(ticks: int) -> Messages:
    now = time.time_ns() // 10**6
    made: Messages = []
    for number in range(ticks):
        tick: dict[str, Any] = {
            "portfolio": f"P{number % 7}",
            "symbol": f"S{number % 11}",
            "quantity": random.randint(-500, 500),
            "ts": now + number,
        }
        if number % 3:
            tick["multiplier"] = random.choice([1, 10, 0.1])
        made.append((tick["portfolio"].encode(), json.dumps(tick).encode()))
    return made
