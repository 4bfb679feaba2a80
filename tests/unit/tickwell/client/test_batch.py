"""Every form of a batch says the same."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwell.client.batch import BatchFeatures, Detail
from tickwell.client.columns import NO_TIME, Columns, FeatureColumn, Texts
from tickwell.client.errors import ClientError
from tickwell.client.values import FeatureValue, nanoseconds, rfc_3339

DETAILS = get_args(Detail)
FIRST, LAST = 31_536_000 * 10**9, 7_258_118_400 * 10**9 - 1
"""The first and the last event time that there can be: 1971 to 2199."""

TIMES = st.integers(FIRST, LAST)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.none() | st.sampled_from(["hot", "warm", "cold", "newer"])
VALUES = st.builds(
    FeatureValue,
    value=st.none() | NUMBERS,
    status=st.sampled_from(["ok", "stale", "missing", "newer"]),
    version=st.sampled_from(["1.0.0", "2.0.0"]),
    event_time=st.none() | TIMES.map(rfc_3339),
    age_seconds=st.none() | NUMBERS,
    tier=TEXTS,
)
ROWS = st.lists(st.tuples(st.none() | VALUES, st.none() | VALUES), max_size=8)


def columns(rows: list[tuple[FeatureValue | None, ...]]) -> Columns:
    features = {name: FeatureColumn.of([row[n] for row in rows]) for n, name in enumerate("fg")}
    return Columns({"symbol": [f"S{n}" for n in range(len(rows))]}, features, len(rows))


def python(value: Any) -> Any:
    """A value of whatever library as one of Python's, None for its null."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else rfc_3339(int(value.astype(np.int64)))
    if isinstance(value, int | np.integer):
        return None if value == NO_TIME else int(value)
    return value


def stamps(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The same with event times as text, of as many digits as a datetime has."""
    return {
        name: [text and f"{text[:26]}Z" for text in values] if name.endswith("_time") else values
        for name, values in found.items()
    }


def texts(values: list[Any]) -> list[Any]:
    """Stamps of Python as text; they must have a time zone, which is UTC."""
    made = []
    for value in map(python, values):
        if isinstance(value, datetime):
            assert value.utcoffset() == UTC.utcoffset(None)
            value = (
                f"{value.replace(tzinfo=None, microsecond=0).isoformat()}.{value.microsecond:06}Z"
            )
        made.append(value)
    return made


@settings(max_examples=40)
@given(ROWS)
def test_dict_arrow_pandas_polars_and_numpy_say_the_same(
    rows: list[tuple[FeatureValue | None, ...]],
) -> None:
    batch = BatchFeatures(columns(rows))
    expected = batch.to_dict(DETAILS)
    for n, name in enumerate("fg"):
        values = [row[n] for row in rows]
        assert expected[name] == [value and value.value for value in values]
        for detail in DETAILS:
            assert expected[f"{name}.{detail}"] == [v and getattr(v, detail) for v in values]
            matrix = batch.to_numpy(detail)[:, n].tolist() if rows else []
            if detail == "event_time":
                matrix = list(batch.to_numpy(detail)[:, n]) if rows else []
            assert [python(one) for one in matrix] == expected[f"{name}.{detail}"]
        assert [python(one) for one in batch.to_numpy()[:, n]] == expected[name]
    arrow = batch.to_arrow(DETAILS)
    assert arrow.column_names == list(expected)
    whole = stamps(expected)
    pandas, polars = batch.to_pandas(DETAILS), batch.to_polars(DETAILS)
    assert list(pandas.columns) == polars.columns == list(expected)
    for name in expected:
        if name.endswith("event_time"):  # nanoseconds and all
            of_arrow = arrow[name].cast("int64").to_pylist()
            assert of_arrow == expected[f"{name}_ns"]
            assert texts(list(pandas[name].dt.to_pydatetime())) == whole[name] if rows else True
            assert texts(polars[name].to_list()) == whole[name]
            continue
        assert arrow[name].to_pylist() == expected[name]
        assert [python(value) for value in pandas[name].tolist()] == expected[name]
        assert polars[name].to_list() == expected[name]


@given(ROWS, st.integers(0, 8))
def test_parts_make_the_whole(rows: list[tuple[FeatureValue | None, ...]], cut: int) -> None:
    """And each entity has its values back, as they came."""
    whole = BatchFeatures(columns(rows))
    parts = [columns(part) for part in (rows[:cut], rows[cut:])]
    for part, first in zip(parts, (0, cut), strict=True):
        names = [f"S{first + n}" for n in range(part.rows)]
        part.keys["symbol"][:] = names
    joined = BatchFeatures(Columns.joined(parts))
    assert joined.to_dict(DETAILS) == whole.to_dict(DETAILS)
    assert [dict(answer) for answer in joined] == [
        {name: value for name, value in zip("fg", row, strict=True) if value is not None}
        for row in rows
    ]
    assert [answer.entity["symbol"] for answer in joined] == whole.to_dict()["symbol"]


@given(st.lists(st.none() | st.text("ab", max_size=2)))
def test_texts_come_back(texts: list[str | None]) -> None:
    column = Texts.of(texts)
    assert column.texts() == texts
    assert [column.text(n) for n in range(len(texts))] == texts


@given(TIMES)
def test_times_come_back(time_ns: int) -> None:
    text = rfc_3339(time_ns)
    assert nanoseconds(text) == time_ns
    assert np.datetime64(text[:-1], "ns").astype(np.int64) == time_ns
    stamp = FeatureValue(1.0, "ok", "1", event_time=text).event_datetime
    assert stamp is not None
    assert int(stamp.timestamp()) == time_ns // 10**9
    assert stamp.microsecond == time_ns % 10**9 // 1000


def test_a_batch_is_a_sequence() -> None:
    value = FeatureValue(1.0, "ok", "1")
    batch = BatchFeatures(columns([(value, None), (None, value), (value, value)]))
    assert [list(answer) for answer in batch] == [["f"], ["g"], ["f", "g"]]
    assert batch[-1].entity == {"symbol": "S2"}
    assert [answer.entity for answer in batch[1:]] == [{"symbol": "S1"}, {"symbol": "S2"}]
    with pytest.raises(IndexError):
        batch[3]


def test_what_cannot_be_converted_is_said() -> None:
    batch = BatchFeatures(columns([(None, None)]))
    with pytest.raises(ValueError, match=r"'colour'.*age_seconds"):
        batch.to_dict(["colour"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"\('status',\)"):
        batch.to_arrow("status")
    one = columns([(None, None)])
    same = BatchFeatures(one._replace(keys={"f": ["A"]}))
    with pytest.raises(ClientError, match="f is a key field and a feature"):
        same.to_arrow()
