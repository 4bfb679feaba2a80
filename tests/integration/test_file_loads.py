"""Files loaded into history, against the oracle, and what was there before them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from pipelines.load.errors import NotLoadable
from registry.database.views import create_views
from tests.oracle.features import expect
from tests.support.file_loads import (
    Asked,
    Tick,
    as_csv,
    as_parquet,
    load_files,
    loaded_rows,
    loads_at,
    records_of,
    ticks,
)
from tests.support.logs import PRICE, PRICE_FEATURES, same_double
from tests.support.past import asked, joining
from tests.support.sinks import query
from tests.support.tick_files import TS, csv_of


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


def test_a_row_is_known_when_a_column_says_so(database: str, tmp_path: Path) -> None:
    """To the first millisecond in which it was, and one that is ahead of it is from the future."""
    file = csv_of(
        tmp_path,
        "symbol,price,ts,known",
        f"A,1.5,{TS},2023-11-14T22:13:20.000000001Z",
        f"A,2.5,{TS + 5000},{TS + 5000}",
        f"A,3.5,{TS + 9000},{TS + 6000}",
    )
    done = load_files(database, [file], Asked(known_at="known"))
    assert done.rejected == {"from-the-future": 1}
    assert [(row[4], row[10]) for row in loaded_rows(database)] == [
        (TS * 10**6, (TS + 1) * 10**6),
        ((TS + 5000) * 10**6, (TS + 5000) * 10**6),
    ]


def test_rows_that_are_no_ticks_are_stored_with_their_reason(database: str, tmp_path: Path) -> None:
    """In any column, with too many cells, in time; a worker publishes none of them."""
    file = csv_of(
        tmp_path,
        "symbol,price,ts,seq",
        *(f"A,1.5,{TS},1", "B,1.5,never,1", f"C,much,{TS},1", f"D,1,{TS},1,2,3"),
        *(f"E,1.5,{TS},x", f"F,-1,{TS},1", f"A,7,{TS},1", f"G,,{TS},1"),
    )
    done = load_files(database, [file])
    assert done.rows == 2
    assert done.rejected == {"malformed": 5, "duplicate": 1}
    stored = query(
        database,
        "SELECT partition, \"offset\", reason, detail, convert_from(value, 'utf8'), topic,"
        " relayed_at FROM tickwell.rejected_ticks ORDER BY partition, reason, detail",
    )
    assert [(row[2], row[5], row[6].year) for row in stored] == [
        ("duplicate", "load:price", 1970),
        *[("malformed", "load:price", 1970)] * 5,
    ]
    malformed = [row for row in stored if row[2] == "malformed"]
    assert {(partition, offset) for partition, offset, *_ in malformed} == {
        (16, number) for number in range(5)
    }
    cells = {row[3].split(", ")[1]: json.loads(row[4]) for row in malformed}
    assert cells["row 2"] == {"symbol": "B", "price": "1.5", "ts": "never", "seq": "1"}
    (ragged,) = (found for name, found in cells.items() if name.startswith("row 4"))
    assert ragged == {"symbol": "D", "price": "1", "ts": str(TS), "seq": "1", "": ["2", "3"]}
    assert cells.keys() >= {"row 3", "row 5", "row 8"}


def test_months_are_attached_before_their_rows(database: str, tmp_path: Path) -> None:
    months = ("2019-03-31T23:59:59.999Z", "2019-04-01T00:00:00Z", "2021-12-24T12:00:00Z")
    file = csv_of(tmp_path, "symbol,price,ts", *(f"A,1.5,{month}" for month in months))
    load_files(database, [file])
    stored = query(
        database, "SELECT tableoid::regclass::text FROM tickwell.feature_rows ORDER BY event_time"
    )
    names = ("2019_03", "2019_04", "2021_12")
    assert stored == [(f"tickwell.feature_rows_{name}",) for name in names]


def test_views_and_training_sets_have_loaded_rows(
    database: str, engine: Engine, tmp_path: Path
) -> None:
    made = ticks(500)
    load_files(database, [as_csv(tmp_path, made)])
    create_views(engine)
    expected = expect(records_of(made), PRICE, PRICE_FEATURES)
    of_view = query(
        database,
        "SELECT event_time, sequence, price, price_sma_5 FROM features.price"
        " WHERE symbol = 'B' ORDER BY event_time, sequence",
    )
    rows = expected.rows[("B",)]
    assert [row[:3] for row in of_view] == [
        (row.event_time, row.sequence, row.fields[0]) for row in rows
    ]
    assert [row[3] is None for row in of_view] == [row.values[1].value is None for row in rows]
    moments = [row.known_at for row in rows[10:20]]
    with joining(database, ["current_price"]) as join:
        column = join.columns(asked(moments, symbol=["B"] * 10))["current_price"]
    known = [[row for row in rows if row.known_at <= moment][-1] for moment in moments]
    assert column.values.tolist() == [row.fields[0] for row in known]
    assert column.event_times.tolist() == [row.event_time for row in known]


def test_a_dry_run_changes_nothing(database: str, tmp_path: Path) -> None:
    done = load_files(database, [as_csv(tmp_path, ticks(500))], Asked(dry_run=True))
    assert done.rows + done.rejected["duplicate"] == 500
    assert done.bytes > 500 * 100
    assert not loads_at(database)
    tables = "feature_rows", "entities", "rejected_ticks", "load_partitions"
    assert not any(query(database, f"SELECT 1 FROM tickwell.{table} LIMIT 1") for table in tables)


def test_times_of_a_mistaken_unit_attach_no_thousand_months(database: str, tmp_path: Path) -> None:
    lines = (f"A,1.5,{40_000_000 + number * 2_700_000}" for number in range(1_400))
    file = csv_of(tmp_path, "symbol,price,ts", *lines)
    with pytest.raises(NotLoadable, match="more than 1,200"):
        load_files(database, [file], ts_unit="s")
