"""The steps from a run to its rows: what is loaded, as of when, and what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.compute.run_computation import RunComputation
from registry.definitions import Source
from registry.formats.origin import Origin
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.shipped import PROGRAM, RULES, SCHEMA, SOURCE
from tests.support.states import known
from tests.support.windows import materialize, row_bytes


class Loads:
    """A store that knows nothing, and notes what it is asked to load."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], int, Origin]] = []

    def __call__(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        assert source is SOURCE
        self.calls.append((list(entities), depth, before))
        return known([], {}, len(source.fields))


def records(symbols: str) -> list[Record]:
    return [
        Record("t", 0, i, NOW_MS, key, b'{"symbol":"%b","price":%d,"ts":%d}' % (key, i, NOW_MS + i))
        for i, key in enumerate((s.encode() for s in symbols), 1)
    ]


def computed(computation: RunComputation, run: Any, loads: Loads) -> Any:
    decoded = computation.decode(run)
    computation.restore(decoded, loads)
    return computation.compute(decoded)


def test_rows_are_those_of_decoder_and_windows() -> None:
    log = records("ABABCA" * 9)
    computation, loads = RunComputation(RULES, SCHEMA, PROGRAM, 100), Loads()
    batches = [computed(computation, run, loads) for run in runs(log, (5, 20))]
    assert row_bytes(batches) == row_bytes(materialize(log, (5, 20)))


def test_missing_states_are_loaded_once_as_they_were_where_the_run_begins() -> None:
    first, second = runs(records("ABAC"), (2,), base=1)
    computation, loads = RunComputation(RULES, SCHEMA, PROGRAM, 100), Loads()
    for run in (first, second):
        computed(computation, run, loads)
    assert loads.calls == [
        (["A", "B"], 64, Origin(TOPIC_ID, 0, 1, 0)),
        (["C"], 64, Origin(TOPIC_ID, 0, 3, 0)),
    ]


def test_a_forgotten_run_is_loaded_again() -> None:
    first, second = runs(records("ABCA"), (2,), base=1)
    computation, loads = RunComputation(RULES, SCHEMA, PROGRAM, 100), Loads()
    computed(computation, first, loads)
    computed(computation, second, loads)
    assert not computation.decode(second).missing
    computation.forget_all()
    assert list(computation.decode(second).missing) == ["C", "A"]


def test_what_was_not_restored_is_still_missing() -> None:
    """A store that fails leaves a run decoded and not restored."""
    (run,) = runs(records("ABA"), ())
    computation = RunComputation(RULES, SCHEMA, PROGRAM, 100)
    computation.decode(run)
    decoded = computation.decode(run)
    assert list(decoded.missing) == ["A", "B"]
    with pytest.raises(KeyError, match="A"):
        computation.compute(decoded)
