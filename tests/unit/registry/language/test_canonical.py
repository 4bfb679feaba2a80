"""What makes two versions the same one: their meaning, and nothing of how it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from registry.definitions import FeatureVersion
from registry.errors import DefinitionError
from registry.features_file import read
from registry.language.canonical import digest, editions, fields, tree

SMA = FeatureVersion("sma", "1.0.0", ("symbol",), "mean(price, 5)", source="price")
SPREAD = FeatureVersion("spread", "1.0.0", ("symbol",), "a / b - 1", parts=("a@1.0.0", "b@2.0.0"))

GOLDEN = {
    "current_price@1.0.0": "5db2d5f3fd46735a",
    "price_sma_5@1.0.0": "958912277f93d1fe",
    "price_sma_20@1.0.0": "f72e0a4ac2f3c632",
    "price_volatility@1.0.0": "49699ca078752f6f",
    "current_volume@1.0.0": "5bedbd2957e2bcb6",
    "volume_sma_10@1.0.0": "1722936dde609bc1",
    "position_size@1.0.0": "0926f3dc7b96bca2",
    "position_multiplier@1.0.0": "05f09c7f8e9f1350",
    "portfolio_exposure@1.0.0": "ac5e3d67a18794fd",
    "portfolio_exposure_net@1.0.0": "b6ff43a8ccbb2fb3",
}
"""Of the shipped file. What is recorded somewhere has these: a change here would be another
version under the same number for everybody."""


def spelled(expression: str, feature: FeatureVersion = SMA) -> bytes:
    return digest(structs.replace(feature, expression=expression))


@pytest.mark.parametrize(
    "expression", ["mean( price,5 )", "(mean(price, (5)))", "mean(price, 0x5)"]
)
def test_a_materialized_expression_in_other_words(expression: str) -> None:
    assert spelled(expression) == digest(SMA)


@pytest.mark.parametrize("expression", ["(a/b)-1", "a / b - 1.0", "((a)) / b - 1e0"])
def test_a_derived_expression_in_other_words(expression: str) -> None:
    assert spelled(expression, SPREAD) == digest(SPREAD)


def test_words_about_a_version_are_not_its_meaning() -> None:
    words = {
        "name": "other",
        "version": "9.0.0",
        "description": "A mean.",
        "owner": "desk",
        "tags": ("risk",),
        "aliases": ("average",),
        "unit": "USD",
        "parent": "0.9.0",
    }
    for name, value in words.items():
        assert digest(structs.replace(SMA, **{name: value})) == digest(SMA), name


def test_everything_else_is() -> None:
    others = [
        SMA,
        structs.replace(SMA, expression="mean(price, 6)"),
        structs.replace(SMA, expression="mean(size, 5)"),
        structs.replace(SMA, expression="last(price)"),
        structs.replace(SMA, source="quote"),
        structs.replace(SMA, entity=("venue", "symbol")),
        structs.replace(SMA, max_age_ns=1),
        SPREAD,
        structs.replace(SPREAD, expression="b / a - 1"),
        structs.replace(SPREAD, expression="a / b - 1 + 0"),
        structs.replace(SPREAD, expression="a / (b - 1)"),
        structs.replace(SPREAD, parts=("a@1.0.0", "b@2.0.1")),
        structs.replace(SPREAD, over="position"),
    ]
    assert len({digest(one) for one in others}) == len(others)


@given(st.integers(1, 1023), st.integers(1, 1023))
def test_two_windows_are_two_versions(one: int, other: int) -> None:
    same = spelled(f"mean(price, {one})") == spelled(f"mean(price, {other})")
    assert same is (one == other)


def test_what_is_in_a_tree() -> None:
    volatility = structs.replace(SMA, expression="stddev(log_return(price), 20)")
    assert tree(volatility) == ["stddev", ["log_return", ["field", "price"]], ["number", 20]]
    assert editions(volatility) == {"log_return": 1, "stddev": 1}
    assert fields(volatility) == ["price"]
    assert tree(SPREAD) == [
        "-",
        ["/", ["feature", "a@1.0.0"], ["feature", "b@2.0.0"]],
        ["number", 1.0],
    ]
    assert (editions(SPREAD), fields(SPREAD)) == ({}, [])
    with pytest.raises(DefinitionError, match="has no canonical form"):
        tree(structs.replace(SMA, expression="price[0]"))


def test_the_digests_of_what_ships_stay() -> None:
    pinned = {f.name: f.ref for f in read().features}
    found = {}
    for feature in read().features:
        if feature.derived:
            names = ("position_size", "position_multiplier", "current_price")
            feature = structs.replace(feature, parts=tuple(pinned[name] for name in names))
        found[feature.ref] = digest(feature).hex()[:16]
    assert found == GOLDEN
