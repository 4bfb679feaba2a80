"""Definitions, programs, derived features, packed rows, statuses."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from registry import catalog
from registry.definitions import Catalog, RowSchema
from registry.errors import CorruptRow, DefinitionError
from registry.features_file import read
from registry.formats.entity_name import entity_id, key_values
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    CLUSTER_BUCKETS,
    bucket,
    chunks_key,
    closed_key,
    members_key,
    rows_key,
    states_key,
)
from registry.formats.row import Row, pack, unpack
from registry.formats.status import Status, worst
from registry.language.derived import compile_derived
from registry.language.program import Function, compile_program
from registry.language.terms import Part
from tests.support.shipped import changed


def test_the_shipped_file() -> None:
    definitions = read()
    names = [feature.name for feature in definitions.features]
    assert names[:4] == ["current_price", "price_sma_5", "price_sma_20", "price_volatility"]
    assert definitions.sources[0].skew_ns == 10**9
    assert definitions.features[3].aliases == ("volatility",)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('version = "1.0.0"', 'version = "1.0"', "not of the form"),
        ('name = "current_price"', 'name = "online"', "cannot be a name"),
        ('name = "current_price"', 'name = "price_sma_5"', "twice"),
        ('aliases = ["volatility"]', 'aliases = ["current_price"]', "names both"),
        ('aliases = ["volatility"]', 'aliases = ["pricesma_5"]', "differ only in `_`"),
        ('name = "current_price"', 'name = "mean"', "is a function of expressions"),
        ('"mean(price, 5)"', '"mean(price, 0)"', "is not one of"),
        ('"mean(price, 5)"', '"mean(close, 5)"', "has no field close"),
        ('"mean(price, 5)"', "\"__import__('os')\"", "is not one of"),
        ('"mean(price, 5)"', '"mean(price,"', "cannot be read"),
        ('source = "volume"', 'source = "volumes"', "there is no source volumes"),
        ("* current_price))", "* close))", "there is no feature close"),
        ("* current_price))", "* portfolio_exposure_net))", "is derived itself"),
        ("sum(abs(", "max(abs(", "may hold names"),
        ('max_age = "1m"', 'max_age = "soon"', "is not a duration"),
        ('key = ["symbol"]', 'keys = ["symbol"]', "unknown field"),
        ('topic = "ticks.volume"', 'topic = "ticks.price"', "reads the topic ticks.price already"),
    ],
)
def test_mistakes_are_reported_with_their_location(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    file = changed(tmp_path, old, new)
    with pytest.raises(DefinitionError, match=what) as error:
        read(file)
    assert str(file) in str(error.value)


def test_an_underline_between_digits_tells_names_apart(tmp_path: Path) -> None:
    names = {feature.name for feature in read(changed(tmp_path, "price_sma_5", "sma_2_0")).features}
    assert "sma_2_0" in names
    file = changed(tmp_path, '["volatility"]', '["sma_2_0", "sma_20"]')
    assert read(file).features[3].aliases == ("sma_2_0", "sma_20")


def test_a_missing_file() -> None:
    with pytest.raises(DefinitionError, match="cannot be read"):
        read(Path("/nowhere/features.toml"))


def test_a_program_is_rows_of_numbers() -> None:
    definitions = read()
    schema = RowSchema(
        1, "price", tuple(f.ref for f in definitions.features if f.source == "price")
    )
    found = Catalog(
        sources={source.name: source for source in definitions.sources},
        features={feature.ref: feature for feature in definitions.features},
        active={},
        schemas={1: schema},
        writing={"price": 1},
    )
    program = compile_program(found, schema)
    assert program.code.tolist() == [
        [Function.LAST, 0, 1],
        [Function.MEAN, 0, 5],
        [Function.MEAN, 0, 20],
        [Function.STDDEV_LOG_RETURN, 0, 20],
    ]
    assert program.lookback == 21
    assert catalog.decode(catalog.encode(found)) == found


values = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)


def part(value: float, at: int = 1, status: Status = Status.OK) -> Part:
    return Part(value, status, at)


@given(values, values)
def test_arithmetic_is_pythons(a: float, b: float) -> None:
    text = "-(a + 2 * b) / (a - b) + abs(b) * 0.5"
    got = compile_derived(text, "test").evaluate([{"a": part(a), "b": part(b)}])
    if a == b:
        assert got.status == Status.UNDEFINED
    else:
        assert got.value == eval(text, {"abs": abs}, {"a": a, "b": b})


@given(st.lists(st.tuples(values, values), min_size=1, max_size=30))
def test_exposure_is_the_sum_over_positions(positions: list[tuple[float, float]]) -> None:
    gross = compile_derived("sum(abs(size * price))", "test")
    got = gross.evaluate([{"size": part(size), "price": part(price)} for size, price in positions])
    products = [abs(size * price) for size, price in positions]
    assert got.value == pytest.approx(math.fsum(products), rel=1e-12)


def test_worst_status_oldest_time_and_no_partial_sums() -> None:
    gross = compile_derived("sum(a)", "test")
    fine, old = {"a": part(1, 5)}, {"a": part(2, 3, Status.STALE)}
    assert gross.evaluate([fine, old]) == Part(3, Status.STALE, 3)
    gone = gross.evaluate([fine, {"a": Part(math.nan, Status.MISSING, None)}])
    assert (math.isnan(gone.value), gone.status, gone.event_time) == (True, Status.MISSING, 5)
    assert gross.evaluate([]).status == Status.MISSING
    assert compile_derived("sum(a / 0)", "test").evaluate([fine]).status == Status.UNDEFINED
    assert worst([]) == Status.OK


@pytest.mark.parametrize(
    ("status", "value"),
    [(Status.STALE, 3.0), (Status.LAGGING, 3.0), (Status.WARMING, None), (Status.UNDEFINED, None)],
)
def test_a_sum_has_a_value_when_its_parts_have(status: Status, value: float | None) -> None:
    got = compile_derived("sum(a)", "test").evaluate([{"a": part(1)}, {"a": part(2, 1, status)}])
    assert got.status == status
    assert (None if math.isnan(got.value) else got.value) == value


rows = st.builds(
    Row,
    schema_id=st.integers(0, 2**32 - 1),
    event_time=st.integers(-(2**63), 2**63 - 1),
    sequence=st.integers(0, 2**63 - 1),
    known_at=st.integers(0, 2**63 - 1),
    origin=st.builds(
        Origin,
        topic_id=st.binary(min_size=16, max_size=16),
        partition=st.integers(0, 2**31 - 1),
        offset=st.integers(0, 2**63 - 1),
        index=st.integers(0, 2**31 - 1),
    ),
    status=st.just(b"\x00\x01"),
    values=st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
)


@given(rows)
def test_a_row_is_what_was_packed(row: Row) -> None:
    assert unpack(pack(row)) == row
    assert Origin.unpack(row.origin.pack()) == row.origin


@given(st.binary(max_size=100))
def test_other_bytes_are_no_row(packed: bytes) -> None:
    with contextlib.suppress(CorruptRow):
        assert pack(unpack(packed))[:1] == packed[:1]


def test_keys_of_a_message_key_share_a_slot() -> None:
    entity = entity_id(("P1", "AAPL"))
    assert key_values(entity) == ("P1", "AAPL")
    number = bucket("P1", cluster=True)
    assert bucket(entity, cluster=True) == number
    slots = {
        key_slot(key.encode())
        for key in (
            *(of("position", number) for of in (rows_key, states_key, chunks_key)),
            members_key("position", "P1"),
            closed_key("position", entity),
        )
    }
    assert len(slots) == 1
    names = [f"S{i}" for i in range(10_000)]
    assert {bucket(name, cluster=True) for name in names} == set(range(CLUSTER_BUCKETS))
    assert {bucket(name, cluster=False) for name in names} == {0}
