"""The oracle itself, against pandas: two wrongs that agree would be a poor proof."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.derived import Known, expect_sum
from tests.oracle.features import Feature, evaluate, expect
from tests.oracle.messages import Record, SourceSpec
from tests.support.logs import POSITION, POSITION_FEATURES

PRICE = SourceSpec("price", "ticks.price", ("symbol",), (("price", True, None),))
BEGIN = 1_700_000_000_000
prices = st.lists(st.floats(0.01, 1e6), min_size=21, max_size=60)


@given(prices)
def test_volatility_is_the_rolling_sample_deviation_of_log_returns(values: list[float]) -> None:
    window = [(value,) for value in values]
    expected = np.log(pd.Series(values)).diff().rolling(20).std(ddof=1).iloc[-1]
    assert evaluate(Feature("v", "volatility", 0, 20), window).value == pytest.approx(
        expected, rel=1e-9, abs=1e-9
    )


@given(prices)
def test_mean_is_the_rolling_mean(values: list[float]) -> None:
    window = [(value,) for value in values]
    expected = pd.Series(values).rolling(5).mean().iloc[-1]
    assert evaluate(Feature("m", "mean", 0, 5), window).value == pytest.approx(expected, rel=1e-9)


def test_a_log_by_hand() -> None:
    def record(offset: int, value: str, partition: int = 0, at: int = BEGIN + 10_000) -> Record:
        return Record("ticks.price", partition, offset, at, b"A", value.encode())

    log = [
        record(0, '{"symbol":"A","price":1,"ts":1700000005000,"seq":1}'),
        record(1, '{"symbol":"A","price":3,"ts":1700000004500}'),
        record(2, '{"symbol":"A","price":3,"ts":1700000005000,"seq":1}'),
        record(3, '{"symbol":"A","price":3,"ts":1700000003999}'),
        record(
            4,
            '[{"symbol":"A","price":"3 ","ts":1700000005000},'
            '{"symbol":"A","op":"reset","ts":1700000006000}]',
        ),
        record(5, '{"symbol":"A","price":NaN,"ts":1700000005000}'),
        record(0, '{"symbol":"A","price":1,"ts":1700000006000}', partition=1),
        record(6, '{"symbol":"A","price":1,"ts":1700000011001}'),
        record(7, '{"symbol":"A","price":7,"ts":1700000006000}'),
    ]
    expected = expect(log, PRICE, (Feature("mean", "mean", 0, 2),))
    assert expected.rejected == {
        (0, 2, 0): "duplicate",
        (0, 3, 0): "late",
        (0, 4, 0): "unknown-field-type",
        (0, 5, 0): "not-finite",
        (1, 0, 0): "wrong-partition",
        (0, 6, 0): "from-the-future",
    }
    rows = expected.rows[("A",)]
    assert [(row.event_time // 10**6 - BEGIN, row.sequence) for row in rows] == [
        (5000, 0),
        (5000, 1),
        (6000, 0),
        (6000, 1),
    ]
    assert [row.values[0].value for row in rows] == [None, 2.0, None, None]


def test_a_position_by_hand() -> None:
    operations = ["trade", "close", "reset", "trade", "reset", "close", "cancel"]
    log = [
        Record("ticks.position", 0, offset, BEGIN, b"P", json.dumps(tick).encode())
        for offset, operation in enumerate(operations)
        for tick in [{"portfolio": "P", "symbol": "A", "op": operation, "quantity": 7, "ts": BEGIN}]
    ]
    expected = expect(log, POSITION, POSITION_FEATURES)
    assert expected.rejected == {(0, 6, 0): "unsupported-op"}
    statuses = [row.values[0].status for row in expected.rows["P", "A"]]
    assert statuses == ["ok", "closed", "closed", "ok", "warming", "closed"]


def test_an_exposure_by_hand() -> None:
    held, gone = Known(2.0, "ok", 3), Known(-0.0, "stale", 2)
    price, none = Known(5.0, "lagging", 9), Known(None, "missing", None)
    open_positions = [{"q": held, "p": price}, {"q": gone, "p": none}]
    assert expect_sum("abs(-q * p)", open_positions) == Known(10.0, "lagging", 2)
    assert expect_sum("q * p + q", open_positions[1:]) == Known(0.0, "stale", 2)
    assert expect_sum("q + p", open_positions) == Known(None, "missing", 2)
    closes = [Known(0.0, "ok", 4), Known(0.0, "ok", 6)]
    assert expect_sum("q * p", [], closes) == Known(0.0, "ok", 6)
    assert expect_sum("q * p", open_positions[:1], closes) == Known(10.0, "lagging", 3)
    assert expect_sum("q * p", []) == Known(None, "missing", None)
