"""What is in a file is what is in the topic, from CSV and Parquet alike."""

from __future__ import annotations

import gzip
import json
import math
import signal
import subprocess
import sys
from collections import deque
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from pipelines.compute.entity_slots import name_of
from pipelines.errors import PipelineError
from pipelines.produce.tick_files import BadFile, BadRow, ColumnMissing, count_rows, read_ticks
from pipelines.ticks.decoder import Decoder
from registry.definitions import Source
from registry.features_file import read
from tests.support.logs import run_of
from tests.support.pipeline import Pipeline, pipeline, wait_for

PRICE, VOLUME, POSITION = read().sources


def table(rows: int = 500) -> pa.Table:
    return pa.table(
        {
            "ticker": [f"S{i % 5}" for i in range(rows)],
            "close": [0.1 * i + 1e-9 for i in range(rows)],
            "at": [1_700_000_000_000 + i for i in range(rows)],
        }
    )


COLUMNS = {"symbol": "ticker", "price": "close", "ts": "at"}


def test_csv_and_parquet_are_the_same_ticks(tmp_path: Path) -> None:
    pyarrow.csv.write_csv(table(), tmp_path / "t.csv")
    pyarrow.parquet.write_table(table(), tmp_path / "t.parquet")
    ticks = [
        list(read_ticks(tmp_path / f"t.{kind}", PRICE, COLUMNS)) for kind in ("csv", "parquet")
    ]
    assert ticks[0] == ticks[1]
    decoded = Decoder(PRICE).decode(run_of([(t.key, t.value) for t in ticks[0]]))
    assert decoded.fields[:, 0].tolist() == table()["close"].to_pylist()
    names = [name_of(decoded.data, keys) for keys in decoded.keys]
    assert names == table()["ticker"].to_pylist()
    assert decoded.rejected == []


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_bit(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    file = tmp_path_factory.mktemp("x") / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"symbol": ["A"], "price": [number], "ts": [1]}), file)
    (tick,) = read_ticks(file, PRICE, {})
    assert json.loads(tick.value)["price"].hex() == number.hex()


def sent(file: Path, source: Source = PRICE, **columns: str) -> list[dict[str, Any]]:
    """The messages of a file, numbers as exact decimals."""
    return [
        json.loads(tick.value, parse_float=Decimal, parse_int=Decimal)
        for tick in read_ticks(file, source, columns)
    ]


def csv_of(directory: Path, *lines: str) -> Path:
    file = directory / "t.csv"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def parquet_of(directory: Path, **columns: pa.Array | list[Any]) -> Path:
    file = directory / "t.parquet"
    table = pa.table(columns)
    pyarrow.parquet.write_table(table, file, row_group_size=max(1, len(table)))
    return file


def test_mistakes(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "ticker,close,at", "A,1,soon")
    with pytest.raises(ColumnMissing, match=r"symbol.*ticker, close, at.*--map symbol=COLUMN"):
        list(read_ticks(file, PRICE, {}))
    with pytest.raises(ColumnMissing, match=r"no column last.*--map price=COLUMN"):
        list(read_ticks(file, PRICE, {**COLUMNS, "price": "last"}))
    with pytest.raises(PipelineError, match="no field bid to map; it has symbol, price"):
        list(read_ticks(file, PRICE, {**COLUMNS, "bid": "close"}))
    with pytest.raises(PipelineError, match="must end in"):
        list(read_ticks(tmp_path / "t.txt", PRICE, {}))
    twice = csv_of(tmp_path, "symbol,price,price,ts", "A,1,2,3")
    with pytest.raises(PipelineError, match="column price more than once"):
        list(read_ticks(twice, PRICE, {}))


@pytest.mark.parametrize(
    ("cells", "what"),
    [
        (",1,2,", "column symbol: is empty"),
        ('"A\t",1,2,', "column symbol: .* no control character"),
        ("A,1.2.3,2,", "column price: '1.2.3' is not a number"),
        ('A,"1,000.5",2,', "column price: '1,000.5' is not a number"),
        ("A,NaN,2,", "column price: 'NaN' is not a number"),
        ("A,1e999,2,", "column price: '1e999' is beyond the largest double"),
        ("A,,2,", "column price: is empty, and a tick needs its price"),
        ("A,1,,", "column ts: is empty"),
        ("A,1,soon,", "column ts: 'soon' is neither an integer nor a time"),
        ("A,1,2023-02-29,", "column ts: '2023-02-29' is neither"),
        ("A,1,2,x", "column seq: 'x' is not an integer"),
        ("A,1,2,1.5", "column seq: '1.5' is not an integer"),
        ("A,1,2,9223372036854775808", "column seq: .* is not an integer of 64 bits"),
    ],
)
def test_a_bad_cell_is_told_with_its_row_and_column(tmp_path: Path, cells: str, what: str) -> None:
    ticks = read_ticks(csv_of(tmp_path, "symbol,price,ts,seq", "B,1,2,3", cells), PRICE, {})
    next(ticks)
    with pytest.raises(BadRow, match=rf"t\.csv, row 2, {what}"):
        next(ticks)


