"""What a file may change of a source that is recorded, and which rules hold where."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from registry import catalog
from registry.definitions import (
    Catalog,
    Condition,
    Definitions,
    Field,
    Place,
    RecordedRules,
    RulesStart,
    Source,
)
from registry.errors import DefinitionError, RulesChanged, RulesOfEarlierBuild
from registry.source_rules import (
    NO_RULES,
    SourceRules,
    changed_rules,
    check_known,
    check_sources,
)
from tests.support.shipped import CATALOG, SOURCE

TOPICS = (bytes(16), b"a" * 16)
starts = st.builds(RulesStart, st.sampled_from(TOPICS), st.integers(0, 1), st.integers(0, 8))
histories = st.lists(
    st.lists(starts, max_size=4, unique_by=lambda start: (start.topic_id, start.partition)),
    max_size=4,
).map(
    lambda changes: [
        RecordedRules(number, SOURCE, tuple(begin)) for number, begin in enumerate([[], *changes])
    ]
)


@given(histories, st.sampled_from(TOPICS), st.integers(0, 1), st.integers(0, 10))
def test_the_rules_of_an_offset(
    history: list[RecordedRules], topic_id: bytes, partition: int, offset: int
) -> None:
    """The last ones that began at or before it; else those before the first that began later."""
    begins = {
        rules.id: start.offset
        for rules in history
        for start in rules.starts
        if (start.topic_id, start.partition) == (topic_id, partition)
    }
    begun = [number for number, begin in begins.items() if begin <= offset]
    wanted = max(begun) if begun else min(begins) - 1 if begins else len(history) - 1
    rules = SourceRules(history)
    assert rules.at(topic_id, partition, offset).id == wanted
    assert sorted(set(rules.starts(topic_id, partition))) == rules.starts(topic_id, partition)


def declared(**changes: object) -> Definitions:
    return Definitions((structs.replace(SOURCE, **changes),), (), "f.toml")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"ts_unit": "s"}, "ts_unit `ms` would become `s`"),
        ({"skew_ns": 5}, "skew `1s` would become `5ns`"),
        ({"partitioner": "crc32"}, "partitioner `murmur2` would become `crc32`"),
        (
            {"items": "data", "positive": True},
            "positive .* and items `nothing` would become `data`",
        ),
        ({"fields": (Field("price", True), *SOURCE.fields[1:])}, "fields"),
    ],
)
def test_other_rules_are_refused_with_both_ways_out(changes: dict[str, object], what: str) -> None:
    said = f"f.toml: source price: .* {what}.* change the file back; or .*migrate --from-now"
    with pytest.raises(RulesChanged, match=said):
        check_sources(CATALOG, declared(**changes))
    check_sources(CATALOG, declared(**changes), may_change=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": "other"},
        {"key": ("venue", "symbol")},
        {"fields": (Field("price"),)},
        {"fields": SOURCE.fields[::-1]},
        {"fields": (Field("cost"), *SOURCE.fields[1:])},
    ],
)
def test_what_every_row_has_cannot_change(changes: dict[str, object]) -> None:
    with pytest.raises(DefinitionError, match="declare a source with a new name"):
        check_sources(CATALOG, declared(**changes), may_change=True)


def test_every_part_of_a_definition_may_change_or_not() -> None:
    """None is forgotten: another value of any is a difference."""
    for name in Source.__struct_fields__:
        if name not in ("name", *NO_RULES):
            with pytest.raises(DefinitionError):
                check_sources(CATALOG, declared(**{name: OTHERS.get(name, "other")}))


def test_a_history_is_no_rule() -> None:
    """It decides nothing, so no offset is needed from which another one holds."""
    assert NO_RULES == ("history",)
    check_sources(CATALOG, declared(history=64))
    assert changed_rules(SOURCE, structs.replace(SOURCE, history=64), "here") == ""


OTHERS: dict[str, object] = {
    "key": ("other",),
    "fields": (),
    "skew_ns": 5,
    "places": (Place("seq", "other"),),
    "where": (Condition("other", (1,)),),
    "earliest_ns": 5,
}
"""Other values of what is no text, nor is written as one."""


def test_a_file_may_leave_sources_out_and_bring_new_ones() -> None:
    check_sources(CATALOG, declared())
    check_sources(CATALOG, declared(name="other", ts_unit="s"))
    check_sources(CATALOG, Definitions((), (), "f.toml"))


def test_an_earlier_builds_source_is_refused_until_the_file_says_its_rules() -> None:
    history = (RecordedRules(1, SOURCE, of_earlier_build=True),)
    known = structs.replace(CATALOG, rules={"price": history})
    with pytest.raises(RulesOfEarlierBuild, match=r"partitioner.*tickwell migrate --from-now"):
        check_sources(known, declared())
    with pytest.raises(RulesOfEarlierBuild):
        check_known(known)
    check_sources(known, declared(), may_change=True)
    check_known(CATALOG)


def test_a_copy_of_the_catalog_has_the_rules() -> None:
    history = (
        RecordedRules(1, SOURCE),
        RecordedRules(7, SOURCE, (RulesStart(TOPICS[1], 3, 2**40),)),
    )
    known = structs.replace(CATALOG, rules={"price": history})
    assert catalog.decode(catalog.encode(known)) == known
    builtins = msgspec.to_builtins(known)
    del builtins["rules"]
    assert msgspec.convert(builtins, Catalog) == CATALOG
