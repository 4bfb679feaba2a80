"""Versions in the words of a file, and what each takes from its parent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.definitions import FeatureVersion
from registry.errors import DefinitionError
from registry.feature_tables import Versions

SETTINGS = ("expression", "source", "over", "parts", "unit", "owner")
RECORDED = FeatureVersion(
    "f", "0.0.0", ("symbol",), "last(price)", source="price", unit="USD", owner="ann"
)


class Asked(dict[str, Any]):
    """A table that counts how often it is asked for its parent."""

    times = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.times += key == "parent"
        return super().get(key, default)


@st.composite
def forests(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Versions whose parents come before them, or are recorded, or are none; in any order."""
    tables: list[dict[str, Any]] = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        said = draw(st.dictionaries(st.sampled_from(SETTINGS), st.sampled_from(["a", "b"])))
        if "source" in said:
            said.pop("over", None)
        table: dict[str, Any] = {**said, "name": "f", "version": f"{number}.0.0"}
        parent = draw(st.integers(-1, number - 1))
        if parent >= 0:
            table["parent"] = f"{parent}.0.0"
        tables.append(table)
    return draw(st.permutations(tables))


def one_by_one(tables: list[dict[str, Any]], table: Mapping[str, Any]) -> dict[str, Any]:
    """What a version is, said in the plainest way: its own words over what its parent is."""
    parent = table.get("parent")
    whole: dict[str, Any] = {}
    if parent == "0.0.0":
        whole = {"expression": "last(price)", "source": "price", "unit": "USD", "owner": "ann"}
    elif parent is not None:
        (above,) = [one for one in tables if one["version"] == parent]
        whole = one_by_one(tables, above)
    whole.pop("source" if "over" in table else "", None)
    whole.pop("over" if "source" in table else "", None)
    if "expression" in table and "parts" not in table:
        whole.pop("parts", None)
    return {**whole, **table}


@given(forests())
def test_a_version_is_what_it_says_over_what_its_parent_is(tables: list[dict[str, Any]]) -> None:
    """Whatever is asked for first: the order of a file says nothing."""
    versions = Versions(tables, {RECORDED.ref: RECORDED}, "file")
    for table in tables:
        found = {name: value for name, value in versions.whole(table).items() if value is not None}
        assert found == one_by_one(tables, table)


def test_a_chain_of_parents_is_followed_once() -> None:
    """And not once for each version that descends from it, of which there may be thousands."""
    n = 300
    tables = [Asked(name="f", version="1.0.0", expression="last(price)", source="price")]
    tables += [Asked(name="f", version=f"{i}.0.0", parent=f"{i - 1}.0.0") for i in range(2, n + 1)]
    for order in (tables, tables[::-1]):
        for table in tables:
            table.times = 0
        versions = Versions(list(order), {}, "file")
        for table in order:
            assert versions.whole(table)["source"] == "price"
        assert sum(table.times for table in tables) <= 4 * n


@pytest.mark.parametrize(
    "parents", [{1: 1}, {1: 2, 2: 1}, {1: 2, 2: 3, 3: 4, 4: 2}], ids=["itself", "two", "below"]
)
def test_parents_in_a_circle(parents: dict[int, int]) -> None:
    tables: list[dict[str, Any]] = [
        {"name": "f", "version": f"{version}.0.0", "parent": f"{parent}.0.0"}
        for version, parent in parents.items()
    ]
    versions = Versions(tables, {}, "file")
    for table in tables:
        with pytest.raises(DefinitionError, match=r"f@\d\.0\.0 is a parent of itself"):
            versions.whole(table)


def test_a_parent_that_is_nowhere() -> None:
    tables: list[dict[str, Any]] = [
        {"name": "f", "version": "2.0.0", "parent": "1.0.0"},
        {"name": "f", "version": "1.0.0", "parent": "0.9.0"},
    ]
    with pytest.raises(DefinitionError, match=r"its parent f@0\.9\.0 is neither"):
        Versions(tables, {}, "file").whole(tables[0])