@pytest.mark.parametrize(
    "symbol", ["000001", "NA", "null", "nan", "None", "TRUE", "1e5", "-", " A ", "1.0", "é€😀"]
)
def test_keys_are_text_as_it_is_written(tmp_path: Path, symbol: str) -> None:
    file = csv_of(tmp_path, "symbol,price,ts", f"{symbol},1,2")
    (tick,) = read_ticks(file, PRICE, {})
    assert (tick.key, json.loads(tick.value)["symbol"]) == (symbol.encode(), symbol)
    (tick,) = read_ticks(parquet_of(tmp_path, symbol=[symbol], price=[1], ts=[2]), PRICE, {})
    assert (tick.key, json.loads(tick.value)["symbol"]) == (symbol.encode(), symbol)


def test_a_column_may_change_from_whole_numbers_to_fractions(tmp_path: Path) -> None:
    rows = 100_000  # more than a block of any reader
    prices = [*(str(i) for i in range(rows)), "0.5"]
    # and so may one that nobody asked for
    file = csv_of(tmp_path, "symbol,price,ts,note", *(f"A,{price},1,{price}" for price in prices))
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
    (tick,) = sent(csv_of(tmp_path_factory.mktemp("x"), "symbol,price,ts", f"A,{text},1"))
    assert tick["price"] == Decimal(text.strip())


@pytest.mark.parametrize("text", [".5", "5.", "-.25e3", "1E5", "+007.50"])
def test_forms_that_json_has_not(tmp_path: Path, text: str) -> None:
    (tick,) = sent(csv_of(tmp_path, "symbol,price,ts", f"A,{text},1"))
    assert tick["price"] == Decimal(text)


def test_empty_cells_are_absent_fields(tmp_path: Path) -> None:
    header = "symbol,price,size,seq,op,ts"
    file = csv_of(tmp_path, header, "A,1,,,,2", '"A","1","3","4","trade","2"', "A,,,,reset,2")
    assert sent(file) == [
        {"symbol": "A", "price": 1, "ts": 2},
        {"symbol": "A", "price": 1, "size": 3, "seq": 4, "op": "trade", "ts": 2},
        {"symbol": "A", "op": "reset", "ts": 2},
    ]
    file = parquet_of(tmp_path, symbol=["A", "A"], price=[1, 1], size=[None, math.nan], ts=[2, 2])
    assert sent(file) == [{"symbol": "A", "price": 1, "ts": 2}] * 2


def test_a_position_that_is_closed_needs_no_quantity(tmp_path: Path) -> None:
    file = csv_of(tmp_path, "portfolio,symbol,quantity,op,ts", "P,A,7,,1", "P,A,,close,2")
    opened, closed = sent(file, POSITION)
    assert opened == {"portfolio": "P", "symbol": "A", "quantity": 7, "ts": 1}
    assert closed == {"portfolio": "P", "symbol": "A", "op": "close", "ts": 2}


@pytest.mark.parametrize(
    ("text", "ts"),
    [
        ("1700000000123", 1700000000123),
        ("1700000000123.0", 1700000000123),
        ("2020-02-29", "2020-02-29T00:00:00Z"),
        ("2020-02-29T10:11:12.123456789Z", "2020-02-29T10:11:12.123456789Z"),
        ("2020-02-29 10:11:12+02:00", "2020-02-29 10:11:12+02:00"),
        ("2020-02-29 10:11:12", "2020-02-29T10:11:12Z"),
        ("2020-02-29T10:11:12.5+02", "2020-02-29T10:11:12.5+02:00"),
        ("2020-02-29 10:11", "2020-02-29T10:11:00Z"),
    ],
)
def test_times_in_text(tmp_path: Path, text: str, ts: int | str) -> None:
    (tick,) = read_ticks(csv_of(tmp_path, "symbol,price,ts", f"A,1,{text}"), PRICE, {})
    assert json.loads(tick.value)["ts"] == ts
    assert Decoder(PRICE).decode(run_of([(tick.key, tick.value)])).rejected == []


