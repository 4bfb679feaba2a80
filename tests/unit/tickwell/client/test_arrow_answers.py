"""Answers in Arrow, as the server writes them, come back as what they were made of."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from serving.api.arrow import arrow
from serving.features.columns import NO_TIME
from serving.features.table import AnswerTable, ExperimentColumn, FeatureColumn
from serving.stores.row_store import Tier
from tickwell.client.arrow_answers import columns
from tickwell.client.batch import BatchFeatures

NOW = 1_700_000_001_500_000_000
OK, MISSING = 0, 5
"""Ranks of statuses."""


def written(rows: int = 2) -> bytes:
    """An answer about some entities: the first has all, the second nothing."""
    times = np.array([NOW - 500_000_001, NO_TIME])[:rows]
    ranks = np.array([OK, MISSING], np.uint8)[:rows]
    values = np.array([1.5, np.nan])[:rows]
    features = {
        name: FeatureColumn(version, "f", values, ranks)
        for name, version in {"f": "1.0.0", "g": "2.0.0"}.items()
    }
    tiers = {"f": np.array([Tier.HOT, Tier.NONE], np.uint8)[:rows]}
    entities = [{"portfolio": "P", "symbol": symbol} for symbol in "AB"[:rows]]
    return arrow(entities, AnswerTable(NOW, features, {"f": times}, tiers))


def test_an_answer_comes_back() -> None:
    found = BatchFeatures(columns(written()))
    assert found.features == ["f", "g"]
    first, second = found
    assert first.entity == {"portfolio": "P", "symbol": "A"}
    assert (first["g"].value, first["g"].status, first["g"].version) == (1.5, "ok", "2.0.0")
    assert first["f"].event_time_ns == NOW - 500_000_001
    assert first["f"].age_seconds == 0.500000001
    assert (first["f"].tier, second["f"].tier) == ("hot", None)
    nothing = second["f"]
    assert (nothing.value, nothing.event_time, nothing.age_seconds) == (None, None, None)
    assert (nothing.status, nothing.version) == ("missing", "1.0.0")


def changed(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def test_servers_that_know_more_or_less() -> None:
    """One before tiers says none, and a column that is not known is passed over."""
    table = pa.ipc.open_stream(written()).read_all()
    older = BatchFeatures(columns(changed(table.drop_columns(["f.tier"]))))
    assert [answer["f"].tier for answer in older] == [None, None]
    newer = table.append_column("f.colour", pa.array(["red", "blue"]))
    assert BatchFeatures(columns(changed(newer))).to_dict()["f"] == [1.5, None]


def test_a_feature_of_another_kind_of_entity_is_absent() -> None:
    table = pa.ipc.open_stream(written()).read_all()
    of_one = pa.array(["ok", None]).dictionary_encode()
    index = table.schema.get_field_index("g.status")
    mixed = table.set_column(index, pa.field("g.status", of_one.type), of_one)
    first, second = BatchFeatures(columns(changed(mixed)))
    assert (list(first), list(second)) == (["f", "g"], ["f"])


@pytest.mark.parametrize("body", [b"", b"{}", written()[:100]])
def test_what_is_no_such_answer_is_told(body: bytes) -> None:
    with pytest.raises(msgspec.ValidationError, match="no answer in Arrow"):
        columns(body)
    table = pa.ipc.open_stream(written()).read_all()
    without = table.replace_schema_metadata(table.schema.metadata).rename_columns(
        [name.replace("event_time", "time") for name in table.schema.names]
    )
    with pytest.raises(msgspec.ValidationError, match="no answer in Arrow"):
        columns(changed(without))


def test_what_an_experiment_has_decided_is_told_of_each_entity() -> None:
    ranks = np.zeros(2, np.uint8)
    tested = ExperimentColumn("sma", ["1.0.0", "2.0.0"], ["control", "longer"])
    features = {
        "f": FeatureColumn("1.0.0", "f", np.array([1.0, 2.0]), ranks, None, tested),
        "g": FeatureColumn("1.0.0", "f", np.array([3.0, 4.0]), ranks, "2026-01-01T00:00:00Z"),
    }
    times, tiers = {"f": np.zeros(2, np.int64)}, {"f": np.full(2, Tier.WARM, np.uint8)}
    answer = arrow([{"symbol": "A"}, {"symbol": "B"}], AnswerTable(0, features, times, tiers))
    found = BatchFeatures(columns(answer))
    assert [one["f"].version for one in found] == ["1.0.0", "2.0.0"]
    assert [one["f"].variant for one in found] == ["control", "longer"]
    assert {one["f"].experiment for one in found} == {"sma"}
    assert {one["g"].deprecated for one in found} == {"2026-01-01T00:00:00Z"}
    assert [one["g"].variant for one in found] == [None, None]
    assert found.to_dict(["variant"])["f.variant"] == ["control", "longer"]
