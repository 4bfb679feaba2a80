"""How many ticks of an entity a source keeps: recorded, planned, refused, followed by workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from msgspec import structs
from sqlalchemy import Engine, text

from registry import catalog
from registry.database.engine import connect
from registry.database.lake_tables import lake_days
from registry.definitions import HISTORY, Catalog, Definitions
from registry.errors import DefinitionError, HistoryLetGo, RegistryEmpty, RulesChanged
from registry.features_file import Text, read, read_text
from registry.formats.state import BLOCK
from registry.lifecycle.audit import By, Entry, entries
from registry.lifecycle.recording import record, remarks
from registry.lifecycle.registry import Registry
from registry.serial import serial
from registry.source_rules import SourceRules
from tests.support.followers import Follower
from tests.support.logs import runs
from tests.support.rebuilds import TOPIC, Stores, quiet
from tests.support.shipped import changed
from tests.support.sinks import GO_ON, ticks
from tests.support.stored import stored_chunks

TICK_BYTES = 32
SHORTER = 'name = "price"\n', 'name = "price"\nhistory = 199\n'
"""The line of the price source in a file, and what makes its history shorter."""


@pytest.fixture
def following(stores: Stores) -> Iterator[Engine]:
    """The registry of `stores`."""
    engine = connect(stores.postgres)
    yield engine
    engine.dispose()


def keeping(history: int, definitions: Definitions | None = None, **rules: object) -> Definitions:
    """A file in which the price source has this history, and other rules where they are given."""
    given = definitions or read()
    sources = tuple(
        structs.replace(source, history=history, **rules) if source.name == "price" else source
        for source in given.sources
    )
    return structs.replace(given, sources=sources)


def history_of(known: Catalog) -> int:
    return known.sources["price"].history


def audited(engine: Engine) -> list[Entry]:
    with engine.connect() as connection:
        return entries(connection, ["price"], 10)


@pytest.mark.parametrize("history", [64, 4096])
def test_another_history_is_recorded_without_other_rules(engine: Engine, history: int) -> None:
    """No offset is decided anew, and no row schema is new; it is on record who changed it."""
    before, number = record(engine, read(), "ann"), serial(engine)
    after = record(engine, keeping(history), "bob")
    assert history_of(before) == HISTORY
    assert history_of(after) == history
    assert serial(engine) != number
    was, now = SourceRules.of(before, "price"), SourceRules.of(after, "price")
    assert (len(now.recorded), now.source) == (len(was.recorded), after.sources["price"])
    assert after.writing == before.writing
    assert structs.replace(after, sources=before.sources, rules=before.rules) == before
    entry = audited(engine)[0]
    assert (entry.actor, entry.action) == ("bob", "reword source")
    assert (entry.before["history"], entry.after["history"]) == (HISTORY, history)
    assert {**entry.before, "history": history} == entry.after
    lines = audited(engine)
    assert record(engine, keeping(history), "bob") == catalog.load(engine) == after
    assert audited(engine) == lines
    assert history_of(catalog.decode(catalog.encode(after))) == history


def test_it_does_not_grow_once_postgres_let_go_of_months(engine: Engine) -> None:
    """What is kept of several months has gaps, beyond the history of then."""
    record(engine, keeping(300), "ann")
    with engine.begin() as connection:
        connection.execute(
            lake_days.insert().values(
                source="price",
                day=date(2025, 12, 31),
                changes=1,
                watermarks={},
                dropped_at=datetime.now(UTC),
            )
        )
    with pytest.raises(HistoryLetGo, match=r"from 300 to 301 ticks.*before 2026-01-01"):
        record(engine, keeping(301), "bob")
    with pytest.raises(HistoryLetGo):
        record(engine, keeping(301, skew_ns=5), "bob", begin=lambda *_: [])
    assert history_of(record(engine, keeping(299), "bob")) == 299


def test_all_rules_of_a_source_have_the_history_that_it_has_now(engine: Engine) -> None:
    """Also where both change at once, and where rules were recorded with another history."""

    def nowhere(*_: object) -> list[list[object]]:
        return [[]]

    record(engine, read(), "ann")
    whole = keeping(2048, skew_ns=5 * 10**9)
    with pytest.raises(RulesChanged):
        record(engine, whole, "ann")
    assert history_of(catalog.load(engine)) == HISTORY
    both = record(engine, whole, "ann", begin=nowhere)  # type: ignore[arg-type]
    assert [one.source.history for one in both.rules["price"]] == [2048, 2048]
    assert [one.source.skew_ns for one in both.rules["price"]] == [10**9, 5 * 10**9]
    assert [one.action for one in audited(engine)[:2]] == ["change rules", "reword source"]
    less = record(engine, keeping(100, skew_ns=5 * 10**9), "ann", begin=lambda *_: [])
    assert [one.source.history for one in less.rules["price"]] == [100, 100]
    assert less.rules["price"][-1].source == less.sources["price"]


@pytest.mark.parametrize(
    ("expression", "needed"), [("mean(price, 100)", 100), ("stddev(log_return(price), 100)", 101)]
)
def test_a_feature_of_more_ticks_than_are_kept_is_refused(
    engine: Engine, tmp_path: Path, expression: str, needed: int
) -> None:
    long = read(changed(tmp_path, '"mean(price, 20)"', f'"{expression}"'))
    what = f"price_sma_20: needs {needed} ticks, .* 99 are kept: declare `history = {needed}`"
    with pytest.raises(DefinitionError, match=f"{what} or more of the source price"):
        record(engine, keeping(99, long), "ann")
    with pytest.raises(RegistryEmpty):
        catalog.load(engine)
    recorded = record(engine, keeping(needed, long), "ann")
    assert history_of(recorded) == needed
    registry = Registry(engine, By("bob"))
    short = {"source": "price", "expression": f"mean(price, {needed})"}
    registry.create_feature_version("longest", "1.0.0", short)
    with pytest.raises(DefinitionError, match=f"needs {needed + 1} ticks"):
        registry.create_feature_version(
            "longer", "1.0.0", {**short, "expression": f"mean(price, {needed + 1})"}
        )


def test_a_history_is_not_shorter_than_what_is_computed_needs(engine: Engine) -> None:
    """What is retired is not computed, and what is deprecated still is."""
    record(engine, read(), "ann")
    registry = Registry(engine, By("bob"))
    for version, window in (("2.0.0", 200), ("3.0.0", 90)):
        given = {"expression": f"mean(price, {window})"}
        registry.create_feature_version("price_sma_5", version, given, "1.0.0")
    registry.deprecate("price_sma_5@2.0.0")
    before = registry.catalog()
    what = r"source price: would keep 199 .*price_sma_5@2\.0\.0 needs 200: declare `history = 200`"
    with pytest.raises(DefinitionError, match=what):
        record(engine, keeping(199), "bob")
    with pytest.raises(DefinitionError, match=what):
        registry.plan(Text("f.toml", registry.export().replace(*SHORTER, 1)))
    assert registry.catalog() == before
    assert history_of(record(engine, keeping(200), "bob")) == 200
    registry.retire("price_sma_5@2.0.0")
    with pytest.raises(DefinitionError, match=r"price_sma_5@3\.0\.0 needs 90"):
        record(engine, keeping(89), "bob")
    assert history_of(record(engine, keeping(90), "bob")) == 90


def test_what_is_declared_of_other_sources_and_left_out_stays(engine: Engine) -> None:
    """A file without the source says nothing of its history; one with it, and without, 1,024."""
    record(engine, keeping(4096), "ann")
    others = tuple(source for source in read().sources if source.name != "price")
    with_others = structs.replace(read(), sources=others)
    known = record(engine, with_others, "ann")
    assert history_of(known) == 4096
    assert known.sources["volume"].history == HISTORY
    assert remarks(known, read()) == [
        "not recorded: `history = 1024` of the source price; see what they would change by "
        "`tickwell features plan`, and record them by `tickwell features apply`"
    ]
    assert history_of(record(engine, read(), "ann")) == HISTORY


def test_a_plan_says_what_another_history_costs(engine: Engine) -> None:
    record(engine, read(), "ann")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tickwell.entities (source, entity, topic_id, partition)"
                " SELECT 'price', 'S' || n, gen_random_uuid(), 0 FROM generate_series(1, 7) n"
            )
        )
    registry = Registry(engine, By("bob"))
    given = registry.export()
    more = Text("f.toml", given.replace('name = "price"\n', 'name = "price"\nhistory = 4096\n', 1))
    plan = registry.plan(more)
    assert not plan.changes_nothing
    (kept,) = plan.page.histories
    assert (kept.source, kept.ticks, kept.entities) == ("price", (HISTORY, 4096), 7)
    assert TICK_BYTES < kept.tick_bytes < 2 * TICK_BYTES
    assert plan.page.changed_rules == ()
    assert any("needs more than 1,024 is `warming` online" in one for one in plan.page.stays)
    assert registry.apply(more, plan.expected).sources["price"].history == 4096
    assert registry.plan(more).changes_nothing
    again = read_text(Text("again.toml", registry.export()))
    assert {one.name: one for one in again.sources} == registry.catalog().sources
    less = registry.plan(Text("f.toml", given))
    assert [one.ticks for one in less.page.histories] == [(4096, HISTORY)]
    assert not any("warming" in one for one in less.page.stays)


def test_a_plan_says_what_a_new_source_costs(engine: Engine) -> None:
    record(engine, structs.replace(read(), sets=()), "ann")
    registry = Registry(engine, By("bob"))
    other = (
        '\n[[source]]\nname = "other"\ntopic = "ticks.other"\nkey = ["symbol"]\nhistory = 64\n'
        'fields = [{ name = "value" }]\n\n[[feature]]\nname = "last_other"\nversion = "1.0.0"\n'
        'source = "other"\nexpression = "last(value)"\n'
    )
    (kept,) = registry.plan(Text("f.toml", registry.export() + other)).page.histories
    assert (kept.source, kept.ticks, kept.entities) == ("other", (0, 64), 0)


def size_in_redis(stores: Stores) -> int:
    """Ticks of the entity A in chunks."""
    with stores.client() as client:
        return sum(map(len, stored_chunks(client, "price", "A").values())) // TICK_BYTES


def test_a_worker_keeps_what_the_registry_says_now(stores: Stores, following: Engine) -> None:
    """It goes on meanwhile: more ticks are kept as they come, and what is too many is dropped."""
    follower, taken = Follower(following, stores.sink()), 0
    for history, many in ((1024, 200), (64, 1000), (300, 400), (100, 800)):
        record(following, keeping(history), "ann")
        follower.following.look()
        log = runs(ticks(["A"], many, taken), range(taken + 7, taken + many, 7), taken)
        for number, run in enumerate(log):
            follower.take(run, ahead=number % 2 == 0)
        taken += many
        kept = min(history, taken)
        assert kept - BLOCK <= size_in_redis(stores) <= kept + BLOCK
    assert follower.work.schema.id == stores.catalog.writing["price"]


def test_a_run_computed_ahead_keeps_what_was_recorded_meanwhile(
    stores: Stores, following: Engine
) -> None:
    first, second = runs(ticks(["A", "B"], 60), (30,))
    follower = Follower(following, stores.sink())
    follower.work.materialize(first, GO_ON)
    computed = follower.work.compute_ahead(second)
    assert computed is not None
    record(following, keeping(64), "ann")
    follower.following.look()
    assert follower.work.computation.history == 64
    assert follower.work.store(computed) is not None  # nothing is wrong with it


def test_a_version_and_the_history_that_it_needs_are_followed_at_once(
    stores: Stores, following: Engine
) -> None:
    record(following, keeping(64), "ann")
    follower = Follower(following, stores.sink())
    with pytest.raises(DefinitionError, match="needs 100 ticks"):
        record(following, keeping(64, with_mean(100)), "ann")
    known = record(following, keeping(128, with_mean(100)), "ann")
    follower.following.look()
    assert follower.work.schema.id == known.writing["price"]
    assert follower.work.computation.history == 128
    assert follower.work.computation.depth == 100


def with_mean(window: int) -> Definitions:
    given = read()
    known = next(one for one in given.features if one.ref == "price_sma_5@1.0.0")
    longer = structs.replace(known, version="2.0.0", expression=f"mean(price, {window})")
    return structs.replace(given, features=(*given.features, longer))


@pytest.mark.parametrize("history", [64, 200])
def test_a_rebuild_puts_back_what_the_source_keeps(stores: Stores, history: int) -> None:
    offline = stores.offline()
    for run in runs(ticks(["A"], 500), range(50, 500, 50)):
        offline.materialize(run, GO_ON)
    source = structs.replace(stores.catalog.sources["price"], history=history)
    stores.rebuild().fill(source, TOPIC, quiet)
    assert history - 2 * BLOCK <= size_in_redis(stores) <= history
