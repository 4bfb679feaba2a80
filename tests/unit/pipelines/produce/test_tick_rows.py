"""What is in a file is what is sent, from CSV and Parquet alike."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kafka.producer import ticks_in
from pipelines.produce.checking import sendable
from pipelines.produce.errors import BadRow, ColumnMissing, Mistaken
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.message_limits import MAX_MESSAGE_BYTES
from tests.support.logs import run_of
from tests.support.names import name_of
from tests.support.tick_files import (
    POSITION,
    PRICE,
    TS,
    checked,
    csv_of,
    decoded,
    messages_of,
    now,
    parquet_of,
    sent,
)

COLUMNS = {"symbol": "ticker", "price": "close", "ts": "at"}


def table(rows: int = 500) -> pa.Table:
    return pa.table(
        {
            "ticker": [f"S{i % 5}" for i in range(rows)],
            "close": [0.1 * i + 1e-9 for i in range(rows)],
            "at": [TS + i for i in range(rows)],
        }
    )


def test_csv_and_parquet_are_the_same_ticks(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(table(), tmp_path / "t.csv")
    pyarrow.parquet.write_table(table(), tmp_path / "t.parquet")
    ticks = [decoded(tmp_path / f"t.{kind}", columns=COLUMNS) for kind in ("csv", "parquet")]
    for found in ticks:
        assert found.fields[:, 0].tolist() == table()["close"].to_pylist()
        assert found.tick_time.tolist() == [at * 10**6 for at in table()["at"].to_pylist()]
        names = [name_of(found.data, keys) for keys in found.keys]
        assert names == table()["ticker"].to_pylist()


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_bit(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    file = parquet_of(tmp_path_factory.mktemp("x"), symbol=["A"], price=[number], ts=[TS])
    ((_, value),) = messages_of(file)
    assert float(json.loads(value)["price"]).hex() == number.hex()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_small_floats_widen_exactly(
    tmp_path_factory: pytest.TempPathFactory, number: float
) -> None:
    price = pa.array([number], pa.float32())
    file = parquet_of(tmp_path_factory.mktemp("x"), symbol=["A"], price=price, ts=[TS])
    ((_, value),) = messages_of(file)
    assert json.loads(value)["price"] == number


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (f",1,{TS},", "column symbol: is empty, and a tick needs its symbol"),
        (f'"A\t",1,{TS},', r"column symbol: 'A\\t' must have .* no control character"),
        (f"A,1.2.3,{TS},", "column price: '1.2.3' is not a number"),
        (f'A,"1,000.5",{TS},', "column price: '1,000.5' is not a number"),
        (f'A,"1,5",{TS},', "column price: '1,5' is not a number: a comma is no decimal point"),
        (f"A,NaN,{TS},", "column price: NaN is no number; --skip-empty"),
        (f'A,"1,""op"":""reset""",{TS},', "column price: .* is not a number"),
        (f"A,1e999,{TS},", "column price: price is not a finite double"),
        (f"A,,{TS},", "column price: is empty, and a tick needs its price; --skip-empty"),
        ("A,1,,", "column ts: is empty"),
        ("A,1,soon,", "column ts: 'soon' is neither an integer nor a time.*--ts-format"),
        ("A,1,2023-02-29,", "column ts: '2023-02-29' is neither"),
        ("A,1,4102444800000000,", r"column ts: .* between 1971.* and 2200; in us it is 2100"),
        ("A,1,1700000000,", "column ts: 1700000000 ms .*; in s it is 2023-11-14: --ts-unit s"),
        ("A,1,7000000000000,", r"column ts: .* \(from-the-future\)"),
        (f"A,1,{TS},x", "column seq: 'x' is not an integer"),
        (f"A,1,{TS},1.5", "column seq: '1.5' is not an integer"),
        (f"A,1,{TS},9223372036854775808", "column seq: .* is not an integer of 64 bits"),
        (f"A,9223372036854775807,{TS},", "column price: .* databento .* no value; --skip-empty"),
        ("A,1,18446744073709551615,", "column ts: .* databento .* no time; --skip-empty"),
    ],
)
def test_a_bad_cell_is_told_with_its_row_and_column(tmp_path: Path, cells: str, what: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts,seq", f"B,1,{TS},3", cells)
    with pytest.raises(BadRow, match=rf"t\.csv, row 2, {what}.*nothing was sent\. --reject FILE"):
        checked(file)


@pytest.mark.parametrize(
    "symbol", ["000001", "NA", "null", "nan", "None", "TRUE", "1e5", "-", " A ", "1.0", "é€😀"]
)
def test_keys_are_text_as_it_is_written(tmp_path: Path, symbol: str) -> None:
    csv = csv_of(tmp_path, "symbol,price,ts", f"{symbol},1,{TS}")
    for file in (csv, parquet_of(tmp_path, symbol=[symbol], price=[1], ts=[TS])):
        ((key, value),) = messages_of(file)
        assert (key, json.loads(value)["symbol"]) == (symbol.encode(), symbol)


def test_a_column_may_change_from_whole_numbers_to_fractions(tmp_path: Path) -> None:
    rows = 100_000  # more than a block of any reader
    prices = [*(str(i) for i in range(rows)), "0.5"]
    # and so may one that nobody asked for
    lines = (f"A,{price},{TS},{price}" for price in prices)
    file = csv_of(tmp_path, "symbol,price,ts,note", *lines)
    assert [tick["price"] for tick in sent(file)] == [Decimal(price) for price in prices]


@given(
    st.one_of(
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
        st.floats(allow_nan=False, allow_infinity=False).map(lambda x: Decimal(repr(x))),
        st.integers(-(10**40), 10**40).map(Decimal),
    ),
    st.sampled_from(["{}", "{:f}", "+{}", "00{}", " {} "]),
)
def test_numbers_of_a_csv_keep_every_digit(
    tmp_path_factory: pytest.TempPathFactory, number: Decimal, form: str
) -> None:
    text = form.format(abs(number) if form[0] in "+0" else number)
    (tick,) = sent(csv_of(tmp_path_factory.mktemp("x"), "symbol,price,ts", f"A,{text},{TS}"))
    assert tick["price"] == Decimal(text.strip())


@pytest.mark.parametrize("text", [".5", "5.", "-.25e3", "1E5", "+007.50", "00", "-0", "-0.0"])
def test_forms_that_json_has_not(tmp_path: Path, text: str) -> None:
    (tick,) = sent(csv_of(tmp_path, "symbol,price,ts", f"A,{text},{TS}"))
    assert tick["price"] == Decimal(text)


def test_empty_cells_are_absent_fields(tmp_path: Path) -> None:
    header = "symbol,price,size,seq,op,ts"
    whole = f'"A","1","3","4","trade","{TS}"'
    file = csv_of(tmp_path, header, f"A,1,,,,{TS}", whole, f"A,,,,reset,{TS}")
    assert sent(file) == [
        {"symbol": "A", "price": 1, "ts": TS},
        {"symbol": "A", "price": 1, "size": 3, "seq": 4, "op": "trade", "ts": TS},
        {"symbol": "A", "op": "reset", "ts": TS},
    ]
    sizes = [None, math.nan]
    file = parquet_of(tmp_path, symbol=["A", "A"], price=[1, 1], size=sizes, ts=[TS, TS])
    assert sent(file) == [{"symbol": "A", "price": 1, "ts": TS}] * 2


@pytest.mark.parametrize("scale", ["1e-9", "0.000000001", "1E-09"])
def test_a_scale_is_exact_and_rounded_once(tmp_path: Path, scale: str) -> None:
    prices = ["189230000001", "-1", "0", "12345678901234567", "1.5"]
    file = csv_of(tmp_path, "symbol,price,ts", *(f"A,{price},{TS}" for price in prices))
    ticks = decoded(file, scales={"price": Decimal(scale)})
    exact = [float(Decimal(price) * Decimal(scale)) for price in prices]
    assert ticks.fields[:, 0].tolist() == exact


@given(st.integers(-(2**62), 2**62), st.sampled_from(["0.25", "1e-9", "3", "1e2", "12.5e-3"]))
def test_any_scale_is_exact(
    tmp_path_factory: pytest.TempPathFactory, number: int, scale: str
) -> None:
    directory = tmp_path_factory.mktemp("x")
    file = csv_of(directory, "symbol,price,ts", f"A,{number},{TS}", f"A,{number}e0,{TS}")
    for tick in sent(file, scales={"price": Decimal(scale)}):
        assert tick["price"] == number * Decimal(scale)


def test_constants_and_columns_by_number(tmp_path: Path) -> None:
    file = csv_of(tmp_path, f"{TS},5.5,x", f"{TS + 1},6.5,y")
    ticks = sent(
        file, header=False, constants={"symbol": "GOOG"}, columns={"ts": "#1", "price": "#2"}
    )
    assert ticks == [
        {"symbol": "GOOG", "price": Decimal("5.5"), "ts": TS},
        {"symbol": "GOOG", "price": Decimal("6.5"), "ts": TS + 1},
    ]
    assert ticks == sent(file, names=("ts", "price", "note"), constants={"symbol": "GOOG"})


def test_an_entity_of_two_keys(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,quantity,ts", f"AAPL,-300,{TS}")
    ((key, value),) = messages_of(file, source=POSITION, constants={"portfolio": "P1"})
    assert key == b"P1"
    assert json.loads(value) == {"portfolio": "P1", "symbol": "AAPL", "quantity": -300, "ts": TS}


def test_a_position_that_is_closed_needs_no_quantity(tmp_path: Path) -> None:
    lines = (f"P,A,7,,{TS}", f"P,A,,close,{TS + 1}")
    file = csv_of(tmp_path, "portfolio,symbol,quantity,op,ts", *lines)
    assert sent(file, source=POSITION) == [
        {"portfolio": "P", "symbol": "A", "quantity": 7, "ts": TS},
        {"portfolio": "P", "symbol": "A", "op": "close", "ts": TS + 1},
    ]


def test_rows_without_a_value_are_passed_over(tmp_path: Path) -> None:
    lines = ["A,1", "A,", f"A,{2**63 - 1}", "A,nan", "A,.", ",2", "A,3"]
    file = csv_of(tmp_path, "symbol,price,ts", *(f"{line},{TS}" for line in lines), "A,4,")
    _, found = checked(file, skip_empty=True)
    assert (found.good, found.empty) == (2, 6)
    assert [tick["price"] for tick in sent(file, skip_empty=True)] == [1, 3]
    # a field that a tick may lack is only left out
    file = csv_of(tmp_path, "symbol,price,size,ts", f"A,1,NaN,{TS}")
    assert sent(file, skip_empty=True) == [{"symbol": "A", "price": 1, "ts": TS}]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (
            {},
            r"no column symbol, price, ts; it has ticker, close, at.*--map symbol=COLUMN "
            r"--map price=COLUMN --map ts=COLUMN.*--set symbol",
        ),
        ({"columns": {"symbol": "ticker"}}, r"--map price=COLUMN --map ts=COLUMN$"),
        ({"columns": {**COLUMNS, "price": "last"}}, r"no column last.*--map price=COLUMN"),
        ({"columns": {**COLUMNS, "price": "#4"}}, r"no column #4"),
        ({"columns": {**COLUMNS, "bid": "close"}}, "has no field bid; it has symbol, price, size"),
        ({"columns": COLUMNS, "constants": {"price": "1"}}, "price is given twice"),
        ({"columns": COLUMNS, "scales": {"ts": Decimal(1)}}, "--scale ts: only numbers"),
        ({"constants": {"price": "x"}}, "--set price=x: 'x' is not a number"),
        ({"constants": {"seq": "1"}}, "--set seq"),
        ({"columns": COLUMNS, "tz": "Mars/Olympus"}, "--tz Mars/Olympus: there is no such"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, Any], what: str) -> None:
    file = csv_of(tmp_path, "ticker,close,at", f"A,1,{TS}")
    with pytest.raises((ColumnMissing, Mistaken), match=what):
        checked(file, **options)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price,price,ts", f"A,1,2,{TS}")
    with pytest.raises(Mistaken, match="column price more than once: name it by its number, as #2"):
        checked(file)
    assert sent(file, columns={"price": "#3"})[0]["price"] == 2


def test_a_first_row_that_looks_like_data(tmp_path: Path) -> None:
    file = csv_of(tmp_path, f"A,1,{TS}", f"A,2,{TS}")
    with pytest.raises(ColumnMissing, match=r"first row looks like data: --no-header.*--columns"):
        checked(file)
    columns = {"symbol": "#1", "price": "#2", "ts": "#3"}
    with pytest.raises(Mistaken, match=r"first row looks like data.*--no-header.*or --header"):
        checked(file, columns=columns)
    assert len(sent(file, columns=columns, header=False)) == 2
    assert len(sent(file, columns=columns, header=True)) == 1


@given(st.data())
def test_every_row_becomes_the_object_that_its_cells_say(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any text of keys, any numbers, any fields left out: the messages are what JSON would be."""
    text = st.text(
        st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f"),
        min_size=1,
        max_size=5,
    )
    number = st.floats(allow_nan=False, allow_infinity=False)
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {"symbol": text, "price": number, "ts": st.integers(TS, TS + 10**9)},
                optional={"size": number, "seq": st.integers(-(2**62), 2**62)},
            ),
            min_size=1,
            max_size=20,
        )
    )
    names = ("symbol", "price", "size", "ts", "seq")
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    file = parquet_of(tmp_path_factory.mktemp("x"), **columns)
    for options in ({}, {"limit": len(rows)}):
        found = [(key, json.loads(value)) for key, value in messages_of(file, **options)]
        assert found == [(row["symbol"].encode(), row) for row in rows]


def test_as_if_now_needs_no_time(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price", "A,1")
    ((_, value),) = messages_of(file, as_if_now=True, now_ns=TS * 10**6)
    assert json.loads(value) == {"symbol": "A", "price": 1, "ts": TS}


def test_what_is_sent_is_what_python_would_write(tmp_path: Path) -> None:
    """A price has one double: as text of a CSV and as a float of a Parquet file."""
    prices = np.random.default_rng(7).lognormal(0, 30, 2_000)
    text = csv_of(tmp_path, "symbol,price,ts", *(f"A,{price!r},{TS}" for price in prices.tolist()))
    typed = parquet_of(tmp_path, symbol=["A"] * 2_000, price=prices, ts=[TS] * 2_000)
    for file in (text, typed):
        assert decoded(file, source=PRICE).fields[:, 0].tolist() == prices.tolist()


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(1, 40),
)
def test_ticks_of_one_key_are_sent_together_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], cut: int
) -> None:
    lines = (f"{symbol},{price},{TS}" for symbol, price in rows)
    file = csv_of(tmp_path_factory.mktemp("x"), "symbol,price,ts", *lines)
    (found,) = sendable(*checked(file))
    sent_prices: dict[str, list[int]] = {}
    for part in (found.slice(0, min(cut, len(rows))), found.slice(min(cut, len(rows)), len(rows))):
        batch = part.batch()
        assert batch.ticks == len(part)
        assert len(set(batch.keys)) == len(batch.keys)
        run = run_of(list(zip(batch.keys, batch.values, strict=True)), now())
        ticks = Decoder(PRICE).decode(run)
        assert ticks.rejected == []
        assert len(ticks) == len(part)
        for keys, fields in zip(ticks.keys, ticks.fields, strict=True):
            sent_prices.setdefault(name_of(ticks.data, keys), []).append(int(fields[0]))
    assert sent_prices == {
        symbol: [price for other, price in rows if other == symbol] for symbol, _ in rows
    }


def test_no_message_is_larger_than_workers_take(tmp_path: Path) -> None:
    """Whatever the length of a symbol and of a number; one tick alone is no array."""
    symbol = "é" * 127
    for rows, number in ((1, "1"), (2_000, "1"), (2_000, "1" * 4_000)):
        lines = (f"{symbol},{number},{TS}" for _ in range(rows))
        file = csv_of(tmp_path, "symbol,price,ts", *lines)
        batches = [
            found.batch()
            for found in sendable(*checked(file, scales={"price": Decimal("1e-3990")}))
        ]
        values = [value for batch in batches for value in batch.values]
        assert all(len(value) < MAX_MESSAGE_BYTES / 4 for value in values)
        assert all(value.startswith(b"[") == (rows > 1) for value in values)
        assert sum(map(ticks_in, values)) == rows


@pytest.mark.parametrize("cell", ["+-5", "-+5", "++5", "+", "..", "+.", "-.", ".e5", "+e5"])
def test_signs_and_points_alone_are_no_numbers(tmp_path: Path, cell: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,{cell},{TS}")
    with pytest.raises(BadRow, match=r"row 1, column price: .* is not a number"):
        checked(file)


def test_a_scale_that_a_number_is_too_large_for(tmp_path: Path) -> None:
    cells = ("1e9999999", "1e9999999999999999999999", "2")
    file = csv_of(tmp_path, "symbol,price,ts", *(f"A,{cell},{TS}" for cell in cells))
    options: dict[str, Any] = {"scales": {"price": Decimal("0.5")}}
    with pytest.raises(BadRow, match="row 1, column price"):
        checked(file, **options)
    _, found = checked(file, rejects=tmp_path / "r.csv", **options)
    assert (found.good, found.problems) == (1, 2)


def test_a_scale_rounds_no_digit(tmp_path: Path) -> None:
    digits = "1234567890" * 6 + "1"
    file = csv_of(tmp_path, "symbol,price,ts", f"A,{digits},{TS}")
    (tick,) = sent(file, scales={"price": Decimal("3e-60")})
    assert tick["price"].as_tuple() == Decimal(f"{3 * int(digits)}e-60").as_tuple()
