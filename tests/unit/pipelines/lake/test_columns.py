"""Rows as Arrow tables: times are cut downwards, nothing is NaN, every bit stays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from pipelines.lake.columns import CompleteBackfill, LakeSchema, arrow_table, lake_schemas
from pipelines.lake.day_rows import Widths, row_dtype
from pipelines.lake.errors import ColumnsAlike
from pipelines.stores.postgres.changed_days import days_of
from registry.definitions import Field, RowSchema
from tests.support.lakes import bits
from tests.support.shipped import CATALOG, SCHEMA, SOURCE

DAY_NS = 86_400 * 10**9
PLAIN = LakeSchema(SCHEMA, SOURCE, ())
TIMES = st.integers(-(2**63), 2**63 - 1)


def rows(event_times: list[int], values: list[float], statuses: list[int]) -> np.ndarray:
    made = np.zeros(len(event_times), row_dtype(2, 4, Widths()))
    made["event_time"] = event_times
    made["seq_text_length"] = -1
    made["entity"] = b"A"
    for i in range(4):
        made["features"]["value"][:, i], made["status"][:, i] = values, statuses
    made["fields"]["value"][:, 0] = values
    return made


@given(st.lists(TIMES, min_size=1))
def test_ts_is_cut_downwards(times: list[int]) -> None:
    table = arrow_table(
        LakeSchema(SCHEMA, SOURCE, ()), rows(times, [1.0] * len(times), [0] * len(times)), []
    )
    assert table["ts"].cast("int64").to_pylist() == [time // 1000 for time in times]
    assert table["event_time"].to_pylist() == times


@given(st.lists(st.tuples(st.floats(), st.integers(0, 3)), min_size=1))
def test_a_value_is_there_where_it_is_ok_and_never_nan(cells: list[tuple[float, int]]) -> None:
    values, statuses = [value for value, _ in cells], [status for _, status in cells]
    table = arrow_table(
        LakeSchema(SCHEMA, SOURCE, ()), rows([0] * len(cells), values, statuses), []
    )
    found = table["price_sma_5__v1_0_0"].to_pylist()
    for (value, status), one, field in zip(cells, found, table["price"].to_pylist(), strict=True):
        is_number = value == value
        assert bits(one) == (bits(value) if is_number and status == 0 else None)
        assert bits(field) == (bits(value) if is_number else None)


@given(st.lists(TIMES))
def test_the_days_of_event_times(times: list[int]) -> None:
    assert days_of(np.array(times, np.int64)) == sorted({time // DAY_NS for time in times})


def test_columns_that_would_be_alike_are_an_error() -> None:
    fields = Field("price"), Field("price_sma_5__v1_0_0")
    with pytest.raises(ColumnsAlike, match="price_sma_5__v1_0_0"):
        LakeSchema(SCHEMA, structs.replace(SOURCE, fields=fields), ()).arrow()


def test_a_backfill_has_columns_in_row_schemas_before_the_version() -> None:
    """Those after it was retired are without it for good."""
    refs, ref = SCHEMA.features, "late@1.0.0"
    late = structs.replace(CATALOG.features[refs[0]], name="late", version="1.0.0")
    schemas = {
        1: RowSchema(1, "price", refs),
        2: RowSchema(2, "price", (*refs, ref)),
        3: RowSchema(3, "price", refs),
    }
    known = structs.replace(CATALOG, schemas=schemas, features={**CATALOG.features, ref: late})
    found = lake_schemas(known, [CompleteBackfill(1, ref, "2026-11-24")])
    wanted = {1: (*refs, ref), 2: (*refs, ref), 3: refs}
    loaded = {-number: of_live for number, of_live in wanted.items()}
    assert {number: one.refs for number, one in found.items()} == wanted | loaded
    again = lake_schemas(known, [CompleteBackfill(1, ref, "2026-11-25")])
    assert {n for n in found if found[n].digest() != again[n].digest()} == {1, -1}
