"""Runs decided by the rules of their offsets, held against the oracle with the rules of each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.kafka.run import Run
from pipelines.ticks.columns import Ticks
from pipelines.ticks.rules_decoder import RulesDecoder, by_rules
from registry.definitions import RecordedRules, RulesStart, Source
from registry.errors import RulesOfEarlierBuild
from registry.source_rules import SourceRules
from tests.checker.sources import spec_of
from tests.oracle.messages import Record, Tick, read
from tests.support.examples import examples
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.mapped_sources import source_of

PARTITIONS = 3
HEAD = """
[[source]]
name = "trades"
topic = "trades"
key = ["symbol"]
fields = [{ name = "price" }, { name = "size", default = %s }]
"""
DECLARED = (
    source_of('ts_unit = "s"\nearliest = 1970-01-01\npartitioner = "any"', HEAD % "1.0"),
    source_of('skew = "60s"\npositive = true\n[source.map]\nprice = "p"', HEAD % "2.0"),
    source_of(
        'message_key = "any"\npartitioner = "crc32"\nitems = "data"\nwhere = { "^e" = "trade" }\n'
        '[source.map]\nprice = { path = "p", scale = 1e-2 }\nts = "@timestamp"',
        HEAD % "3.0",
    ),
    source_of('partitioner = "fnv1a"\n[source.map]\nsymbol = "@key"', HEAD % "1.0"),
)
"""Definitions of one source; some of the same message are a tick by one, and none by another."""

numbers = st.sampled_from([1, 250, -2, 0.5, "1.5", None])


@st.composite
def ticks(draw: st.DrawFn) -> dict[str, Any]:
    tick: dict[str, Any] = {"symbol": draw(st.sampled_from("AB")), "price": draw(numbers)}
    tick["p"] = draw(numbers)
    unit = draw(st.sampled_from([1, 1, 1000]))
    tick["ts"] = (NOW_MS + draw(st.sampled_from([0, 30_000, -1]))) // unit
    return tick


@st.composite
def values(draw: st.DrawFn) -> bytes:
    around = {"e": draw(st.sampled_from(["trade", "quote"])), "data": draw(st.lists(ticks()))}
    return json.dumps(draw(ticks()) | (around if draw(st.booleans()) else {})).encode()


logs = st.lists(st.tuples(st.sampled_from([b"A", b"B", None]), values()), max_size=12)
histories = st.lists(
    st.tuples(st.sampled_from(DECLARED), st.integers(0, 14)), min_size=1, max_size=4
).map(lambda found: [(found[0][0], 0), *found[1:]])
"""What was declared one after the other, and from which offset on."""


def rules_of(history: list[tuple[Source, int]]) -> SourceRules:
    return SourceRules(
        [
            RecordedRules(number, source, (RulesStart(TOPIC_ID, 0, start),) if number > 1 else ())
            for number, (source, start) in enumerate(history, 1)
        ]
    )


def told(found: Ticks) -> dict[tuple[int, int], Any]:
    """By offset and index the reason, or the time and the numbers."""
    rejected: dict[tuple[int, int], Any] = {(r.offset, r.index): r.reason for r in found.rejected}
    return rejected | {
        (int(found.offset[i]), int(found.index[i])): (
            int(found.tick_time[i]),
            str(found.fields[i].tolist()),
        )
        for i in range(len(found))
    }


def expected(record: Record, source: Source) -> dict[tuple[int, int], Any]:
    """What the oracle says of a record by one definition."""
    spec = replace(spec_of(msgspec.to_builtins(source), "trades"), partitions=PARTITIONS)
    return {
        (record.offset, index): (tick.tick_time, str([*map(float, tick.fields)]))
        if isinstance(tick, Tick)
        else tick
        for index, tick in read(record, spec)
    }


def in_pieces(whole: Iterable[Run], rules: SourceRules) -> list[Run]:
    return [piece for run in whole for piece in by_rules(run, rules)]


@examples(2)
@given(logs, histories, st.lists(st.integers(0, 12), max_size=3, unique=True))
def test_each_offset_is_decided_by_the_rules_that_hold_there(
    messages: list[tuple[bytes | None, bytes]],
    history: list[tuple[Source, int]],
    cuts: list[int],
) -> None:
    records = [Record("t", 0, n, NOW_MS, key, value) for n, (key, value) in enumerate(messages)]
    rules, wanted = rules_of(history), dict[tuple[int, int], Any]()
    for record in records:
        held = [source for source, start in history if start <= record.offset]
        wanted |= expected(record, held[-1])
    pieces = in_pieces(runs(records, cuts), rules)
    bounds = [0, *(piece.next_offset for piece in pieces)]
    assert [piece.base_offset for piece in pieces] == bounds[:-1]
    decoder = RulesDecoder(rules, PARTITIONS)
    found = dict[tuple[int, int], Any]()
    for piece in pieces:
        decoded = decoder.decode(piece)
        found |= told(decoded)
        assert decoded.source == history[decoded.rules - 1][0]
    assert found == wanted


def test_another_partition_and_a_topic_made_anew_have_the_newest_rules() -> None:
    rules = rules_of([(DECLARED[0], 0), (DECLARED[1], 5)])
    (run,) = runs([Record("t", 0, 0, NOW_MS, b"A", b"{}")], ())
    decoder = RulesDecoder(rules)
    assert decoder.decode(run).rules == 1
    assert decoder.decode(replace(run, partition=1)).rules == 2
    assert decoder.decode(replace(run, topic_id=bytes(16))).rules == 2


def test_a_run_across_other_rules_is_a_mistake() -> None:
    rules = rules_of([(DECLARED[0], 0), (DECLARED[1], 1)])
    records = [Record("t", 0, n, NOW_MS, b"A", b"{}") for n in range(2)]
    (run,) = runs(records, ())
    with pytest.raises(ValueError, match="other rules begin within the offsets 0 to 2"):
        RulesDecoder(rules).decode(run)


def test_what_an_earlier_build_has_decided_is_not_decided_again() -> None:
    begin = RulesStart(TOPIC_ID, 0, 1)
    first = RecordedRules(1, DECLARED[0], of_earlier_build=True)
    rules = SourceRules([first, RecordedRules(2, DECLARED[1], (begin,))])
    records = [Record("t", 0, n, NOW_MS, b"A", b"{}") for n in range(2)]
    before, after = in_pieces(runs(records, ()), rules)
    assert RulesDecoder(rules).decode(after).rules == 2
    with pytest.raises(
        RulesOfEarlierBuild, match=r"trades\[0\] before offset 1 .* --from-offset 1"
    ):
        RulesDecoder(rules).decode(before)