NANOSECOND = 1_700_000_000_123_456_789


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York", "+05:30"])
def test_timestamps_of_parquet_lose_nothing(tmp_path: Path, unit: str, zone: str | None) -> None:
    count = NANOSECOND // {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    at = pa.array([count], pa.int64()).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    ticks = list(read_ticks(parquet_of(tmp_path, symbol=["A"], price=[1], ts=at), PRICE, {}))
    decoded = Decoder(PRICE).decode(run_of([(t.key, t.value) for t in ticks]))
    kept = pyarrow.parquet.read_table(tmp_path / "t.parquet")["ts"].cast(pa.timestamp("ns", zone))
    assert decoded.tick_time.tolist() == kept.cast(pa.int64()).to_pylist()
    assert decoded.rejected == []


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
    file = parquet_of(tmp_path, symbol=["A"] * len(prices), price=prices, ts=[1] * len(prices))
    exact = [Decimal(repr(v)) if isinstance(v, float) else v for v in values]
    assert [tick["price"] for tick in sent(file)] == exact


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_small_floats_widen_exactly(
    tmp_path_factory: pytest.TempPathFactory, number: float
) -> None:
    directory = tmp_path_factory.mktemp("x")
    price = pa.array([number], pa.float32())
    (tick,) = read_ticks(parquet_of(directory, symbol=["A"], price=price, ts=[1]), PRICE, {})
    assert json.loads(tick.value)["price"] == number


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_kinds_of_text_in_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    names = ["é", "000001", "é"]
    symbols = pa.array(names, pa.string()).cast(kind)
    file = parquet_of(tmp_path, symbol=symbols, price=[1, 2, 3], ts=[1, 2, 3])
    assert [tick["symbol"] for tick in sent(file)] == names


def test_dates_integers_and_whole_floats_of_parquet(tmp_path: Path) -> None:
    day = pa.array([date(2020, 2, 29)], pa.date32())
    for kind in (pa.date32(), pa.date64()):
        file = parquet_of(tmp_path, symbol=[7203], price=[1], ts=day.cast(kind), seq=[17.0])
        assert sent(file) == [
            {"symbol": "7203", "price": 1, "ts": "2020-02-29T00:00:00Z", "seq": 17}
        ]
    file = parquet_of(tmp_path, symbol=["A"], price=[1], ts=[Decimal("1700000000123")])
    assert sent(file)[0]["ts"] == 1_700_000_000_123


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"price": [True]}, "column price: True is not a number"),
        ({"price": [math.inf]}, "column price: inf is not a finite number"),
        ({"price": [None]}, "column price: is empty"),
        ({"symbol": [1.5]}, "column symbol: 1.5 is neither text nor an integer"),
        ({"symbol": [None]}, "column symbol: is empty"),
        ({"ts": [1.5]}, "column ts: 1.5 is neither an integer nor a time"),
    ],
)
def test_bad_cells_of_parquet(tmp_path: Path, columns: dict[str, Any], what: str) -> None:
    file = parquet_of(tmp_path, **{"symbol": ["A"], "price": [1], "ts": [1], **columns})
    with pytest.raises(BadRow, match=f"row 1, {what}"):
        sent(file)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08broken", b"symbol,pri\xff\xfe,ts\nA"])
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFile, match="cannot be read"):
        list(read_ticks(tmp_path / name, PRICE, {}))
    if name.endswith("parquet"):
        with pytest.raises(BadFile):
            count_rows(tmp_path / name)


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    lines = ["symbol,price,ts", *(f"A,{i},{i}" for i in range(100_000))]
    whole = gzip.compress("\n".join(lines).encode())
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    ticks = read_ticks(tmp_path / "t.csv.gz", PRICE, {})
    with pytest.raises(BadFile, match=r"after row \d+: .*ended"):
        deque(ticks, maxlen=0)


@pytest.mark.parametrize("line", ["A,1", "A,1,2,3", 'A,"1"x,2', "A," + "1" * 200_000 + ",2"])
def test_a_broken_line_of_a_csv(tmp_path: Path, line: str) -> None:
    ticks = read_ticks(csv_of(tmp_path, "symbol,price,ts", "A,1,2", line), PRICE, {})
    next(ticks)
    with pytest.raises(BadFile, match="after row 1"):
        next(ticks)


