"""What a plan says of readers, costs and what stays; `test_recorded_versions` has the rest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert

from registry.database.tables import usage
from registry.features_file import Text, text_of
from registry.lifecycle.plan import Plan
from registry.lifecycle.plan_page import PlannedReaders
from registry.lifecycle.registry import Registry
from tests.support.lifecycles import MOMENTUM, NEW, OLD, SMA
from tickwell.plan_lines import plan_lines

VOLATILITY = "price_volatility@1.0.0"
NEWER_SMA = """
[[feature]]
name = "price_sma_5"
version = "2.0.0"
parent = "1.0.0"
expression = "mean(price, 6)"
"""
RATIO = """
[[feature]]
name = "price_ratio"
version = "{}"
entity = ["symbol"]
expression = "price_sma_5 / price_sma_20"
"""


def read_by(registry: Registry, ref: str, consumers: Mapping[str, int], days_ago: float) -> None:
    """Put reads on record: so many of each consumer, on a day."""
    name, version = ref.split("@")
    at = datetime.now(UTC) - timedelta(days=days_ago)
    with registry.engine.begin() as connection:
        for consumer, reads in consumers.items():
            row = {"name": name, "version": version, "consumer": consumer, "reads": reads}
            connection.execute(insert(usage).values(**row, day=at.date(), last_read=at))


def planned(registry: Registry, added: str) -> Plan:
    return registry.plan(Text("new.toml", registry.export() + added))


def concerned(plan: Plan) -> dict[str, PlannedReaders]:
    return {one.ref: one for one in plan.page.read}


def test_who_reads_what_a_new_version_would_replace(registry: Registry) -> None:
    """Those of the last seven days, with the values a day, the most read first."""
    read_by(registry, OLD, {"slow-net": 7, "fast-net": 700}, 1)
    read_by(registry, OLD, {"fast-net": 70}, 2)
    read_by(registry, OLD, {"old-net": 999, "fast-net": 10**6}, 8)
    read_by(registry, "price_sma_20@1.0.0", {"other-net": 5}, 1)
    plan = planned(registry, NEWER_SMA)
    assert concerned(plan).keys() == {OLD}
    found = concerned(plan)[OLD]
    assert [(one.consumer, one.reads_a_day) for one in found.readers] == [
        ("fast-net", 110.0),
        ("slow-net", 1.0),
    ]
    assert found.more == 0
    assert plan.made_at - found.readers[0].last_read < timedelta(days=1, minutes=5)
    assert NEW in found.why
    said = "\n".join(plan_lines(plan, []))
    assert f"plan of serial {plan.serial}: new.toml" in said
    assert f"read: {OLD} by fast-net (110.0 values a day, last " in said


def test_readers_are_bounded_and_the_rest_is_counted(registry: Registry) -> None:
    read_by(registry, OLD, {f"net-{number}": number for number in range(1, 10)}, 1)
    plan = planned(registry, NEWER_SMA)
    found = concerned(plan)[OLD]
    assert [one.consumer for one in found.readers] == [f"net-{n}" for n in (9, 8, 7, 6, 5)]
    assert found.more == 4
    assert any(line.endswith(f" and 4 more: {found.why}") for line in plan_lines(plan, []))


def test_who_reads_a_derived_version_of_it(registry: Registry) -> None:
    """It is read without its parts: nobody would be named else."""
    registry.apply(Text("ratio.toml", registry.export() + RATIO.format("1.0.0")))
    read_by(registry, "price_ratio@1.0.0", {"net": 70}, 1)
    found = concerned(planned(registry, NEWER_SMA))
    assert found["price_ratio@1.0.0"].why == f"it is computed of {OLD}, and keeps to it"


def test_who_reads_the_parts_of_a_new_derived_version(registry: Registry) -> None:
    read_by(registry, OLD, {"net": 70}, 1)
    found = concerned(planned(registry, RATIO.format("1.0.0")))
    assert found[OLD].why == "price_ratio@1.0.0 is computed of it"


def test_who_reads_what_is_said_otherwise(registry: Registry) -> None:
    """Another unit, once there was one, and a name less; a first unit concerns nobody."""
    shipped = text_of(None).text

    def found(was: str, now: str) -> str | None:
        assert was in shipped
        one = concerned(registry.plan(Text("new.toml", shipped.replace(was, now)))).get(VOLATILITY)
        return None if one is None else one.why

    read_by(registry, VOLATILITY, {"net": 70}, 1)
    alias = 'aliases = ["volatility"]'
    assert found(alias, 'aliases = ["other"]') == "it is not called volatility any more"
    assert found(alias, f'{alias}\nunit = "1"') is None
    shipped = shipped.replace(alias, f'{alias}\nunit = "1"')
    registry.apply(Text("unit.toml", shipped))
    assert found('unit = "1"', 'unit = "%"') == "it is said to be in `%` instead of `1`"


def test_what_the_file_does_not_name_stays(registry: Registry) -> None:
    """The active versions first, and sets; what is retired is gone already."""
    registry.apply(Text("sets.toml", registry.export() + MOMENTUM + NEWER_SMA))
    registry.create_feature_version(SMA, "3.0.0", {"expression": "mean(price, 7)"}, "1.0.0")
    registry.deprecate(f"{SMA}@3.0.0")
    registry.retire(f"{SMA}@3.0.0")
    declared = registry.export(["price_sma_20"])
    plan = registry.plan(Text("less.toml", declared))
    recorded = {ref for ref in registry.catalog().features if not ref.startswith("price_sma_20@")}
    left = plan.page.undeclared
    assert set(left) == (recorded - {f"{SMA}@3.0.0"}) | {"set:momentum@1"}
    assert left.index(NEW) == len(left) - 2, "it alone is not active"
    (sentence,) = [text for text in plan.page.stays if "does not declare" in text]
    assert "current_price@1.0.0 (active)" in sentence
    assert f"and {len(left) - 10} more" in sentence


def test_the_cost_of_an_entity(registry: Registry) -> None:
    """Its row grows by a value and a status; its ticks take what they took."""
    page = planned(registry, NEWER_SMA).page
    (row,) = page.rows
    assert row.online_bytes[1] - row.online_bytes[0] == 8 + 1
    assert row.offline_bytes == 8 + 1
    (history,) = registry.plan(
        Text(
            "h.toml",
            registry.export().replace('name = "price"\n', 'name = "price"\nhistory=2048\n', 1),
        )
    ).page.histories
    assert row.state_bytes == 1_024 * history.tick_bytes


def test_every_new_version_names_the_one_that_is_active(registry: Registry) -> None:
    third = NEWER_SMA.replace("2.0.0", "3.0.0").replace('parent = "1.0.0"', 'parent = "2.0.0"')
    plan = planned(registry, NEWER_SMA + third + RATIO.format("1.0.0"))
    assert {one.ref: (one.active, one.compared_with) for one in plan.page.new} == {
        NEW: (OLD, OLD),
        f"{SMA}@3.0.0": (OLD, OLD),
        "price_ratio@1.0.0": (None, None),
    }
