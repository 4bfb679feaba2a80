"""Which view a feature is in, and what a reference of Feast's form means."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.features_file import read
from serving.errors import InvalidRequest, UnknownFeature
from serving.features.lookup import Names
from serving.features.views import Views
from tests.support.served import catalog_of
from tests.support.shipped import SHIPPED

DERIVED = """
[[feature]]
name = "turnover"
version = "1.0.0"
entity = ["symbol"]
expression = "current_volume * current_price"
"""


@pytest.fixture
def views(tmp_path: Path) -> Views:
    file = tmp_path / "features.toml"
    file.write_text(SHIPPED.read_text() + DERIVED)
    return Views(Names(catalog_of(read(file))))


def test_every_feature_is_in_one_view(views: Views) -> None:
    """A stored one in its source's, a sum in that of what it sums over, else the first part's."""
    found = {view: [feature.name for feature in of] for view, of in views.features.items()}
    assert found == {
        "price": ["current_price", "price_sma_5", "price_sma_20", "price_volatility"],
        "volume": ["current_volume", "volume_sma_10", "turnover"],
        "position": [
            *("position_size", "position_multiplier"),
            *("portfolio_exposure", "portfolio_exposure_net"),
        ],
    }


def test_a_service_is_named_by_the_key_fields(views: Views) -> None:
    assert set(views.services) == {"symbol", "portfolio-symbol", "portfolio"}
    assert [one.name for one in views.service("portfolio-symbol")] == [
        *("position_size", "position_multiplier")
    ]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("price:price_volatility", "price_volatility"),
        ("price:volatility", "volatility"),
        ("price:volatility@1.0.0", "volatility@1.0.0"),
        ("price@latest:price_volatility", "price_volatility"),
        ("price@:price_volatility", "price_volatility"),
    ],
)
def test_aliases_and_pins_are_names_too(views: Views, reference: str, name: str) -> None:
    view, found, feature = views.feature(reference)
    assert (view, found, feature.ref) == ("price", name, "price_volatility@1.0.0")


@pytest.mark.parametrize(
    ("reference", "error", "told"),
    [
        ("price_sma_5", InvalidRequest, "ask for price:price_sma_5"),
        ("nothing", InvalidRequest, "name features as view:feature"),
        ("volume:price_sma_5", UnknownFeature, "ask for price:price_sma_5"),
        ("prices:price_sma_5", UnknownFeature, "only price, volume, position: ask for price:"),
        ("price:price_sma_6", UnknownFeature, "price_sma_5"),
        ("price:", UnknownFeature, "there is no feature ''"),
        ("price@v1:price_sma_5", UnknownFeature, "views have no versions"),
    ],
)
def test_what_is_wrong_says_what_to_ask_for(
    views: Views, reference: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        views.feature(reference)


def test_an_unknown_service_names_those_that_exist(views: Views) -> None:
    with pytest.raises(UnknownFeature, match="only symbol, portfolio-symbol, portfolio"):
        views.service("all")
