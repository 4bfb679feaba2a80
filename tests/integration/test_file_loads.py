"""Files loaded into history, against the oracle, and what was there before them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.oracle.features import expect
from tests.oracle.messages import Record
from tests.support.file_loads import Asked, load_files, loaded_rows, loads_at
from tests.support.logs import PRICE, PRICE_FEATURES, same_double
from tests.support.sinks import query
from tests.support.tick_files import TS, csv_of, parquet_of

Tick = tuple[str, float, int, int | None]


def ticks(n: int, seed: int = 1, symbols: str = "ABCDEFGH", first: int = TS) -> list[Tick]:
    """Ticks in any order of time; some at one time, some doubled."""
    chance = random.Random(seed)
    made: list[Tick] = []
    for number in range(n):
        seq = chance.choice([None, None, chance.randrange(4)])
        ts = first + 1000 * (number // 9) + chance.choice([0, 0, 250])
        made.append((chance.choice(symbols), chance.uniform(1, 2), ts, seq))
    chance.shuffle(made)
    return made


def as_csv(directory: Path, made: list[Tick], name: str = "t.csv") -> Path:
    lines = [",".join("" if cell is None else str(cell) for cell in tick) for tick in made]
    return csv_of(directory, "symbol,price,ts,seq", *lines, name=name)


def as_parquet(directory: Path, made: list[Tick]) -> Path:
    symbol, price, ts, seq = zip(*made, strict=True)
    stamps = pa.array(list(ts), pa.timestamp("ms", "UTC"))
    return parquet_of(directory, symbol=list(symbol), price=list(price), ts=stamps, seq=list(seq))


def in_order(made: list[Tick]) -> list[Tick]:
    """By entity, time, sequence number (none comes first), and input."""
    return sorted(made, key=lambda t: (t[0], t[2], -(2**63) if t[3] is None else t[3]))


def records_of(made: list[Tick], delay_ms: int = 250) -> list[Record]:
    """The log that a broker would have had, had it got the ticks in their order."""
    return [
        Record("ticks.price", 0, offset, ts + delay_ms, symbol.encode(), _json(symbol, price, ts, seq))
        for offset, (symbol, price, ts, seq) in enumerate(in_order(made))
    ]


def _json(symbol: str, price: float, ts: int, seq: int | None) -> bytes:
    of_seq = "" if seq is None else f', "seq": {seq}'
    return f'{{"symbol": "{symbol}", "price": {price!r}, "ts": {ts}{of_seq}}}'.encode()


def assert_as_expected(postgres: str, made: list[Tick], delay_ms: int = 250) -> None:
    """The rows are what the oracle makes of the sorted ticks, which shares no code with us."""
    expected = expect(records_of(made, delay_ms), PRICE, PRICE_FEATURES)
    stored = query(
        postgres,
        "SELECT entity, event_time, sequence, tick_time, seq, fields, features, status, known_at"
        " FROM tickwell.feature_rows WHERE schema_id < 0 ORDER BY entity, event_time, sequence",
    )
    rows = [row for entity in sorted(expected.rows) for row in expected.rows[entity]]
    assert len(stored) == len(rows) > 0
    for found, row in zip(stored, rows, strict=True):
        entity, event_time, sequence, tick_time, seq, fields, features, status, known_at = found
        assert (entity,) == row.entity
        assert (event_time, sequence, tick_time, seq, known_at) == (
            *(row.event_time, row.sequence, row.tick_time, row.seq, row.known_at),
        )
        assert fields[0] == row.fields[0]
        for value, code, wanted in zip(features, bytes(status), row.values, strict=True):
            assert STATUSES[code] == wanted.status
            if wanted.value is not None:
                assert same_double(value, wanted.value) or abs(value - wanted.value) <= (
                    1e-12 * wanted.magnitude
                )


STATUSES = {0: "ok", 1: "warming", 2: "undefined"}


@pytest.mark.parametrize("kind", [as_csv, as_parquet])
def test_rows_are_those_of_a_log_in_the_order_of_time(
    database: str, tmp_path: Path, kind: Any
) -> None:
    made = ticks(3_000)
    done = load_files(database, [kind(tmp_path, made)])
    assert_as_expected(database, made)
    (load,) = loads_at(database)
    assert load.finished_at is not None
    assert load.rows == done.rows == len(loaded_rows(database))
    assert load.rejected == sum(done.rejected.values()) == done.rejected["duplicate"] > 0
    assert load.rows + load.rejected == load.offsets == load.ends == 3_000