def test_a_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    file = tmp_path / "T.CSV"
    file.write_bytes('\ufeffsymbol,price,ts\r\n"A ""B"", C",1,2\r\n\r\n'.encode())
    assert sent(file) == [{"symbol": 'A "B", C', "price": 1, "ts": 2}]


PEAK_OF_READING = """
import re, sys
from itertools import islice
from pathlib import Path
from pipelines.produce.tick_files import read_ticks
from registry.features_file import read
for _ in islice(read_ticks(Path(sys.argv[1]), read().sources[0], {}), 5_000):
    pass
# ru_maxrss would count the parent that forked us
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_memory_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    """The first ticks of a row group of 100 MB take as much memory as those of a small one."""
    peaks = []
    for rows in (10_000, 5_000_000):
        numbers = np.random.default_rng(7).standard_normal(rows)
        symbols = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["A"])
        file = parquet_of(tmp_path, symbol=symbols, price=numbers, ts=np.arange(rows))
        output = subprocess.run(
            [sys.executable, "-c", PEAK_OF_READING, str(file)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(output.stdout))
    assert pyarrow.parquet.ParquetFile(file).num_row_groups == 1
    assert peaks[1] < peaks[0] + 20, f"{peaks} MiB"


@pytest.mark.timeout(240)
def test_the_command(
    tmp_path: Path, kafka: str, redis_database: str, hot_redis: str, postgres_database: str
) -> None:
    pyarrow.csv.write_csv(table(), tmp_path / "t.csv")
    with pipeline(tmp_path, kafka, redis_database, hot_redis, postgres_database) as running:
        maps = [part for field, name in COLUMNS.items() for part in ("--map", f"{field}={name}")]
        output = running.run_tickwell(
            "produce", str(tmp_path / "t.csv"), "--source", "price", *maps
        )
        assert "500 ticks are in" in output
        assert_in_topic(running)
        now = ("--as-if-now", "--rate", "20", "--limit", "5")
        output = running.run_tickwell(
            "produce", str(tmp_path / "t.csv"), "--source", "price", *maps, *now
        )
        assert "5 ticks are in" in output
        sent = [json.loads(r.value or b"") for r in running.records(running.topic("price"))]
        times = sorted(tick["ts"] for tick in sent)[-5:]
        assert all(later - earlier >= 30 for earlier, later in pairwise(times))


def assert_in_topic(running: Pipeline) -> None:
    records = running.records(running.topic("price"))
    assert len(records) == 500
    by_key: dict[bytes | None, list[float]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(json.loads(record.value or b"")["price"])
    rows = table().to_pylist()
    for key, prices in by_key.items():
        assert prices == [row["close"] for row in rows if row["ticker"].encode() == key]


@pytest.mark.timeout(240)
def test_what_was_sent_is_delivered_whatever_ends_it(
    tmp_path: Path, kafka: str, redis_database: str, hot_redis: str, postgres_database: str
) -> None:
    def delivered() -> int:
        return len(running.records(running.topic("price")))

    with pipeline(tmp_path, kafka, redis_database, hot_redis, postgres_database) as running:
        # the bad row is found long before the broker has taken what is before it
        good = [f"S{i % 5},{i},{i}" for i in range(700)]
        file = csv_of(tmp_path, "symbol,price,ts", *good, "A,,1", *good)
        produce = running.start("bad", "produce", str(file), "--source", "price")
        assert produce.wait(60) == 1
        output = " ".join((tmp_path / "bad.log").read_text().split())
        assert "row 701, column price: is empty" in output
        assert "; 700 ticks are in" in output
        assert "Traceback" not in output
        assert delivered() == 700

        file = csv_of(tmp_path, "symbol,price,ts", *good * 100)
        for number in (signal.SIGINT, signal.SIGTERM):
            before = delivered()
            name = f"stopped-{number}"
            produce = running.start(
                name, "produce", str(file), "--source", "price", "--rate", "300"
            )
            wait_for("it sends", lambda now=before: delivered() > now)
            produce.send_signal(number)
            assert produce.wait(30) == 130
            output = (tmp_path / f"{name}.log").read_text()
            assert f"stopped: {delivered() - before} ticks are in" in output
            assert "Traceback" not in output
        topic = running.topic("volume")
        admin = AdminClient({"bootstrap.servers": kafka})
        admin.delete_topics([topic])[topic].result()
        volumes = csv_of(tmp_path, "symbol,volume,ts", "A,1,1")
        with pytest.raises(AssertionError, match=r"has no topic .*: run `tickwell migrate`"):
            running.run_tickwell("produce", str(volumes), "--source", "volume")
