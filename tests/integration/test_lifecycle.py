"""Every command against every state of a version, and what is on record of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from msgspec import structs
from sqlalchemy import Engine, text

from registry import catalog
from registry.definitions import Arm, Catalog, Experiment
from registry.errors import (
    DefinitionError,
    InvalidPlan,
    NotAllowed,
    OldRegistry,
    StalePlan,
    UnknownVersion,
    VersionChanged,
)
from registry.features_file import Text, read, read_text
from registry.lifecycle.audit import By
from registry.lifecycle.plan import decode, encode
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from registry.lifecycle.states import state_of
from registry.serial import serial

SMA = "price_sma_5"
OLD, NEW = f"{SMA}@1.0.0", f"{SMA}@2.0.0"
NEWER = {"expression": "mean(price, 6)"}
MOMENTUM = """
[[set]]
name = "momentum"
version = "1"
features = ["price_sma_5", "price_sma_20@1.0.0"]
"""
Do = Callable[[Registry], object]


@pytest.fixture
def registry(engine: Engine) -> Registry:
    """A registry of the shipped features."""
    record(engine, read(), "ann")
    return Registry(engine, By("bob", "request-7"))


def with_new_version(registry: Registry) -> Catalog:
    """A second version of the mean stands by."""
    registry.create_feature_version(SMA, "2.0.0", NEWER, "1.0.0")
    return registry.catalog()


def brought_to(registry: Registry, state: str) -> None:
    """Bring the second version to a state."""
    with_new_version(registry)
    if state == "active":
        registry.activate(NEW)
    if state in ("deprecated", "retired"):
        registry.deprecate(NEW)
    if state == "retired":
        registry.retire(NEW)
    assert state_of(registry.catalog(), NEW) == state


COMMANDS: dict[str, Do] = {
    "record": lambda registry: registry.create_feature_version(SMA, "2.0.0", NEWER, "1.0.0"),
    "activate": lambda registry: registry.activate(NEW),
    "roll back": lambda registry: registry.roll_back(SMA),
    "deprecate": lambda registry: registry.deprecate(NEW),
    "retire": lambda registry: registry.retire(NEW),
}
REFUSED = "refused"
TABLE = {
    # state       record        activate  roll back     deprecate     retire
    "standby": ("standby", "active", REFUSED, "deprecated", REFUSED),
    "active": ("active", "active", "standby", REFUSED, REFUSED),
    "deprecated": ("deprecated", "active", REFUSED, "deprecated", "retired"),
    "retired": ("retired", REFUSED, REFUSED, REFUSED, "retired"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", TABLE)
def test_every_command_in_every_state(registry: Registry, state: str, command: str) -> None:
    """What is refused changes nothing; what changes nothing leaves no line in the audit."""
    brought_to(registry, state)
    before, lines, number = registry.catalog(), registry.audit(SMA), serial(registry.engine)
    expected = TABLE[state][list(COMMANDS).index(command)]
    if expected is REFUSED:
        with pytest.raises(NotAllowed):
            COMMANDS[command](registry)
    else:
        COMMANDS[command](registry)
        assert state_of(registry.catalog(), NEW) == expected
    same = expected in (REFUSED, state)
    assert (registry.catalog() == before) is same
    assert (registry.audit(SMA) == lines) is same
    assert (serial(registry.engine) == number) is same


@pytest.mark.parametrize("ref", ["price_sma_5@9.0.0", "nothing@1.0.0", "price_sma_5", "set:x@1"])
@pytest.mark.parametrize("command", ["activate", "deprecate", "retire"])
def test_what_is_not_recorded_is_refused(registry: Registry, command: str, ref: str) -> None:
    with pytest.raises(UnknownVersion):
        getattr(registry, command)(ref)


def test_a_later_version_stands_by_and_rows_have_both(registry: Registry) -> None:
    before = registry.catalog()
    after = with_new_version(registry)
    assert after.active == before.active
    assert after.features[NEW].parent == "1.0.0"
    assert after.features[NEW].max_age_ns == after.features[OLD].max_age_ns
    written = after.schemas[after.writing["price"]].features
    assert written == (*before.schemas[before.writing["price"]].features, NEW)


def test_a_retired_version_leaves_the_rows_and_stays_on_record(registry: Registry) -> None:
    brought_to(registry, "retired")
    known = registry.catalog()
    assert NEW not in known.schemas[known.writing["price"]].features
    assert any(NEW in schema.features for schema in known.schemas.values())
    assert record(registry.engine, read(), "ann") == known
    text_of_all = registry.export()
    assert NEW.partition("@")[2] not in text_of_all
    # a file that still declares it is taken, and does not bring it back
    again = registry.create_feature_version(SMA, "2.0.0", NEWER, "1.0.0")
    assert again.ref == NEW
    assert registry.catalog() == known


def test_a_roll_back_goes_further_back_and_never_forth(registry: Registry) -> None:
    for version, length in (("2.0.0", 6), ("3.0.0", 7)):
        registry.create_feature_version(
            SMA, version, {"expression": f"mean(price, {length})"}, "1.0.0"
        )
        registry.activate(f"{SMA}@{version}", note=f"to {version}")
    assert registry.roll_back(SMA).active[SMA] == "2.0.0"
    assert registry.roll_back(SMA).active[SMA] == "1.0.0"
    with pytest.raises(NotAllowed, match=r"no other version before 1\.0\.0"):
        registry.roll_back(SMA)
    assert registry.activate(f"{SMA}@3.0.0").active[SMA] == "3.0.0"
    assert registry.roll_back(SMA).active[SMA] == "1.0.0"
    moves = [(one.action, one.previous, one.version) for one in registry.history(SMA)]
    assert moves[::-1] == [
        ("activate", None, "1.0.0"),
        ("activate", "1.0.0", "2.0.0"),
        ("activate", "2.0.0", "3.0.0"),
        ("roll back", "3.0.0", "2.0.0"),
        ("roll back", "2.0.0", "1.0.0"),
        ("activate", "1.0.0", "3.0.0"),
        ("roll back", "3.0.0", "1.0.0"),
    ]
    assert registry.history(SMA)[-2].note == "to 2.0.0"


def test_a_roll_back_to_a_retired_version_is_refused(registry: Registry) -> None:
    with_new_version(registry)
    registry.activate(NEW)
    registry.deprecate(OLD, NEW)
    registry.retire(OLD)
    with pytest.raises(NotAllowed, match=r"price_sma_5@1\.0\.0 is retired since .*: take"):
        registry.roll_back(SMA)


def test_a_line_of_the_audit_says_who_and_from_what_to_what(registry: Registry) -> None:
    with_new_version(registry)
    registry.activate(NEW, note="it is better")
    line = registry.audit(SMA)[0]
    assert (line.actor, line.request_id, line.note) == ("bob", "request-7", "it is better")
    assert (line.action, line.subject) == ("activate", SMA)
    assert (line.before, line.after) == ({"version": "1.0.0"}, {"version": "2.0.0"})
    (recorded,) = [one for one in registry.audit(SMA) if one.subject == NEW]
    assert recorded.before is None
    assert recorded.after["expression"] == "mean(price, 6)"
    assert registry.audit(SMA, limit=1) == [line]
    assert registry.audit(SMA, limit=1, below=line.id)[0].id < line.id


def test_a_version_that_is_used_cannot_be_retired(registry: Registry) -> None:
    registry.apply(Text("sets.toml", registry.export() + MOMENTUM))
    with_new_version(registry)
    registry.activate(NEW)
    registry.deprecate(OLD, NEW)
    with pytest.raises(NotAllowed, match=r"price_sma_5@1\.0\.0 is read by set:momentum@1"):
        registry.retire(OLD)
    registry.use("set:momentum@1", "momentum-net")
    registry.deprecate("set:momentum@1")
    with pytest.raises(NotAllowed, match="set:momentum@1 is read by momentum-net"):
        registry.retire("set:momentum@1")
    registry.stop_using("set:momentum@1", "momentum-net")
    registry.retire("set:momentum@1")
    registry.retire(OLD)
    assert state_of(registry.catalog(), OLD) == "retired"


def test_a_version_that_somebody_reads_cannot_be_retired(registry: Registry) -> None:
    with_new_version(registry)
    registry.deprecate(NEW)
    read_by = (
        "INSERT INTO tickwell.usage (name, version, consumer, day, reads, last_read)"
        " VALUES ('price_sma_5', '2.0.0', '{}', '2026-01-01', 5, now() - interval '{}')"
    )
    with registry.engine.begin() as connection:
        connection.execute(text(read_by.format("momentum-net", "6 days")))
        connection.execute(text(read_by.format("old-net", "8 days")))
    with pytest.raises(NotAllowed, match=r"is read by momentum-net \(in the last seven days\)"):
        registry.retire(NEW)
    with registry.engine.begin() as connection:
        connection.execute(text("DELETE FROM tickwell.usage WHERE consumer = 'momentum-net'"))
    registry.retire(NEW)
    assert state_of(registry.catalog(), NEW) == "retired"


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


def test_pins_that_an_earlier_build_has_not_recorded_are_what_was_active(engine: Engine) -> None:
    record(engine, read(), "ann")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE tickwell.feature_versions SET digest = NULL, identity = NULL,"
                " definition = definition - 'parts' - 'parent' - 'unit'"
            )
        )
    assert catalog.load(engine).features["portfolio_exposure@1.0.0"].parts == ()
    known = record(engine, read(), "ann")
    assert known.features["portfolio_exposure@1.0.0"].pins["current_price"] == "current_price@1.0.0"
    with engine.connect() as connection:
        lacking = "SELECT count(*) FROM tickwell.feature_versions WHERE digest IS NULL"
        assert connection.execute(text(lacking)).scalar() == 0


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
    edited = encode(plan).replace(b'unit = \\"USD\\"', b'unit = \\"EUR\\"')
    assert edited != encode(plan)
    with pytest.raises(InvalidPlan, match="it was edited"):
        decode(edited)


def test_two_at_once_end_one_after_the_other(registry: Registry) -> None:
    """And of two that applied one plan, one is told that it is stale."""
    new = '\n[[feature]]\nname = "{}"\nversion = "1.0.0"\nsource = "price"\nexpression = "{}"\n'
    files = [
        Text("a.toml", registry.export() + new.format("one", "mean(price, 7)")),
        Text("b.toml", registry.export() + new.format("two", "mean(price, 8)")),
    ]
    plans = [registry.plan(file) for file in files]

    def apply(number: int) -> str:
        try:
            registry.apply(files[number], plans[number].expected)
        except StalePlan:
            return "stale"
        return "applied"

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(apply, (0, 1))) == ["applied", "stale"]
    with ThreadPoolExecutor(8) as threads:
        moves = [NEW, OLD] * 20
        with_new_version(registry)
        list(threads.map(registry.activate, moves))
    history = registry.history(SMA)
    for later, earlier in pairwise(history):
        assert later.previous == earlier.version
        assert later.version != earlier.version
    assert registry.catalog().active[SMA] == history[0].version


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


def test_nothing_is_made_in_an_empty_registry(engine: Engine) -> None:
    with pytest.raises(NotAllowed, match="tickwell migrate"):
        Registry(engine, By("ann")).activate(OLD)


def of_arms(*arms: tuple[str, str]) -> Experiment:
    return Experiment("sma", SMA, tuple(Arm(variant, version, 1) for variant, version in arms))


def two_arms(*weights: int, name: str = "sma") -> Experiment:
    arms = (Arm("control", "1.0.0", weights[0]), Arm("longer", "2.0.0", weights[1]))
    return Experiment(name, SMA, arms)


def test_an_experiment_and_what_it_allows_meanwhile(registry: Registry) -> None:
    with_new_version(registry)
    registry.start_experiment(two_arms(50, 50))
    for change in (
        lambda: registry.activate(NEW),
        lambda: registry.roll_back(SMA),
        lambda: registry.deprecate(NEW),
        lambda: registry.start_experiment(two_arms(50, 50, name="other")),
    ):
        with pytest.raises(NotAllowed, match="experiment sma runs with price_sma_5"):
            change()
    registry.start_experiment(two_arms(60, 40))
    other_arms = of_arms(("a", "1.0.0"), ("b", "2.0.0"))
    with pytest.raises(NotAllowed, match="only their weights can change"):
        registry.start_experiment(other_arms)
    assert registry.catalog().experiments[SMA] == two_arms(60, 40)
    registry.stop_experiment("sma", "longer", note="p < 0.01")
    known = registry.catalog()
    assert (known.experiments, known.active[SMA]) == ({}, "2.0.0")
    for again in (
        lambda: registry.stop_experiment("sma"),
        lambda: registry.start_experiment(two_arms(1, 1)),
    ):
        with pytest.raises(NotAllowed):
            again()
    (over,) = registry.experiments()
    assert (over.winner, over.stopped_by) == ("longer", "bob")
    said = [(line.action, line.note) for line in registry.audit(SMA)][:4]
    assert [action for action, _ in said][::-1] == [
        "start experiment",
        "change weights",
        "stop experiment",
        "activate",
    ]
    assert registry.roll_back(SMA).active[SMA] == "1.0.0"


@pytest.mark.parametrize(
    ("experiment", "what"),
    [
        (of_arms(("a", "1.0.0")), "needs 2 to 10 arms"),
        (
            Experiment("sma", SMA, (Arm("a", "1.0.0", 1), Arm("a", "2.0.0", 1))),
            "different variants",
        ),
        (
            Experiment("sma", SMA, (Arm("a", "1.0.0", 1), Arm("b", "1.0.0", 1))),
            "different versions",
        ),
        (two_arms(0, 1), "must be a whole number, 1 to"),
        (two_arms(1, 1, name="S M A"), "cannot be a name"),
        (Experiment("vol", "volatility", two_arms(1, 1).arms), "is an alias"),
        (Experiment("sma", "nothing", two_arms(1, 1).arms), "there is no feature 'nothing'"),
        (of_arms(("a", "1.0.0"), ("b", "9.0.0")), "there is no"),
    ],
)
def test_an_experiment_that_cannot_be(
    registry: Registry, experiment: Experiment, what: str
) -> None:
    before = with_new_version(registry)
    with pytest.raises((DefinitionError, UnknownVersion), match=what):
        registry.start_experiment(experiment)
    assert registry.catalog() == before


def test_a_roll_back_takes_activations_away_one_after_the_other(registry: Registry) -> None:
    with_new_version(registry)
    for ref in (NEW, OLD):
        registry.activate(ref)
    assert registry.roll_back(SMA).active[SMA] == "2.0.0"
    assert registry.roll_back(SMA).active[SMA] == "1.0.0"
    with pytest.raises(NotAllowed, match="no other version before"):
        registry.roll_back(SMA)
    with pytest.raises(NotAllowed, match="give the name alone"):
        registry.roll_back(NEW)


@pytest.mark.parametrize("note", ["a\0b", "a\ud800", "a" * 1_001])
def test_a_note_that_cannot_be_kept(registry: Registry, note: str) -> None:
    with_new_version(registry)
    with pytest.raises(DefinitionError, match="note: must be text of at most 1000"):
        registry.activate(NEW, note=note)
    with pytest.raises(DefinitionError, match="surrogate"):
        registry.create_feature_version(SMA, "3.0.0", {"description": "\ud800"}, "1.0.0")


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


def test_the_order_of_a_set_stays(registry: Registry) -> None:
    """A model may read it by position."""
    file = Text("sets.toml", registry.export() + MOMENTUM)
    known = registry.apply(file)
    turned = file.text.replace(
        '"price_sma_5", "price_sma_20@1.0.0"', '"price_sma_20@1.0.0", "price_sma_5"'
    )
    assert turned != file.text
    assert registry.apply(Text("sets.toml", turned)) == known


def test_what_an_earlier_build_has_left_is_completed(registry: Registry) -> None:
    """Pins before any name moves, and what views and searches look up."""
    with registry.engine.begin() as connection:
        for statement in (
            "UPDATE tickwell.feature_versions SET digest = NULL, identity = NULL,"
            " definition = definition - 'parts' - 'parent' - 'unit'",
            "DELETE FROM tickwell.active_columns",
            "DELETE FROM tickwell.search_documents",
            "CREATE OR REPLACE FUNCTION tickwell.is_row_schema(source text, schema_id integer)"
            " RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT false'",
        ):
            connection.execute(text(statement))
    registry.complete()
    exposure = registry.catalog().features["portfolio_exposure@1.0.0"]
    assert exposure.pins["current_price"] == "current_price@1.0.0"
    assert [hit.name for hit in registry.search(SMA).features][:1] == [SMA]
    with registry.engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT tickwell.is_row_schema('price', id) FROM tickwell.row_schemas"
                " WHERE source = 'price'"
            )
        )
        assert set(found.scalars()) == {True}
        columns = connection.execute(text("SELECT count(*) FROM tickwell.active_columns")).scalar()
        assert columns > 0
    before = registry.known()
    registry.complete()
    assert registry.known() == before


def test_the_first_change_of_a_name_pins_what_it_meant(registry: Registry) -> None:
    registry.create_feature_version("current_price", "2.0.0", {"max_age": "5s"}, "1.0.0")
    with registry.engine.begin() as connection:
        connection.execute(
            text("UPDATE tickwell.feature_versions SET definition = definition - 'parts'")
        )
    registry.activate("current_price@2.0.0")
    exposure = registry.catalog().features["portfolio_exposure@1.0.0"]
    assert exposure.pins["current_price"] == "current_price@1.0.0"


def test_tables_of_an_earlier_build_are_told(registry: Registry) -> None:
    with registry.engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE tickwell.feature_versions DROP COLUMN deprecated_at CASCADE")
        )
    for ask in (registry.catalog, lambda: registry.history(SMA), lambda: registry.activate(OLD)):
        with pytest.raises(OldRegistry, match="tickwell migrate"):
            ask()


def test_names_that_an_earlier_build_took_stay(registry: Registry) -> None:
    """What is new may not be so near to another one."""
    like = {"expression": "mean(price, 3)", "source": "price"}
    with pytest.raises(DefinitionError, match="differ only in `_`"):
        registry.create_feature_version("pricesma_5", "1.0.0", like)
    registry.create_feature_version("other_sma", "1.0.0", like)
    with registry.engine.begin() as connection:
        connection.execute(text("DROP VIEW features.price"))  # it has the other name
        for table, column in (("feature_versions", "name"), ("active_versions", "name")):
            connection.execute(
                text(
                    f"UPDATE tickwell.{table} SET {column} = 'pricesma_5'"
                    f" WHERE {column} = 'other_sma'"
                )
            )
        connection.execute(
            text(
                "UPDATE tickwell.feature_versions SET definition = jsonb_set(definition, '{name}',"
                " '\"pricesma_5\"') WHERE name = 'pricesma_5'"
            )
        )
        connection.execute(
            text(
                "UPDATE tickwell.row_schemas SET features ="
                " array_replace(features, 'other_sma@1.0.0', 'pricesma_5@1.0.0')"
            )
        )
    registry.create_feature_version("pricesma_5", "2.0.0", {"unit": "USD"}, "1.0.0")


def test_the_audit_of_sets_and_sources(registry: Registry) -> None:
    registry.apply(Text("sets.toml", registry.export() + MOMENTUM))
    registry.use("set:momentum@1", "momentum-net")
    assert [one.action for one in registry.audit("set:momentum@1")] == ["use", "record set"]
    assert {one.action for one in registry.audit("source:price")} == {
        "declare source",
        "new row schema",
    }
    with pytest.raises(UnknownVersion, match="there is no source nothing"):
        registry.audit("source:nothing")
