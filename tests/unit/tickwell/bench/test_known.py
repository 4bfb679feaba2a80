"""What is asked for unless it is named, and how much hot holds."""

from __future__ import annotations

import math

import pytest

from registry.features_file import read
from tests.support.served import catalog_of
from tickwell.bench.known import Hot, features_of, kind_of, rows_an_entity
from tickwell.errors import TickwellError

CATALOG = catalog_of(read())
SYMBOL = ("symbol",)


def test_the_kind_with_most_features_is_asked_for() -> None:
    assert kind_of(CATALOG, [], None) == SYMBOL
    assert kind_of(CATALOG, ["position_size"], None) == ("portfolio", "symbol")
    assert kind_of(CATALOG, ["volatility", "price_sma_5@1.0.0"], None) == SYMBOL
    assert kind_of(CATALOG, [], "portfolio,symbol") == ("portfolio", "symbol")


def test_features_that_do_not_go_together_are_said() -> None:
    with pytest.raises(TickwellError, match="several kinds"):
        kind_of(CATALOG, ["price_sma_5", "position_size"], None)
    with pytest.raises(TickwellError, match="price_sma_6"):
        kind_of(CATALOG, ["price_sma_6"], None)
    with pytest.raises(TickwellError, match="--feature"):
        features_of(CATALOG, ("portfolio",))


def test_stored_features_are_asked_for() -> None:
    found = features_of(CATALOG, SYMBOL)
    assert set(found) >= {"current_price", "price_sma_5", "current_volume"}
    assert "portfolio_exposure" not in found
    assert rows_an_entity(CATALOG, SYMBOL) == 2  # of prices, and of volumes
    assert rows_an_entity(CATALOG, ("portfolio",)) == 1


@pytest.mark.parametrize(
    ("hot", "entities"),
    [
        (Hot(0, 1_000, 1_000, 0), math.inf),
        (Hot(0, 1_000, 1_000, 10_000), None),
        (Hot(10, 2_000, 1_000, 11_000), 50),  # a tenth is taken by ten rows, of five entities
        (Hot(100, 10_990, 1_000, 11_000), 50),  # it evicts: it has what it can have
        (Hot(1, 1_000, 1_000, 2_000), 500),
    ],
)
def test_what_hot_holds(hot: Hot, entities: float | None) -> None:
    assert hot.entities(2) == entities
