"""A split of labelled rows by time: against the definition, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.history.splitting import NAMES, shares
from tests.support.examples import examples
from tickwell import split_by_time
from tickwell.client.errors import ClientError

AT = 50
SECOND = 10**9


def share_of(moment: int, label_end: int, at: int, embargo: int) -> str:
    """By the definition: the test is what begins at `at`, the gap behind it is the embargo."""
    if moment < at:
        return "purged" if label_end >= at else "train"
    return "embargo" if moment < at + embargo else "test"


rows = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 30)), max_size=30)


@examples(5)
@given(rows, st.integers(0, 20))
def test_each_row_is_where_the_definition_puts_it(
    rows: list[tuple[int, int]], embargo: int
) -> None:
    moments = np.array([moment for moment, _ in rows], np.int64)
    ends = np.array([moment + span for moment, span in rows], np.int64)
    found = [NAMES[share] for share in shares(moments, ends, AT, embargo).tolist()]
    assert found == [share_of(m, m + span, AT, embargo) for m, span in rows]
    known = {end for end, share in zip(ends.tolist(), found, strict=True) if share == "train"}
    tested = {m for m, share in zip(moments.tolist(), found, strict=True) if share == "test"}
    assert not known or max(known) < AT <= min(tested, default=AT)


def test_the_longest_embargo_leaves_no_test() -> None:
    moments = np.array([2**62, AT], np.int64)
    found = shares(moments, moments, AT, 2**63 - 1)
    assert [NAMES[share] for share in found.tolist()] == ["embargo", "embargo"]


def test_a_label_that_ends_before_its_moment_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="row 8 ends before"):
        shares(np.array([1, 5, 9]), np.array([1, 4, 9]), AT, 0, first=7)


def frame() -> pd.DataFrame:
    index = pd.Index([f"r{n % 3}" for n in range(10)], name="mine")
    moments = pd.to_datetime(np.arange(10) * SECOND, utc=True)
    return pd.DataFrame(
        {
            "timestamp": moments,
            "known": moments + pd.Timedelta("1s"),
            "x": np.arange(10, dtype=np.float64),
        },
    ).set_index(index)


def numbers(found: Any) -> list[float]:
    if isinstance(found, pd.DataFrame):
        assert found.index.name == "mine"
        return [float(x) for x in found["x"]]
    table = found.to_arrow_table() if hasattr(found, "to_arrow_table") else found
    table = table.to_arrow() if isinstance(table, pl.DataFrame) else table
    return [float(x) for x in table.column("x").to_pylist()]


def test_each_kind_of_frame_comes_back_in_two() -> None:
    of_pandas = frame()
    table = pa.Table.from_pandas(of_pandas, preserve_index=False)
    at, text = datetime.fromtimestamp(5, UTC), "1970-01-01T01:00:05+01:00"
    for one in (of_pandas, table, pl.from_arrow(table), duckdb.from_arrow(table)):
        for moment, embargo in ((at, "2s"), (text, timedelta(seconds=2))):
            train, test = split_by_time(one, at=moment, label_end_col="known", embargo=embargo)
            assert type(train) is type(test) is type(one)
            assert (numbers(train), numbers(test)) == ([0, 1, 2, 3], [7, 8, 9])
        train, test = split_by_time(one, at=at, label_end_col="timestamp")
        assert (numbers(train), numbers(test)) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])


def test_what_is_wrong_is_said() -> None:
    at = datetime.fromtimestamp(5, UTC)
    with pytest.raises(TypeError, match="label_end_col"):
        split_by_time(frame(), at=at)  # type: ignore[call-arg]
    with pytest.raises(ClientError, match="no column"):
        split_by_time(frame(), at=at, label_end_col="nowhere")
    with pytest.raises(ClientError, match="no column"):
        split_by_time(pl.DataFrame({"timestamp": [at]}), at=at, label_end_col="nowhere")
    with pytest.raises(ClientError, match="time zone"):
        split_by_time(frame(), at=datetime(1970, 1, 1), label_end_col="known")
    with pytest.raises(ClientError, match="embargo"):
        split_by_time(frame(), at=at, label_end_col="known", embargo="-1s")
    with pytest.raises(ClientError, match="ends before"):
        split_by_time(frame(), "known", at=at, label_end_col="timestamp")
    naive = frame().assign(known=lambda one: one["known"].dt.tz_localize(None))
    with pytest.raises(ClientError, match="time zone"):
        split_by_time(naive, at=at, label_end_col="known")
    train, _ = split_by_time(naive, at=at, label_end_col="known", timezone="UTC")
    assert len(train) == 4
