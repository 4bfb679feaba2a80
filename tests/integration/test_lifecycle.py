"""Every command against every state of a version, and what is on record of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import Engine, text

from registry.errors import (
    DefinitionError,
    NotAllowed,
    StalePlan,
    UnknownVersion,
)
from registry.features_file import Text, read
from registry.lifecycle.audit import By
from registry.lifecycle.recording import record
from registry.lifecycle.registry import Registry
from registry.lifecycle.states import state_of
from registry.serial import serial
from tests.support.lifecycles import MOMENTUM, NEW, NEWER, OLD, SMA, with_new_version

Do = Callable[[Registry], object]


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


def test_nothing_is_made_in_an_empty_registry(engine: Engine) -> None:
    with pytest.raises(NotAllowed, match="tickwell migrate"):
        Registry(engine, By("ann")).activate(OLD)


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
