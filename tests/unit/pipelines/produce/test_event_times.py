"""Times of files: units, text, formats, types and time zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.produce.errors import BadRow, Mistaken
from tests.support.tick_files import TS, checked, csv_of, parquet_of, times_of

NANOSECOND = 1_700_000_000_123_456_789
BERLIN = ZoneInfo("Europe/Berlin")


def ns(text: str) -> int:
    """Nanoseconds of a time, as pandas reads it; UTC without a zone."""
    stamp = pd.Timestamp(text)
    return int((stamp.tz_localize("UTC") if stamp.tz is None else stamp).value)


@pytest.mark.parametrize(
    "text",
    [
        "2020-02-29",
        "2020-02-29T10:11:12.123456789Z",
        "2020-02-29 10:11:12+02:00",
        "2020-02-29 10:11:12",
        "2020-02-29T10:11:12.5+02",
        "2020-02-29 10:11",
        " 2020-02-29 ",
        "2199-12-31T23:59:59.999999999Z",
    ],
)
def test_times_in_text(tmp_path: Path, text: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{text}", "A,1,2020-01-01")
    if ns(text) > ns("2100-01-01"):
        with pytest.raises(BadRow, match="from-the-future"):
            checked(file)
    else:
        assert times_of(file) == [ns(text), ns("2020-01-01")]


@pytest.mark.parametrize(
    ("text", "unit", "found"),
    [
        ("1700000000", "s", 1_700_000_000 * 10**9),
        ("1700000000.25", "s", 1_700_000_000 * 10**9 + 250_000_000),
        ("1.7e9", "s", 1_700_000_000 * 10**9),
        ("1700000000123", "ms", 1_700_000_000_123 * 10**6),
        ("1700000000123.0", "ms", 1_700_000_000_123 * 10**6),
        ("1700000000123456", "us", 1_700_000_000_123_456 * 10**3),
        (str(NANOSECOND), "ns", NANOSECOND),
        ("20200229", "yyyymmdd", ns("2020-02-29")),
        ("20200229.0", "yyyymmdd", ns("2020-02-29")),
    ],
)
def test_units(tmp_path: Path, text: str, unit: str, found: int) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{text}")
    assert times_of(file, ts_unit=unit) == [found]


@given(st.integers(365 * 86_400 * 10**9, 1_700_000_000 * 10**9))
def test_integers_of_nanoseconds_are_exact(
    tmp_path_factory: pytest.TempPathFactory, time: int
) -> None:
    file = csv_of(tmp_path_factory.mktemp("x"), "symbol,price,ts", f"A,1,{time}")
    assert times_of(file, ts_unit="ns") == [time]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "+05:30"])
def test_timestamps_of_parquet_lose_nothing(tmp_path: Path, unit: str, zone: str | None) -> None:
    count = NANOSECOND // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    at = pa.array([count], pa.int64()).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    file = parquet_of(tmp_path, symbol=["A"], price=[1], ts=at)
    kept = pyarrow.parquet.read_table(file)["ts"].cast(pa.timestamp("ns", zone))
    assert times_of(file) == kept.cast(pa.int64()).to_pylist()


def test_a_local_timestamp_of_parquet_is_in_the_zone(tmp_path: Path) -> None:
    at = pa.array([datetime(2024, 7, 1, 12, 0)], pa.timestamp("us"))
    file = parquet_of(tmp_path, symbol=["A"], price=[1], ts=at)
    assert times_of(file, tz="Europe/Berlin") == [ns("2024-07-01T12:00+02:00")]


@pytest.mark.parametrize(
    ("column", "text"),
    [("date", "20200102"), ("ts", "20200102"), ("Timestamp", "19991231")],
)
def test_a_date_written_as_an_integer_is_asked_about(
    tmp_path: Path, column: str, text: str
) -> None:
    file = csv_of(tmp_path, f"symbol,price,{column}", f"A,1,{text}", "A,1,20200103")
    question = (
        rf"column {column} holds {text}: is it the date {text[:4]}-.*--ts-unit yyyymmdd.*or 1970-"
        r".*--ts-unit ms"
    )
    with pytest.raises(Mistaken, match=question):
        checked(file, columns={"ts": column})
    found = times_of(file, columns={"ts": column}, ts_unit="yyyymmdd")
    assert found == [ns(text), ns("2020-01-03")]
    with pytest.raises(BadRow, match="--ts-unit yyyymmdd"):
        checked(file, columns={"ts": column}, ts_unit="ms")


@pytest.mark.parametrize(
    ("count", "unit"),
    [(1_700_000_000, "s"), (1_700_000_000_000_000, "us"), (NANOSECOND, "ns")],
)
def test_a_wrong_unit_is_told_with_the_right_one(tmp_path: Path, count: int, unit: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{count}")
    with pytest.raises(BadRow, match=f"row 1, column ts: {count} ms .*: --ts-unit {unit}"):
        checked(file)
    assert times_of(file, ts_unit=unit)[0] // 10**9 == 1_700_000_000


@pytest.mark.parametrize(
    ("lines", "options", "found"),
    [
        (["2020-01-02,09:30"], {}, "2020-01-02T09:30"),
        (["2020-01-02,09:30:00.25"], {}, "2020-01-02T09:30:00.25"),
        (["20200102,93000"], {"ts_unit": "yyyymmdd"}, "2020-01-02T09:30"),
        (["20200102,0930"], {"ts_unit": "yyyymmdd"}, "2020-01-02T09:30"),
        (["20200102,9:30"], {"ts_unit": "yyyymmdd"}, "2020-01-02T09:30"),
        (["2020.01.02,09:30"], {"ts_format": "%Y.%m.%d %H:%M"}, "2020-01-02T09:30"),
    ],
)
def test_a_date_and_a_time_of_day(
    tmp_path: Path, lines: list[str], options: dict[str, Any], found: str
) -> None:
    file = csv_of(tmp_path, "Date,Time,price", *(f"{line},1" for line in lines))
    columns = {"ts": "Date+Time"}
    assert times_of(file, columns=columns, constants={"symbol": "A"}, **options) == [ns(found)]
    half = lines[0].split(",")[0]
    both = csv_of(tmp_path, "Date,Time,price", f"{lines[0]},1", f"{half},,1")
    with pytest.raises(BadRow, match=r"row 2, column Date\+Time: is empty"):
        checked(both, columns=columns, constants={"symbol": "A"}, **options)


@pytest.mark.parametrize(
    ("text", "form", "found"),
    [
        ("24.11.2023 13:05", "%d.%m.%Y %H:%M", "2023-11-24T13:05"),
        ("11/24/23 01:05 PM", "%m/%d/%y %I:%M %p", "2023-11-24T13:05"),
        ("20231124 130546", "%Y%m%d %H%M%S", "2023-11-24T13:05:46"),
        ("20231124 130546.123", "%Y%m%d %H%M%S.%f", "2023-11-24T13:05:46.123"),
        ("20231124 130546.123456789", "%Y%m%d %H%M%S.%f", "2023-11-24T13:05:46.123456789"),
        ("24 Nov 2023 13:05 +0100", "%d %b %Y %H:%M %z", "2023-11-24T12:05"),
    ],
)
def test_formats(tmp_path: Path, text: str, form: str, found: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"A,1,{text}", f"A,1,{text}")
    assert times_of(file, ts_format=form) == [ns(found)] * 2
    bad = csv_of(tmp_path, "symbol,price,ts", f"A,1,{text}", "A,1,2023-11-24")
    with pytest.raises(BadRow, match=r"row 2, column ts: '2023-11-24' is not written as .*--ts"):
        checked(bad, ts_format=form)


def local(time: datetime) -> str:
    return time.astimezone(BERLIN).strftime("%Y-%m-%d %H:%M:%S")


@given(
    st.sampled_from([5, 15, 30]),
    st.sampled_from(
        [datetime(2023, 10, 28, 20, tzinfo=UTC), datetime(2023, 3, 25, 20, tzinfo=UTC)]
    ),
    st.booleans(),
)
def test_local_times_through_a_change_of_clocks(
    tmp_path_factory: pytest.TempPathFactory, minutes: int, start: datetime, by_symbol: bool
) -> None:
    """Bars of two symbols, one after the other or in turn, keep their instants."""
    times = [start + timedelta(minutes=minutes * i) for i in range(16 * 60 // minutes)]
    rows = [(symbol, time) for time in times for symbol in "AB"]
    if by_symbol:
        rows.sort(key=lambda row: row[0])
    lines = (f"{symbol},1,{local(time)}" for symbol, time in rows)
    file = csv_of(tmp_path_factory.mktemp("x"), "symbol,price,ts", *lines)
    exact = [int(time.timestamp()) * 10**9 for _, time in rows]
    assert times_of(file, tz="Europe/Berlin") == exact


@pytest.mark.parametrize(
    "clocks",
    [
        ["02:30"],
        ["02:10", "02:40"],
        ["01:59", "02:30", "03:01"],
        ["02:30", "02:30"],
        ["02:50", "02:40", "02:30"],
    ],
)
def test_a_time_that_happens_twice_is_named_where_nothing_tells_which(
    tmp_path: Path, clocks: list[str]
) -> None:
    lines = [f"A,1,2023-10-29 {clock}" for clock in clocks]
    file = csv_of(tmp_path, "symbol,price,ts", *lines, "A,1,2023-10-30 02:30")
    first = next(row for row, clock in enumerate(clocks, 1) if clock.startswith("02"))
    with pytest.raises(BadRow, match=rf"row {first}, column ts: 2023-10-29 02:.* happens twice"):
        checked(file, tz="Europe/Berlin")


def test_a_small_step_back_is_not_the_second_hour(tmp_path: Path) -> None:
    clocks = ["02:10:00.5", "02:10:00", "02:20:00"]
    file = csv_of(tmp_path, "symbol,price,ts", *(f"A,1,2023-10-29 {clock}" for clock in clocks))
    with pytest.raises(BadRow, match="happens twice"):
        checked(file, tz="Europe/Berlin")


def test_a_time_that_clocks_skip_is_named(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", "A,1,2024-03-31 01:59", "A,1,2024-03-31 02:30")
    with pytest.raises(BadRow, match=r"row 2, column ts: 2024-03-31 02:30.* does not exist in Eur"):
        checked(file, tz="Europe/Berlin")


def test_times_with_a_zone_of_their_own_keep_it(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", "A,1,2023-10-29T02:30:00Z", f"A,1,{TS}")
    assert times_of(file, tz="Europe/Berlin") == [ns("2023-10-29T02:30"), TS * 10**6]


@pytest.mark.parametrize("written", ["%Q", "%Y-%m-%d %", "%Y %Y"])
def test_a_format_that_python_does_not_know_is_named(tmp_path: Path, written: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", "A,1,2024-01-01")
    with pytest.raises(Mistaken, match=rf"^--ts-format '{written}': strptime does not read it"):
        checked(file, ts_format=written)


@pytest.mark.parametrize("second", ["00", "00.25", "00.123456789"])
def test_offsets_without_a_colon(tmp_path: Path, second: str) -> None:
    lines = [f"A,1,2024-01-01 00:00:{second}{zone}" for zone in ("+0000", "-0530", "-05:30")]
    found = times_of(csv_of(tmp_path, "symbol,price,ts", *lines))
    assert found == [ns(f"2024-01-01T{clock}:{second}") for clock in ("00:00", *2 * ["05:30"])]
