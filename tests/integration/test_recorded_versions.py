"""What a version, a set and a plan are on record: pins, parents, exports, lineage."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from typer.testing import CliRunner

from registry.errors import (
    DefinitionError,
    InvalidPlan,
    NotAllowed,
    PlanTooLarge,
    StalePlan,
    UnknownVersion,
    VersionChanged,
)
from registry.features_file import Text, read, read_text
from registry.lifecycle.plan import decode, encode
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from tests.support.lifecycles import MOMENTUM, NEW, NEWER, OLD, SMA, with_new_version
from tickwell.cli import app


def test_a_derived_version_pins_its_parts(registry: Registry) -> None:
    """What is activated later does not change what it means."""
    exposure = registry.catalog().features["portfolio_exposure@1.0.0"]
    assert set(exposure.parts) == {
        "position_size@1.0.0",
        "position_multiplier@1.0.0",
        "current_price@1.0.0",
    }
    registry.create_feature_version("current_price", "2.0.0", {"max_age": "5s"}, "1.0.0")
    registry.activate("current_price@2.0.0")
    assert registry.catalog().features[exposure.ref] == exposure
    assert record(registry.engine, read(), "ann").features[exposure.ref] == exposure
    newer = registry.create_feature_version("portfolio_exposure", "2.0.0", {}, "1.0.0")
    assert newer.parts == exposure.parts  # a child is as its parent
    chosen = {"parts": ["current_price@2.0.0"]}
    third = registry.create_feature_version("portfolio_exposure", "3.0.0", chosen, "1.0.0")
    assert third.pins["current_price"] == "current_price@2.0.0"
    registry.deprecate("current_price@1.0.0")
    with pytest.raises(NotAllowed, match=r"read by portfolio_exposure@1\.0\.0"):
        registry.retire("current_price@1.0.0")


def test_other_words_are_the_same_version_and_another_meaning_is_not(registry: Registry) -> None:
    said = {"expression": "mean( price,5 )", "source": "price", "max_age": "60s"}
    registry.create_feature_version(SMA, "1.0.0", said)
    with pytest.raises(VersionChanged, match=r"max_age `1m` would become `nothing`"):
        registry.create_feature_version(
            SMA, "1.0.0", {"expression": "mean(price, 5)", "source": "price", "max_age": "any"}
        )


def test_what_a_version_leaves_out_comes_from_its_parent(registry: Registry) -> None:
    with pytest.raises(DefinitionError, match=r"its parent price_sma_5@7\.0\.0 is neither"):
        registry.create_feature_version(SMA, "8.0.0", NEWER, "7.0.0")
    with pytest.raises(DefinitionError, match="missing required field `expression`"):
        registry.create_feature_version(SMA, "8.0.0", {"source": "price"})
    with pytest.raises(DefinitionError, match="unknown field `window`"):
        registry.create_feature_version(SMA, "8.0.0", {"window": 5}, "1.0.0")
    made = registry.create_feature_version(SMA, "1.1.0", {"unit": "USD"}, "1.0.0")
    assert (made.expression, made.unit, made.parent) == ("mean(price, 5)", "USD", "1.0.0")
    child = registry.create_feature_version(SMA, "1.2.0", {"max_age": "any"}, "1.1.0")
    assert (child.unit, child.max_age_ns) == ("USD", None)


def test_what_is_exported_is_read_as_the_same(registry: Registry) -> None:
    registry.apply(Text("sets.toml", registry.export() + MOMENTUM))
    with_new_version(registry)
    known = registry.catalog()
    exported = read_text(Text("exported.toml", registry.export()))
    assert {feature.ref: feature for feature in exported.features} == known.features
    assert {source.name: source for source in exported.sources} == known.sources
    assert {one.ref: one for one in exported.sets} == known.sets
    some = read_text(Text("some.toml", registry.export([SMA])))
    assert [source.name for source in some.sources] == ["price"]
    assert {feature.name for feature in some.features} == {SMA}


def test_what_overrides_a_parent_is_exported_too(registry: Registry) -> None:
    """And what is left of a retired parent, and the parts of a derived version."""
    create = registry.create_feature_version
    create(SMA, "2.0.0", {"max_age": "5s", "unit": "USD", "tags": ["a"]}, "1.0.0")
    create(SMA, "2.1.0", {"max_age": "any", "unit": "", "tags": []}, "2.0.0")
    create(SMA, "3.0.0", {"unit": "EUR"}, "1.0.0")
    create(SMA, "3.1.0", {"description": "child"}, "3.0.0")
    registry.activate(NEW)
    registry.deprecate(f"{SMA}@3.0.0")
    registry.retire(f"{SMA}@3.0.0")
    known = registry.catalog()
    read_again = read_text(Text("again.toml", registry.export()))
    found = {feature.ref: feature for feature in read_again.features}
    for ref, feature in found.items():
        parent = None if ref == f"{SMA}@3.1.0" else known.features[ref].parent
        assert feature == structs.replace(known.features[ref], parent=parent)
    assert found.keys() == known.features.keys() - {f"{SMA}@3.0.0"}
    # an empty registry that reads it activates what is active here
    assert [f.version for f in read_again.features if f.name == SMA][-1] == "2.0.0"
    assert registry.apply(Text("again.toml", registry.export())) == known
    some = read_text(Text("some.toml", registry.export(["portfolio_exposure"])))
    assert {"current_price", "position_size"} < {feature.name for feature in some.features}


def test_a_plan_says_what_applying_it_does_and_is_refused_once_it_is_stale(
    registry: Registry,
) -> None:
    new = f'\n[[feature]]\nname = "{SMA}"\nversion = "2.0.0"\nparent = "1.0.0"\nunit = "USD"\n'
    file = Text("new.toml", registry.export() + new + MOMENTUM)
    before = registry.catalog()
    plan = decode(encode(registry.plan(file)))
    assert registry.catalog() == before
    (version,) = plan.page.new
    assert (version.ref, version.becomes, version.compared_with) == (NEW, "standby", OLD)
    assert [(one.setting, one.was, one.now) for one in version.differs] == [("unit", "", "USD")]
    assert plan.page.sets == ("set:momentum@1",)
    (row,) = plan.page.rows
    assert row.versions == (4, 5)
    assert any(f"{SMA} still means {OLD}" in one for one in plan.page.stays)
    registry.create_feature_version(SMA, "1.5.0", {"unit": "EUR"}, "1.0.0")
    with pytest.raises(StalePlan):
        registry.apply(file, plan.expected)
    assert NEW not in registry.catalog().features
    plan = registry.plan(file)
    after = registry.apply(file, plan.expected)
    assert NEW in after.features
    assert registry.plan(file).changes_nothing
    now = registry.plan(file)
    for was, becomes in (
        (b'unit = \\"USD\\"', b'unit = \\"EUR\\"'),
        (b'"serial": %d' % plan.serial, b'"serial": %d' % now.serial),
        (msgspec.json.encode(plan.moved_at), msgspec.json.encode(now.moved_at)),
    ):
        edited = encode(plan).replace(was, becomes)
        assert edited != encode(plan)
        with pytest.raises(InvalidPlan, match="it was edited"):
            decode(edited)


def test_a_plan_that_would_not_be_read_again_is_not_saved(registry: Registry) -> None:
    padded = registry.export() + "#" + '"' * 11_000_000
    with pytest.raises(PlanTooLarge, match=r"the plan has 22,.*split the features file"):
        encode(registry.plan(Text("padded.toml", padded)))


def test_a_saved_plan_that_changes_nothing_is_refused_as_well_once_it_is_stale(
    registry: Registry,
    postgres_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TICKWELL_POSTGRES", postgres_database)
    saved = tmp_path / "saved"
    saved.write_bytes(encode(registry.plan(Text("same.toml", registry.export()))))
    command = ["features", "apply", str(saved)]
    assert "nothing is new" in CliRunner().invoke(app, command).stdout
    with_new_version(registry)
    assert isinstance(CliRunner().invoke(app, command).exception, StalePlan)


def test_a_set_pins_what_its_names_mean_when_it_is_recorded(registry: Registry) -> None:
    with_new_version(registry)
    file = Text("sets.toml", registry.export() + MOMENTUM)
    known = registry.apply(file)
    assert known.sets["set:momentum@1"].features == (OLD, "price_sma_20@1.0.0")
    registry.activate(NEW)
    assert registry.apply(file).sets == known.sets
    with pytest.raises(DefinitionError, match=r"set:momentum@1: is recorded as .*the next version"):
        registry.apply(Text("sets.toml", file.text.replace(', "price_sma_20@1.0.0"', "")))
    with pytest.raises(DefinitionError, match="there is no nothing"):
        registry.apply(Text("sets.toml", file.text.replace('"price_sma_5", ', '"nothing", ')))


def test_the_order_of_a_set_stays(registry: Registry) -> None:
    """A model may read it by position."""
    file = Text("sets.toml", registry.export() + MOMENTUM)
    known = registry.apply(file)
    turned = file.text.replace(
        '"price_sma_5", "price_sma_20@1.0.0"', '"price_sma_20@1.0.0", "price_sma_5"'
    )
    assert turned != file.text
    assert registry.apply(Text("sets.toml", turned)) == known


def test_lineage(registry: Registry) -> None:
    registry.apply(Text("sets.toml", registry.export() + MOMENTUM))
    registry.use("set:momentum@1", "momentum-net")
    found = registry.lineage(SMA)
    assert [(edge.used.name, edge.by.name) for edge in found.upstream] == [
        ("ticks.price", "price.price"),
        ("price.price", OLD),
    ]
    assert [(edge.used.name, edge.by.name) for edge in found.downstream] == [
        (OLD, "set:momentum@1"),
        ("set:momentum@1", "momentum-net"),
    ]
    above = registry.lineage("portfolio_exposure@1.0.0").upstream
    assert {edge.used.name for edge in above if edge.used.kind == "topic"} == {
        "ticks.price",
        "ticks.position",
    }
    with pytest.raises(UnknownVersion):
        registry.lineage("nothing")
