"""The types of Parquet's columns, and what each becomes."""

from __future__ import annotations

import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from pipelines.produce.errors import BadRow, Mistaken
from tests.support.tick_files import (
    TS,
    checked,
    parquet_of,
    sent,
)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.decimal128(18, 6), [Decimal("189.230001"), Decimal("-0.000001")]),
        (pa.decimal128(38, 0), [Decimal(10**37 + 1)]),
        (pa.decimal256(60, 30), [Decimal("123456789.123456789012345678901234567891")]),
        (pa.uint64(), [2**64 - 1]),
        (pa.int64(), [-(2**63)]),
        (pa.uint8(), [255]),
        (pa.string(), [Decimal("189.230000001")]),
        (pa.dictionary(pa.int8(), pa.float64()), [0.1]),
    ],
    ids=str,
)
def test_numbers_of_parquet_are_numbers(
    tmp_path: Path, kind: pa.DataType, values: list[Any]
) -> None:
    text = kind == pa.string()
    prices = pa.array([str(v) for v in values] if text else values, kind)
    file = parquet_of(tmp_path, symbol=["A"] * len(prices), price=prices, ts=[TS] * len(prices))
    exact = [Decimal(repr(v)) if isinstance(v, float) else v for v in values]
    assert [tick["price"] for tick in sent(file)] == exact


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_kinds_of_text_in_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    names = ["é", "000001", "é"]
    symbols = pa.array(names, pa.string()).cast(kind)
    file = parquet_of(tmp_path, symbol=symbols, price=[1, 2, 3], ts=[TS] * 3)
    assert [tick["symbol"] for tick in sent(file)] == names


def test_dates_integers_and_whole_floats_of_parquet(tmp_path: Path) -> None:
    day = pa.array([date(2020, 2, 29)], pa.date32())
    for kind in (pa.date32(), pa.date64()):
        file = parquet_of(tmp_path, symbol=[7203], price=[1], ts=day.cast(kind), seq=[17.0])
        midnight = 1_582_934_400_000
        assert sent(file) == [{"symbol": "7203", "price": 1, "ts": midnight, "seq": 17}]
    file = parquet_of(tmp_path, symbol=["A"], price=[1], ts=[Decimal(TS)])
    assert sent(file)[0]["ts"] == TS


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"price": [True]}, "column price: 'true' is not a number"),
        ({"price": [math.inf]}, "column price: 'inf' is not a number"),
        ({"price": [None]}, "column price: is empty"),
        ({"price": [2**63 - 1]}, "column price: 9223372036854775807 is what databento writes"),
        ({"symbol": [1.5]}, "column symbol: 1.5 is neither text nor an integer"),
        ({"symbol": [None]}, "column symbol: is empty"),
        ({"ts": [1.5]}, "column ts: 1970-01-01 is before 1971-01-01"),
        ({"ts": pa.array([2**64 - 1], pa.uint64())}, "column ts: 18446744073709551615 is what"),
    ],
)
def test_bad_cells_of_parquet(tmp_path: Path, columns: dict[str, Any], what: str) -> None:
    file = parquet_of(tmp_path, **{"symbol": ["A"], "price": [1], "ts": [TS], **columns})
    with pytest.raises(BadRow, match=f"row 1, {what}"):
        checked(file)


@pytest.mark.parametrize("bits", [64, 128])
def test_fixed_point_prices_of_nautilus_are_named(tmp_path: Path, bits: int) -> None:
    price = pa.array([bytes(bits // 8)], pa.binary(bits // 8))
    file = parquet_of(tmp_path, symbol=["A"], price=price, ts=[TS])
    with pytest.raises(Mistaken, match=f"price is in a column of {bits}-bit fixed-point.*Nautilus"):
        checked(file)
