"""What is in a file is what is in the topic, from CSV and Parquet alike."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.decode import Decoder
from pipelines.errors import PipelineError
from pipelines.produce import BadRow, ColumnMissing, read_ticks
from registry.features_file import read
from tests.acceptance.pipeline import Pipeline, pipeline
from tests.unit.test_decode import run_of

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
    assert list(decoded.entities) == table()["ticker"].to_pylist()
    assert decoded.rejected == []


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_bit(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    file = tmp_path_factory.mktemp("x") / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"symbol": ["A"], "price": [number], "ts": [1]}), file)
    (tick,) = read_ticks(file, PRICE, {})
    assert json.loads(tick.value)["price"].hex() == number.hex()


def test_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("ticker,close,at\nA,1,soon\n")
    with pytest.raises(ColumnMissing, match=r"symbol.*ticker, close, at.*--map symbol=COLUMN"):
        list(read_ticks(file, PRICE, {}))
    with pytest.raises(BadRow, match=r"row 1.*soon"):
        list(read_ticks(file, PRICE, COLUMNS))
    with pytest.raises(PipelineError, match="must end in"):
        list(read_ticks(tmp_path / "t.txt", PRICE, {}))


def test_dates_are_midnight(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("symbol,price,ts\nA,1,2020-02-29\n")
    (tick,) = read_ticks(file, PRICE, {})
    assert json.loads(tick.value)["ts"] == "2020-02-29T00:00:00Z"


@pytest.mark.timeout(240)
def test_the_command(
    tmp_path: Path, kafka: str, redis_database: str, hot_redis: str, postgres_database: str
) -> None:
    pyarrow.csv.write_csv(table(), tmp_path / "t.csv")
    with pipeline(tmp_path, kafka, redis_database, hot_redis, postgres_database) as running:
        maps = [part for field, name in COLUMNS.items() for part in ("--map", f"{field}={name}")]
        told = running.run_tickwell("produce", str(tmp_path / "t.csv"), "--source", "price", *maps)
        assert "500 ticks are in" in told
        assert_in_topic(running)
        now = ("--as-if-now", "--rate", "20", "--limit", "5")
        told = running.run_tickwell(
            "produce", str(tmp_path / "t.csv"), "--source", "price", *maps, *now
        )
        assert "5 ticks are in" in told
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
