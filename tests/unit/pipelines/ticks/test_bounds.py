"""The last value that is accepted and the first that is not, of each bound of a tick."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from pipelines.ticks.decoder import Decoder
from registry.definitions import Source
from tests.support.logs import NOW_MS, run_of
from tests.support.mapped_sources import source_of
from tests.support.shipped import SOURCE, definitions

POSITION = definitions.sources[2]
IN_ARRAYS = source_of('items = "data"\n[source.map]\nsymbol = "^s"\nts = "^T"\nprice = "p"\n')
POSITIVE = structs.replace(SOURCE, positive=True)
GOOD = {"symbol": "A", "price": 1.5, "ts": NOW_MS}
SKEW_MS = SOURCE.skew_ns // 10**6
SMALLEST = 5e-324


def outcome(message: bytes, key: bytes = b"A", source: Source = SOURCE) -> list[str]:
    """Of each tick of a message "accepted", or the reason for which it is rejected."""
    ticks = Decoder(source).decode(run_of([(key, message)]))
    return ["accepted"] * len(ticks) + [rejection.reason for rejection in ticks.rejected]


def tick(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


@pytest.mark.parametrize(
    ("ahead", "expected"), [(SKEW_MS, "accepted"), (SKEW_MS + 1, "from-the-future")]
)
def test_skew(ahead: int, expected: str) -> None:
    assert outcome(tick(ts=NOW_MS + ahead)) == [expected]


@pytest.mark.parametrize(
    ("price", "expected"),
    [(SMALLEST, "accepted"), (0, "not-positive"), (-0.0, "not-positive"), (-1, "not-positive")],
)
def test_positive_prices(price: float, expected: str) -> None:
    assert outcome(tick(price=price), source=POSITIVE) == [expected]
    assert outcome(tick(price=price)) == ["accepted"]


@pytest.mark.parametrize(("size", "expected"), [(255, "accepted"), (256, "key-mismatch")])
def test_keys(size: int, expected: str) -> None:
    name = "A" * size
    assert outcome(tick(symbol=name), name.encode()) == [expected]


@pytest.mark.parametrize(("size", "expected"), [(255, "accepted"), (256, "malformed")])
def test_a_name_that_is_not_all_of_the_message_key(size: int, expected: str) -> None:
    position = {"portfolio": "P", "symbol": "A" * size, "quantity": 1, "ts": NOW_MS}
    assert outcome(json.dumps(position).encode(), b"P", POSITION) == [expected]


@pytest.mark.parametrize(
    ("ticks", "expected"), [(10_000, ["accepted"] * 10_000), (10_001, ["too-large"])]
)
def test_ticks_of_an_array(ticks: int, expected: list[str]) -> None:
    message = {"s": "A", "T": NOW_MS, "data": [{"p": 1}] * ticks}
    assert outcome(json.dumps(message).encode(), source=IN_ARRAYS) == expected


@pytest.mark.parametrize("after", [b"x", b"]", b",", b"[]"])
def test_nothing_follows_a_message(after: bytes) -> None:
    array = b"[" + tick() + b"," + tick() + b"]"
    assert outcome(array) == ["accepted"] * 2
    assert outcome(array + b" \n") == ["accepted"] * 2
    assert outcome(array + after) == ["malformed"]
    assert outcome(tick() + after) == ["malformed"]
