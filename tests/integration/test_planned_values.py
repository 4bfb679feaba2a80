"""The values that a plan shows, beside what servers would answer once it is applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from registry.definitions import Catalog
from registry.features_file import Text
from registry.lifecycle.registry import Registry
from tests.support.both_stores import Log, log_of
from tests.support.lifecycles import NEW, OLD
from tickwell.plan_lines import plan_lines
from tickwell.planned_values import VersionValues, planned_values

SECOND_MEAN = """
[[feature]]
name = "price_sma_5"
version = "2.0.0"
parent = "1.0.0"
expression = "mean(price, 3)"
"""
SECOND_SIZE = """
[[feature]]
name = "position_size"
version = "2.0.0"
parent = "1.0.0"
expression = "mean(quantity, 2)"

[[feature]]
name = "portfolio_exposure"
version = "2.0.0"
parent = "1.0.0"
parts = ["position_size@2.0.0", "position_multiplier@1.0.0", "current_price@1.0.0"]
"""
RATIO = """
[[feature]]
name = "price_ratio"
version = "1.0.0"
entity = ["symbol"]
expression = "current_price / price_sma_5 - 1"
"""
OF_NEW_SOURCE = """
[[source]]
name = "trades"
topic = "ticks.trades"
key = ["symbol"]
fields = [{ name = "last_trade" }]

[[feature]]
name = "trade"
version = "1.0.0"
source = "trades"
expression = "last(last_trade)"
"""


@pytest.fixture
def log(registry: Registry, postgres_database: str) -> Iterator[Log]:
    with log_of(registry.catalog(), postgres_database) as made:
        yield made


def shown(registry: Registry, postgres: str, added: str) -> dict[str, VersionValues]:
    plan = registry.plan(Text("new.toml", registry.export() + added))
    return {one.ref: one for one in planned_values(postgres, registry, plan)}


def prices(log: Log, symbol: str, *values: float, **more: Any) -> None:
    log.add("price", *({"symbol": symbol, "price": value, **more} for value in values))


def test_the_last_ticks_beside_the_active_version(
    log: Log, registry: Registry, postgres_database: str
) -> None:
    """Five ticks of the three entities that have ticked last, at both versions' windows."""
    for symbol in ("D", "C", "B", "A"):
        prices(log, symbol, 1, 2, 4, 8, 16, 32, 64)
    found = shown(registry, postgres_database, SECOND_MEAN)[NEW]
    assert found.active == OLD
    assert len(found.entities) == 3
    for one in found.entities:
        assert [value.value for value in one.values] == [
            *(7 / 3, 14 / 3, 28 / 3, 56 / 3, 112 / 3),
        ][:5]
        assert [(v.active_value, v.active_status) for v in one.values] == [
            (None, "warming"),
            (None, "warming"),
            (31 / 5, "ok"),
            (62 / 5, "ok"),
            (124 / 5, "ok"),
        ]


def test_a_derived_version_has_the_values_that_it_is_served_with(
    log: Log, registry: Registry, postgres_database: str
) -> None:
    prices(log, "A", 1, 2, 3, 4, 10)
    prices(log, "B", 5)
    found = shown(registry, postgres_database, RATIO)["price_ratio@1.0.0"]
    assert found.active is None
    said = {one.entity["symbol"]: one.values[0] for one in found.entities}
    assert (said["A"].value, said["A"].status) == (10 / (20 / 5) - 1, "ok")
    assert (said["B"].value, said["B"].status) == (None, "warming")


def test_a_derived_version_of_a_part_that_is_new_too(
    log: Log, registry: Registry, postgres_database: str
) -> None:
    """The new part is computed of the kept ticks; a closed position is left out, and a price that
    is not there makes the sum `missing`."""
    prices(log, "A", 100)
    prices(log, "B", 10)
    positions = [("P1", "A", 2), ("P1", "A", 4), ("P1", "B", -6), ("P1", "B", -8), ("P2", "X", 1)]
    for portfolio, symbol, quantity in (*positions, ("P2", "X", 3)):
        log.add("position", {"portfolio": portfolio, "symbol": symbol, "quantity": quantity})
    found = shown(registry, postgres_database, SECOND_SIZE)
    exposure = found["portfolio_exposure@2.0.0"]
    assert exposure.active == "portfolio_exposure@1.0.0"
    said = {one.entity["portfolio"]: one.values[0] for one in exposure.entities}
    assert (said["P1"].value, said["P1"].active_value) == (3 * 100 + 7 * 10, 4 * 100 + 8 * 10)
    assert (said["P2"].status, said["P2"].active_status) == ("missing", "missing")
    closed = {"portfolio": "P1", "symbol": "B", "quantity": 0, "op": "close"}
    log.add("position", closed)
    found = shown(registry, postgres_database, SECOND_SIZE)
    said = {o.entity["portfolio"]: o.values[0] for o in found["portfolio_exposure@2.0.0"].entities}
    assert (said["P1"].value, said["P1"].active_value) == (300, 400)


def test_what_has_no_values_says_why(log: Log, registry: Registry, postgres_database: str) -> None:
    found = shown(registry, postgres_database, OF_NEW_SOURCE + SECOND_MEAN + RATIO)
    assert {ref: (one.without, list(one.entities)) for ref, one in found.items()} == {
        "trade@1.0.0": ("its source is new", []),
        NEW: ("no tick of price is stored", []),
        "price_ratio@1.0.0": ("no entity of it has ticked", []),
    }


def test_a_plan_as_text_has_the_values_below_their_version(
    log: Log, registry: Registry, postgres_database: str
) -> None:
    prices(log, "A", 1, 2, 4, ts=1_700_000_000_000)
    plan = registry.plan(Text("new.toml", registry.export() + SECOND_MEAN))
    lines = list(plan_lines(plan, planned_values(postgres_database, registry, plan)))
    place = next(number for number, line in enumerate(lines) if f"+ {NEW}" in line)
    below = lines[place:]
    at = "2023-11-14T22:13:20.000000000Z"
    assert f"      A: warming, warming, {7 / 3!r} at {at}" in below
    assert f"        {OLD} (active): warming, warming, warming" in below


def test_nothing_in_a_plan_is_obeyed_by_a_terminal(
    log: Log, registry: Registry, postgres_database: str
) -> None:
    """Keys of ticks have no control characters; what turns the direction of a text they may."""
    prices(log, "A\u202e", 1, 2, 4)
    words = 'description = "the mean\\u001b[1A\\n  refused: all"\n'
    plan = registry.plan(Text("\x1b]0;new.toml\x07", registry.export() + SECOND_MEAN + words))
    lines = list(plan_lines(plan, planned_values(postgres_database, registry, plan)))
    assert all(line.isprintable() for line in lines)
    assert any(line.startswith(r"      A\u202e: warming") for line in lines)
    assert any(r"the mean\x1b[1A\n  refused: all" in line for line in lines)


def test_versions_beyond_the_first_ones_are_not_computed(
    log: Log, registry: Registry, postgres_database: str, recorded: Catalog
) -> None:
    prices(log, "A", 1, 2, 4)
    means = (
        f'[[feature]]\nname = "mean_{n}x"\nversion = "1.0.0"\nsource = "price"\n'
        f'expression = "mean(price, {n})"\n'
        for n in range(2, 30)
    )
    found = shown(registry, postgres_database, "\n" + "".join(means))
    assert list(found) == [f"mean_{n}x@1.0.0" for n in range(2, 22)]
