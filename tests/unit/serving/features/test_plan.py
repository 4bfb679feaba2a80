"""Plans: which rows a request reads, and how each of its values is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.features_file import read
from serving.errors import UnknownFeature, WrongEntity
from serving.features.lookup import Names
from serving.features.plan import DerivedRecipe, Plan, StoredRecipe, select
from serving.stores.row_store import UNAVAILABLE, Group, MemberSet, RowId
from tests.support.served import catalog_of
from tests.support.shipped import changed

NAMES = Names(catalog_of(read()))
P1 = MemberSet("position", "P1")
DESKS = """
[[source]]
name = "trade"
topic = "ticks.trade"
key = ["account", "desk", "symbol"]
fields = [{ name = "lots" }]

[[feature]]
name = "held"
version = "1.0.0"
source = "trade"
expression = "last(lots)"

[[feature]]
name = "desk_lots"
version = "1.0.0"
entity = ["account", "desk"]
over = "trade"
expression = "sum(held)"

[[feature]]
name = "twice"
version = "1.0.0"
entity = ["account", "desk", "symbol"]
expression = "held * 2"
"""


def used(plan: Plan) -> set[RowId]:
    """Every row that a recipe of a plan takes a value from."""
    found = set()
    for recipe in plan.recipes.values():
        if isinstance(recipe, StoredRecipe):
            found.add(recipe.row)
        else:
            found.update(row for rows in recipe.entities or () for row in rows.values())
    return found


def test_a_row_is_read_once_for_all_its_features() -> None:
    features = ["current_price", "price_sma_5", "current_volume", "price_sma_20"]
    entities = [{"symbol": "A"}, {"symbol": "B"}, {"symbol": "A"}]
    plan = select(NAMES, features, entities).plan({}, {})
    assert plan.rows == [
        RowId(source, (symbol,)) for symbol in "AB" for source in ("price", "volume")
    ]
    assert len(plan.recipes) == 8
    assert [answer.entity for answer in plan.answers] == entities
    assert plan.answers[0].values == plan.answers[2].values


def test_other_names_of_a_feature_are_one_value() -> None:
    names = ["volatility", "price_volatility", "price_volatility@1.0.0"]
    plan = select(NAMES, names, [{"symbol": "A"}]).plan({}, {})
    assert list(plan.recipes) == [("price_volatility@1.0.0", ("A",))]
    assert list(plan.answers[0].values) == names


def test_a_sum_has_the_rows_of_each_member_in_order() -> None:
    selection = select(
        NAMES,
        ["portfolio_exposure", "portfolio_exposure_net", "portfolio_exposure@1.0.0"],
        [{"portfolio": "P1"}] * 2,
    )
    assert selection.member_sets() == [P1]
    plan = selection.plan({P1: [("P1", "AAPL"), ("P1", "ES")]}, {})
    assert set(plan.rows) == {
        RowId("position", ("P1", "AAPL")),
        RowId("position", ("P1", "ES")),
        RowId("price", ("AAPL",)),
        RowId("price", ("ES",)),
    }
    assert len(plan.rows) == 4
    gross, net = plan.recipes.values()
    assert isinstance(gross, DerivedRecipe)
    assert isinstance(net, DerivedRecipe)
    assert gross.entities is net.entities
    assert gross.entities is not None
    assert [rows["price"].entity for rows in gross.entities] == [("AAPL",), ("ES",)]
    assert used(plan) == set(plan.rows)


def test_a_sum_reads_whether_its_members_are_closed(tmp_path: Path) -> None:
    """Also where it reads nothing else of them."""
    old = 'expression = "sum(abs(position_size * position_multiplier * current_price))"'
    names = Names(catalog_of(read(changed(tmp_path, old, 'expression = "sum(current_price)"'))))
    selection = select(names, ["portfolio_exposure"], [{"portfolio": "P1"}])
    plan = selection.plan({P1: [("P1", "AAPL")]}, {})
    assert plan.rows == [RowId("price", ("AAPL",)), RowId("position", ("P1", "AAPL"))]


def test_what_was_closed_last_is_in_a_sum_in_its_order() -> None:
    selection = select(NAMES, ["portfolio_exposure"], [{"portfolio": "P1"}])
    (group,) = selection.groups()
    assert group == Group("position", ("P1",))
    held = [("P1", "A"), ("P1", "C")]
    for closed, symbols in ((("P1", "B"), "ABC"), (("P1", "C"), "AC"), (None, "AC")):
        plan = selection.plan({P1: held}, {group: closed})
        found = [row.entity[1] for row in plan.rows if row.source == "position"]
        assert found == list(symbols)
    (recipe,) = selection.plan({P1: held}, {group: UNAVAILABLE}).recipes.values()
    assert isinstance(recipe, DerivedRecipe)
    assert recipe.entities is None


def test_members_that_are_not_known_need_no_rows() -> None:
    plan = select(NAMES, ["portfolio_exposure"], [{"portfolio": "P1"}]).plan({P1: UNAVAILABLE}, {})
    (recipe,) = plan.recipes.values()
    assert isinstance(recipe, DerivedRecipe)
    assert recipe.entities is None
    assert plan.rows == []


def test_an_entity_may_name_more_key_fields_than_its_member_set(tmp_path: Path) -> None:
    file = tmp_path / "features.toml"
    file.write_text(DESKS)
    names = Names(catalog_of(read(file)))
    selection = select(names, ["desk_lots"], [{"desk": "D1", "account": "A"}])
    (members,) = selection.member_sets()
    assert members == MemberSet("trade", "A")
    plan = selection.plan({members: [("A", "D0", "X"), ("A", "D1", "X"), ("A", "D1", "Y")]}, {})
    assert [row.entity for row in plan.rows] == [("A", "D1", "X"), ("A", "D1", "Y")]
    one = {"symbol": "X", "desk": "D1", "account": "A"}
    plan = select(names, ["twice", "held"], [one]).plan({}, {})
    assert plan.rows == [RowId("trade", ("A", "D1", "X"))]


@given(
    st.lists(
        st.sampled_from(["current_price", "volatility", "volume_sma_10", "price_sma_5"]), min_size=1
    ),
    st.lists(st.sampled_from("ABC"), min_size=1),
)
def test_rows_are_those_of_the_recipes(features: list[str], symbols: list[str]) -> None:
    plan = select(NAMES, features, [{"symbol": symbol} for symbol in symbols]).plan({}, {})
    assert len(plan.rows) == len(set(plan.rows))
    assert set(plan.rows) == used(plan)
    wanted = {identity for answer in plan.answers for identity in answer.values.values()}
    assert wanted == plan.recipes.keys()


def test_a_feature_of_another_kind_of_entity_is_refused() -> None:
    entities = [{"portfolio": "P1"}, {"symbol": "A"}]
    with pytest.raises(WrongEntity, match=r"volatility is .* \(symbol\), not of \(portfolio\)"):
        select(NAMES, ["volatility", "current_price"], entities[:1])
    with pytest.raises(WrongEntity, match=r"none of these features is of \(portfolio\)") as error:
        select(NAMES, ["volatility", "current_price"], entities)
    assert error.value.context == {"entity": ["portfolio"]}
    with pytest.raises(WrongEntity, match="position_size is") as error:
        select(NAMES, ["current_price", "position_size"], entities)
    assert error.value.context == {"feature": "position_size", "entity": ["portfolio", "symbol"]}


def test_a_name_that_no_feature_has_is_refused() -> None:
    with pytest.raises(UnknownFeature, match="near it are price_sma_5") as error:
        select(NAMES, ["price_sma_50"], [{"symbol": "A"}])
    assert error.value.context == {"feature": "price_sma_50"}
