"""Decode and kernel against the oracle, and what must not show in a result."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.compute.batch import Batch
from pipelines.compute.entity_state import EntityState, tick_dtype
from pipelines.compute.window_table import WindowTable, check_history
from pipelines.errors import HistoryTooShort
from pipelines.ticks.columns import NO_SEQ, RESET
from pipelines.ticks.decoder import Decoder
from registry.definitions import FeatureVersion, RowSchema
from registry.formats.origin import Origin
from registry.language.program import compile_program
from tests.oracle.features import OracleRow, Value, expect
from tests.oracle.messages import Record
from tests.support.examples import examples
from tests.support.logs import NOW_MS, PRICE, PRICE_FEATURES, TOPIC_ID, logs, runs, same_double
from tests.support.shipped import CATALOG, PROGRAM, SCHEMA, SOURCE
from tests.support.windows import apply_new, materialize, row_bytes, table

STATUS = {0: "ok", 1: "warming", 2: "undefined"}


def assert_row(batch: Batch, i: int, expected: OracleRow) -> None:
    assert (batch.names[batch.name[i]],) == expected.entity
    assert batch.event_time[i] == expected.event_time
    assert batch.sequence[i] == expected.sequence
    assert batch.tick_time[i] == expected.tick_time
    assert batch.seq[i] == (NO_SEQ if expected.seq is None else expected.seq)
    assert batch.op[i] == (expected.op == "reset")
    assert batch.known_at[i] == expected.known_at
    assert all(map(same_double, batch.fields[i].tolist(), expected.fields))
    for k, value in enumerate(expected.values):
        assert_value(float(batch.features[i, k]), STATUS[int(batch.status[i, k])], value)


def assert_value(value: float, status: str, expected: Value) -> None:
    if status == "undefined" and expected.status == "ok":
        # a sum of finite doubles may be past the largest one, which exact arithmetic is not
        assert expected.magnitude > 1e306
        return
    assert status == expected.status
    if expected.value is None:
        assert math.isnan(value)
    else:
        assert abs(value - expected.value) <= 1e-12 * expected.magnitude


@examples(3)
@given(logs())
def test_rows_and_rejections_are_those_of_the_oracle(records: list[Record]) -> None:
    expected = expect(records, PRICE, PRICE_FEATURES)
    (batch,) = materialize(records) or [None]
    assert {
        (0, rejection.offset, rejection.index): rejection.reason for rejection in batch.rejected
    } == expected.rejected
    rows = {row.origin: row for rows in expected.rows.values() for row in rows}
    assert len(rows) == len(batch)
    for i in range(len(batch)):
        assert_row(batch, i, rows[0, int(batch.offset[i]), int(batch.index[i])])


@examples(1.5)
@given(logs(), st.lists(st.integers(0, 60), max_size=8))
def test_batch_boundaries_do_not_show(records: list[Record], cuts: list[int]) -> None:
    whole, parts = materialize(records), materialize(records, cuts)
    assert row_bytes(whole) == row_bytes(parts)
    assert {(r.offset, r.index, r.reason) for b in whole for r in b.rejected} == {
        (r.offset, r.index, r.reason) for b in parts for r in b.rejected
    }


@examples(1)
@given(logs())
def test_what_was_applied_is_passed_over(records: list[Record]) -> None:
    decoder, windows = Decoder(SOURCE), table()
    (run,) = runs(records, ())
    ticks = decoder.decode(run)
    first, second = apply_new(windows, ticks), apply_new(windows, ticks)
    assert len(second) == 0
    accepted = {(int(o), int(i)) for o, i in zip(first.offset, first.index, strict=True)}
    assert not accepted & {(r.offset, r.index) for r in second.rejected}


def good(symbol: str, seq: int | None = None) -> bytes:
    return json.dumps({"symbol": symbol, "price": 1, "ts": NOW_MS, "seq": seq}).encode()


def test_a_mean_is_summed_from_the_oldest_value_on() -> None:
    """The order is part of what a mean is: another one may give other bits."""
    prices = [1e16, 1.0, 1.0, 1.0, 1.0]
    records = [
        Record(
            "t",
            0,
            i,
            NOW_MS,
            b"A",
            f'{{"symbol":"A","price":{price!r},"ts":{NOW_MS + i}}}'.encode(),
        )
        for i, price in enumerate(prices)
    ]
    (batch,) = materialize(records)
    mean = SCHEMA.features.index("price_sma_5@1.0.0")
    # 1e16 + 1 is 1e16 in doubles; from the newest value on, the four ones are added first
    assert batch.features[4, mean] == 1e16 / 5 != (4.0 + 1e16) / 5


def records_of(prices: Sequence[float], partition: int = 0, first: int = 0) -> list[Record]:
    return [
        Record("t", partition, i, NOW_MS, b"A", json.dumps(tick).encode())
        for i, price in enumerate(prices, first)
        for tick in [{"symbol": "A", "price": price, "ts": NOW_MS}]
    ]


def test_what_is_not_finite_is_undefined() -> None:
    """The logarithm of a price below zero, and a sum beyond the largest double."""
    (batch,) = materialize(records_of([*[1.0] * 10, -1.0, *[1.0] * 10, *[1.7e308] * 5]))
    names = [feature.partition("@")[0] for feature in SCHEMA.features]
    for row, name in ((20, "price_volatility"), (25, "price_sma_5")):
        k = names.index(name)
        assert STATUS[int(batch.status[row, k])] == "undefined"
        assert math.isnan(batch.features[row, k])
    assert set(batch.status[20].tolist()) == {0, 2}


def test_an_entity_is_of_one_partition() -> None:
    (first,) = runs(records_of([1.0, 2.0]), ())
    (second,) = runs(records_of([3.0], partition=1), ())
    decoder, windows = Decoder(SOURCE), table()
    batches = [apply_new(windows, decoder.decode(run)) for run in (first, second)]
    assert [len(batch) for batch in batches] == [2, 0]
    assert [rejection.reason for rejection in batches[1].rejected] == ["wrong-partition"]


@pytest.mark.parametrize(("later", "found"), [(63, True), (64, False)])
def test_a_duplicate_is_one_of_the_last_64_ticks(later: int, found: bool) -> None:
    records = [
        Record("t", 0, i, NOW_MS, b"A", good("A", seq))
        for i, seq in enumerate([*range(1 + later), 0])
    ]
    (batch,) = materialize(records)
    reasons = [rejection.reason for rejection in batch.rejected]
    assert reasons == (["duplicate"] if found else [])


def test_a_duplicate_is_found_although_the_first_ticks_had_no_seq() -> None:
    seqs = [None, None, 5, None, 5, 6]
    records = [Record("t", 0, i, NOW_MS, b"A", good("A", seq)) for i, seq in enumerate(seqs)]
    for cuts in ((), (1, 2, 3, 4, 5)):
        rejected = [r for batch in materialize(records, cuts) for r in batch.rejected]
        assert [(r.offset, r.reason) for r in rejected] == [(4, "duplicate")]


def test_an_entity_is_not_told_by_the_ticks_of_another() -> None:
    """It has the slot that another one had, and the store keeps few of its many ticks."""
    decoder, windows = Decoder(SOURCE), WindowTable(SOURCE, SCHEMA, PROGRAM, capacity=1)
    first = [Record("t", 0, i, NOW_MS, b"A", good("A", i)) for i in range(64)]
    second = [Record("t", 0, i, NOW_MS, b"B", good("B", i)) for i in range(65, 71)]
    again = [Record("t", 0, 71, NOW_MS, b"B", good("B", 3))]
    known = _state([((0, NO_SEQ, (1.0, 0.0)), (0, 60, 0), 700, 0, 0)])
    known = replace(known, count=701)
    between = [Record("t", 0, 64, NOW_MS, b"C", good("C"))]
    batches = [
        apply_new(windows, decoder.decode(run), {"B": known})
        for records in (first, between, second, again)
        for run in runs(records, ())
    ]
    assert [len(batch) for batch in batches] == [64, 1, 6, 1]
    assert len(windows) == 2  # of A is only the slot left, which B has


magnitudes = st.sampled_from([1e-9, 1e-3, 1.0, 100.0, 1e12])


@examples(1)
@given(
    st.lists(st.one_of(st.floats(0.5, 2), st.floats(1 - 1e-6, 1 + 1e-6)), min_size=21, max_size=50),
    st.lists(magnitudes, min_size=1, max_size=3),
)
def test_full_windows_are_those_of_the_oracle(factors: list[float], scales: list[float]) -> None:
    """Small returns and large, magnitudes side by side; every window is full at the end."""
    prices = [factor * scales[i % len(scales)] for i, factor in enumerate(factors)]
    records = [
        Record(
            "t",
            0,
            i,
            NOW_MS,
            b"A",
            f'{{"symbol":"A","price":{price!r},"ts":{NOW_MS + i}}}'.encode(),
        )
        for i, price in enumerate(prices)
    ]
    (batch,) = materialize(records)
    rows = expect(records, PRICE, PRICE_FEATURES).rows["A",]
    for i, row in enumerate(rows):
        assert_row(batch, i, row)
    assert set(batch.status[-1].tolist()) == {0}


@given(st.floats(1e-9, 1e12), st.integers(21, 40))
def test_volatility_of_a_constant_price_is_exactly_zero(price: float, n: int) -> None:
    records = [
        Record(
            "t",
            0,
            i,
            NOW_MS,
            b"A",
            f'{{"symbol":"A","price":{price!r},"ts":{NOW_MS + i}}}'.encode(),
        )
        for i in range(n)
    ]
    (batch,) = materialize(records)
    assert batch.features[-1, 3] == 0.0


def test_more_entities_than_the_table_holds() -> None:
    """Some come again and again, which must not be pushed out by those that come with them."""
    symbols = [f"S{i}" if i % 10 else f"KNOWN{i % 7}" for i in range(3000)]
    records = [Record("t", 0, i, NOW_MS, s.encode(), good(s)) for i, s in enumerate(symbols)]
    windows, decoder = WindowTable(SOURCE, SCHEMA, PROGRAM, capacity=100), Decoder(SOURCE)
    total = 0
    for run in runs(records, list(range(0, 3000, 700))):
        total += len(apply_new(windows, decoder.decode(run)))
    assert total == 3000
    assert len(windows) <= 2 * 700


@pytest.mark.parametrize("n", [2, 31, 32, 33, 64, 100])
def test_windows_may_be_longer_than_what_is_remembered(n: int) -> None:
    """And shorter; through a restart, whose state is longer than either."""
    features = [
        FeatureVersion(name, "1.0.0", ("symbol",), expression, source="price")
        for name, expression in (
            ("m", f"mean(price, {n})"),
            ("s", f"stddev(log_return(price), {n})"),
        )
    ]
    schema = RowSchema(1, "price", tuple(feature.ref for feature in features))
    catalog = msgspec.structs.replace(
        CATALOG, features={feature.ref: feature for feature in features}, schemas={1: schema}
    )
    program = compile_program(catalog, schema)
    chance = random.Random(n)
    prices = [chance.uniform(1, 2) for _ in range(3 * n + 150)]
    records = [
        Record("ticks.price", 0, place, NOW_MS, b"A", json.dumps(tick).encode())
        for place, price in enumerate(prices)
        for tick in [{"symbol": "A", "price": price, "ts": NOW_MS}]
    ]
    decoder, windows = Decoder(SOURCE), WindowTable(SOURCE, schema, program)
    before, after = runs(records, [len(records) // 2])
    batches = [apply_new(windows, decoder.decode(before))]
    rows = [
        ((0, NO_SEQ, fields), (0, place, 0), place, 0, int(batches[0].event_time[place]))
        for place, fields in enumerate(batches[0].fields)
    ]
    windows.forget_all()
    batches.append(apply_new(windows, decoder.decode(after), {"A": _state(rows)}))
    found = np.concatenate([batch.features for batch in batches])
    returns = np.diff(np.log(prices))
    for end in range(n, len(prices)):
        mean = math.fsum(prices[end - n + 1 : end + 1]) / n
        deviation = np.std(returns[end - n : end], ddof=1)
        assert found[end] == pytest.approx([mean, deviation], rel=1e-12)


def test_an_unknown_entity_is_an_error() -> None:
    (run,) = runs([Record("t", 0, 0, NOW_MS, b"A", good("A"))], ())
    ticks, windows = Decoder(SOURCE).decode(run), table()
    with pytest.raises(KeyError):
        windows.apply(ticks, windows.touch(ticks))


def test_columns_have_the_kernel_types() -> None:
    (batch,) = materialize([Record("t", 0, 0, NOW_MS, b"A", good("A"))])
    assert batch.name.dtype == np.int32
    assert batch.status.dtype == np.uint8


@st.composite
def long_logs(draw: st.DrawFn) -> list[Record]:
    """Good ticks of one entity, enough to fill every window and the ring, now and then a reset."""
    chance = random.Random(draw(st.integers()))
    return [
        Record("ticks.price", 0, place, NOW_MS, b"A", json.dumps(tick).encode())
        for place in range(draw(st.integers(20, 150)))
        for tick in [{"symbol": "A", "price": chance.uniform(1, 2), "ts": NOW_MS}]
        if chance.random() > 0.01 or not tick.update(op="reset")
    ]


@given(logs() | long_logs(), st.lists(st.integers(0, 150), max_size=6))
def test_a_state_that_is_stored_and_restored_shows_nowhere(
    records: list[Record], cuts: list[int]
) -> None:
    """Each run by a worker that knows nothing but the rows so far, as after a restart."""
    decoder, rows = Decoder(SOURCE), dict[str, list[tuple[Any, ...]]]()
    batches = []
    for run in runs(records, cuts):
        known = {entity: _state(rows[entity]) for entity in rows}
        batch = apply_new(table(), decoder.decode(run), known)
        batches.append(batch)
        for i in range(len(batch)):
            rows.setdefault(batch.names[batch.name[i]], []).append(
                (
                    (batch.tick_time[i], batch.seq[i], batch.fields[i]),
                    (batch.run.partition, int(batch.offset[i]), int(batch.index[i])),
                    int(batch.sequence[i]),
                    int(batch.op[i]),
                    int(batch.event_time[i]),
                )
            )
    assert row_bytes(batches) == row_bytes(materialize(records))


def _state(rows: list[tuple[Any, ...]]) -> EntityState:
    ticks = np.array([row[0] for row in rows], tick_dtype(2))
    resets = [place for place, row in enumerate(reversed(rows)) if row[3] == RESET]
    return EntityState(
        origin=Origin(TOPIC_ID, *rows[-1][1]),
        sequence=rows[-1][2],
        event_time=rows[-1][4],
        count=len(rows),
        fill=resets[0] if resets else len(rows),
        ticks=ticks,
    )


@pytest.mark.parametrize(("lookback", "depth"), [(21, 64), (64, 64), (101, 101)])
def test_a_source_that_keeps_fewer_ticks_than_are_needed_is_told(lookback: int, depth: int) -> None:
    """Those that may come again are needed too."""
    for history in (depth - 1, depth):
        source = msgspec.structs.replace(SOURCE, history=history)
        program = replace(PROGRAM, source=source, lookback=lookback)
        if history == depth:
            check_history(program)
            continue
        with pytest.raises(HistoryTooShort, match=f"of price are fewer than the {depth} .*apply"):
            check_history(program)
