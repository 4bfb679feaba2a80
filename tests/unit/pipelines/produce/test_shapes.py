"""Files in the shapes that people have them: exchanges, vendors, Kaggle, Python packages.

The rows are made up, in the shape of what is named; `acceptance/test_real_files.py` has real ones.
"""

from __future__ import annotations

import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.produce.errors import BadRow, Mistaken
from tests.support.names import name_of
from tests.support.tick_files import PRICE, VOLUME, checked, csv_of, decoded

Tick = tuple[str, float, str]
"""Symbol, value and time, UTC."""


def ticks(*files: Path, source: Any = PRICE, **options: Any) -> list[Tick]:
    found = decoded(*files, source=source, **options)
    return [
        (name_of(found.data, keys), float(fields[0]), pd.Timestamp(int(time)).isoformat())
        for keys, fields, time in zip(found.keys, found.fields, found.tick_time, strict=True)
    ]


GOOG = {"symbol": "GOOG"}


def test_backtesting(tmp_path: Path) -> None:
    lines = [
        "2004-08-19,100,104.06,95.96,100.34,22351900",
        "2004-08-20,101,109,100,108.31,11428600",
    ]
    file = csv_of(tmp_path, ",Open,High,Low,Close,Volume", *lines)
    columns = {"ts": "#1", "price": "Close"}
    assert ticks(file, constants=GOOG, columns=columns) == [
        ("GOOG", 100.34, "2004-08-19T00:00:00"),
        ("GOOG", 108.31, "2004-08-20T00:00:00"),
    ]
    columns = {"ts": "#1", "volume": "Volume"}
    assert ticks(file, source=VOLUME, constants=GOOG, columns=columns)[0][1] == 22351900


def test_yahoo_with_offsets(tmp_path: Path) -> None:
    file = csv_of(
        tmp_path, "Date,Close", "2024-03-08 00:00:00-05:00,1.5", "2024-03-11 00:00:00-04:00,2"
    )
    columns = {"ts": "Date", "price": "Close"}
    assert [time for *_, time in ticks(file, constants=GOOG, columns=columns)] == [
        "2024-03-08T05:00:00",
        "2024-03-11T04:00:00",
    ]


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_binance_klines_and_trades(tmp_path: Path, unit: str) -> None:
    """No header, zipped, and since 2025 in microseconds."""
    more = "000" if unit == "us" else ""
    prices = "93576.00,93702.15,93489.03,93656.18"
    kline = f"1735689600000{more},{prices},49.01,1735689659999{more},4585,1,2,3,0"
    trade = f"4359183361,93576.00000000,0.00007000,6.55,1735689600001{more},True,True"
    for name, line in (("klines", kline), ("trades", trade)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}.csv", f"{line}\n")
    options: dict[str, Any] = {"header": False, "constants": {"symbol": "BTCUSDT"}}
    klines = {"ts": "#1", "price": "#5"}
    if unit == "us":
        with pytest.raises(BadRow, match=r"column #1: 1735689600000000 ms .*--ts-unit us"):
            checked(tmp_path / "klines.zip", columns=klines, **options)
        options["ts_unit"] = unit
    assert ticks(tmp_path / "klines.zip", columns=klines, **options) == [
        ("BTCUSDT", 93656.18, "2025-01-01T00:00:00")
    ]
    trades = {"ts": "#5", "price": "#2", "size": "#3", "seq": "#1"}
    found = decoded(tmp_path / "trades.zip", columns=trades, **options)
    assert found.fields.tolist() == [[93576.0, 0.00007]]
    assert found.seq.tolist() == [4359183361]


def test_databento_trades(tmp_path: Path) -> None:
    header = (
        "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,sequence,symbol"
    )
    lines = [
        f"{1700000000123456789 + i},{1700000000123456789 + i},0,1,3403,T,A,{price},{i},{i},ESZ3"
        for i, price in enumerate((4530250000000, 2**63 - 1, 4530500000000))
    ]
    file = csv_of(tmp_path, header, *lines)
    options: dict[str, Any] = {
        "columns": {"ts": "ts_event", "seq": "sequence"},
        "scales": {"price": Decimal("1e-9")},
        "ts_unit": "ns",
    }
    with pytest.raises(BadRow, match=r"row 2, column price: .* databento .* --skip-empty"):
        checked(file, **options)
    assert ticks(file, skip_empty=True, **options) == [
        ("ESZ3", 4530.25, "2023-11-14T22:13:20.123456789"),
        ("ESZ3", 4530.5, "2023-11-14T22:13:20.123456791"),
    ]


def test_kaggle_bitcoin_with_rows_without_trades(tmp_path: Path) -> None:
    lines = ["1325317920,4.39,4.39,4.39,4.39,0.45", "1325317980,NaN,NaN,NaN,NaN,NaN"]
    file = csv_of(tmp_path, "Timestamp,Open,High,Low,Close,Volume_(BTC)", *lines)
    options: dict[str, Any] = {
        "constants": {"symbol": "BTC"},
        "columns": {"ts": "Timestamp", "price": "Close"},
        "ts_unit": "s",
    }
    with pytest.raises(BadRow, match="row 2, column Close: NaN is no number; --skip-empty"):
        checked(file, **options)
    assert ticks(file, skip_empty=True, **options) == [("BTC", 4.39, "2011-12-31T07:52:00")]


def test_kraken_trades(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "1381095255,122.00000,0.10000000", "1381179030.1234,123.61000,0.1")
    found = ticks(file, names=("ts", "price", "size"), constants={"symbol": "XBT"}, ts_unit="s")
    assert found == [
        ("XBT", 122.0, "2013-10-06T21:34:15"),
        ("XBT", 123.61, "2013-10-07T20:50:30.123400"),
    ]


def test_histdata_minutes(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "20120201 000000;1.306600;1.306600;1.306560;1.306570;0")
    options: dict[str, Any] = {"constants": {"symbol": "EURUSD"}, "ts_format": "%Y%m%d %H%M%S"}
    columns = {"ts": "#1", "price": "#5"}
    assert ticks(file, header=False, columns=columns, tz="Etc/GMT+5", **options) == [
        ("EURUSD", 1.30657, "2012-02-01T05:00:00")
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_stooq_and_finam(tmp_path: Path, delimiter: str) -> None:
    lines = ["<TICKER>,<PER>,<DATE>,<TIME>,<CLOSE>,<VOL>", "AAPL.US,5,20240102,093500,185.64,1"]
    file = csv_of(tmp_path, *(line.replace(",", delimiter) for line in lines))
    columns = {"symbol": "<TICKER>", "price": "<CLOSE>", "ts": "<DATE>+<TIME>"}
    assert ticks(file, columns=columns, ts_unit="yyyymmdd") == [
        ("AAPL.US", 185.64, "2024-01-02T09:35:00")
    ]
    with pytest.raises(Mistaken, match="column <DATE> holds 20240102: is it the date 2024-01-02"):
        checked(file, columns={**columns, "ts": "<DATE>"})


def test_spreadsheet_of_europe(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "Datum;Kurs", "24.11.2023 09:00;189.5", "25.11.2023 17:35;190.25")
    columns = {"ts": "Datum", "price": "Kurs"}
    found = ticks(
        file,
        constants={"symbol": "SAP"},
        columns=columns,
        ts_format="%d.%m.%Y %H:%M",
        tz="Europe/Berlin",
    )
    assert found == [("SAP", 189.5, "2023-11-24T08:00:00"), ("SAP", 190.25, "2023-11-25T16:35:00")]
