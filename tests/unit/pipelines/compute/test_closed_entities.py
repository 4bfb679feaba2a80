"""What a close does to windows and rows, through restarts, against the oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.compute.batch import Batch
from pipelines.compute.entity_state import EntityState, fill_of, tick_dtype
from pipelines.ticks.columns import CLOSE, RESET, TRADE
from pipelines.ticks.decoder import Decoder
from registry.definitions import FeatureVersion, RowSchema
from registry.features_file import read
from registry.formats.origin import Origin
from registry.formats.row import ValueStatus
from registry.formats.state import CLOSED
from registry.language.program import compile_program
from tests.oracle.features import Feature, expect
from tests.oracle.messages import Record
from tests.support.examples import examples
from tests.support.logs import NOW_MS, POSITION, TOPIC_ID, position_logs, runs
from tests.support.shipped import CATALOG
from tests.support.windows import Computed, apply_new, materialize, row_bytes, table

FEATURES = (
    Feature("last", "last", 0, 1),
    Feature("mean", "mean", 0, 3),
    Feature("volatility", "volatility", 0, 2),
)
EXPRESSIONS = ("last(quantity)", "mean(quantity, 3)", "stddev(log_return(quantity), 2)")
DEPTH = 64
"""Ticks that a store gives back."""


def positions() -> Computed:
    source = read().sources[2]
    versions = [
        FeatureVersion(feature.name, "1.0.0", source.key, text, source="position")
        for feature, text in zip(FEATURES, EXPRESSIONS, strict=True)
    ]
    schema = RowSchema(1, "position", tuple(version.ref for version in versions))
    catalog = msgspec.structs.replace(
        CATALOG,
        sources={"position": source},
        features={version.ref: version for version in versions},
    )
    return Computed(source, schema, compile_program(catalog, schema))


POSITIONS = positions()


def log_of(*operations: str) -> list[Record]:
    """Ticks of one position, one a record; a trade is of quantity 7."""
    tick = {"portfolio": "P", "symbol": "A", "quantity": 7, "ts": NOW_MS}
    return [
        Record(
            *("ticks.position", 0, n, NOW_MS, b"P"), json.dumps(tick | {"op": operation}).encode()
        )
        for n, operation in enumerate(operations)
    ]


def assert_rows(batches: Sequence[Batch], records: Sequence[Record]) -> None:
    """Rows have the status and the value of the oracle's."""
    rows = expect(records, POSITION, FEATURES).rows.values()
    wanted = {row.origin[1:]: row for entity in rows for row in entity}
    found = 0
    for batch in batches:
        for i in range(len(batch)):
            found += 1
            for k, value in enumerate(wanted[int(batch.offset[i]), int(batch.index[i])].values):
                assert ValueStatus(batch.status[i, k]).name.lower() == value.status
                if value.value is None:
                    assert math.isnan(batch.features[i, k])
                else:
                    close = 1e-12 * value.magnitude
                    assert batch.features[i, k] == pytest.approx(value.value, rel=0, abs=close)
    assert found == len(wanted)


@examples(2)
@given(position_logs(), st.lists(st.integers(0, 40), max_size=4))
@example(log_of("close", "trade", "trade", "close", "reset", "trade"), [2, 5])
def test_rows_are_those_of_the_oracle(records: list[Record], cuts: list[int]) -> None:
    batches = materialize(records, cuts, POSITIONS)
    assert_rows(batches, records)
    assert row_bytes(batches) == row_bytes(materialize(records, (), POSITIONS))


@examples(2)
@given(position_logs(), st.lists(st.integers(0, 40), max_size=6))
@example(log_of("trade", "close", *["reset"] * 80, "trade", "trade"), [1, 2, 3, 70, 82])
def test_a_state_that_is_restored_from_rows_shows_nowhere(
    records: list[Record], cuts: list[int]
) -> None:
    """Each run by a worker that knows nothing but the newest rows of before."""
    decoder, rows = Decoder(POSITIONS.source), dict[str, list[Any]]()
    batches = []
    for run in runs(records, cuts):
        known = {entity: state_of(rows[entity][-DEPTH:]) for entity in rows}
        batch = apply_new(table(POSITIONS), decoder.decode(run), known)
        batches.append(batch)
        for i in range(len(batch)):
            rows.setdefault(batch.names[batch.name[i]], []).append((batch, i))
    assert row_bytes(batches) == row_bytes(materialize(records, (), POSITIONS))


def state_of(rows: Sequence[tuple[Batch, int]]) -> EntityState:
    """The state after these rows, oldest first, as a store makes it of them."""
    ticks = np.empty(len(rows), tick_dtype(2))
    for n, (batch, i) in enumerate(rows):
        ticks[n] = (batch.tick_time[i], batch.seq[i], tuple(batch.fields[i]))
    newest, i = rows[-1]
    return EntityState(
        origin=Origin(TOPIC_ID, 0, int(newest.offset[i]), int(newest.index[i])),
        sequence=int(newest.sequence[i]),
        event_time=int(newest.event_time[i]),
        count=len(rows),
        fill=fill_of(np.array([batch.op[i] for batch, i in rows]), newest.status[i].tobytes()),
        ticks=ticks,
    )


def test_only_a_trade_ends_a_close() -> None:
    (batch,) = materialize(
        log_of("trade", "close", "reset", "close", "trade", "reset"), (), POSITIONS
    )
    names = [ValueStatus(status).name for status in batch.status[:, 0].tolist()]
    assert names == ["OK", "CLOSED", "CLOSED", "CLOSED", "OK", "WARMING"]
    assert batch.fill.tolist() == [0]


@pytest.mark.parametrize(
    ("ops", "status", "fill"),
    [
        ([TRADE, TRADE], ValueStatus.OK, 2),
        ([TRADE, RESET, TRADE, TRADE], ValueStatus.WARMING, 2),
        ([CLOSE, TRADE], ValueStatus.OK, 1),
        ([TRADE, RESET], ValueStatus.WARMING, 0),
        ([TRADE, CLOSE], ValueStatus.CLOSED, CLOSED),
        ([RESET] * 3, ValueStatus.CLOSED, CLOSED),
    ],
)
def test_what_is_in_the_windows_is_known_of_ops_and_the_newest_status(
    ops: list[int], status: ValueStatus, fill: int
) -> None:
    assert fill_of(np.array(ops), bytes([status] * 2)) == fill
