"""Sweeps over days of ticks against a search of all rows for each question."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest

from registry.formats.lake import DAY_NS
from serving.features.columns import NO_TIME
from serving.history.lake.day_ticks import CLOSED, LACKS, LOADED, REVISED, DayRows, ticks_of
from serving.history.lake.days import Day
from serving.history.lake.questions import Answers, HeldQuestions, SpilledQuestions
from serving.history.lake.sweep import Part, Sweep, parts_of, sweep
from tests.support.seeds import seeds

DAYS, ENTITIES, VERSIONS = 7, 4, 2
FIRST = 3 * DAY_NS


class Row(NamedTuple):
    """A row as it is stored, with a value and a status of each version."""

    entity: int
    time: int
    sequence: int
    revision: int
    schema: int
    known: int
    cancels: bool
    values: tuple[float, ...]
    statuses: tuple[int, ...]


class Question(NamedTuple):
    """An entity at a moment, by what was known then."""

    entity: int
    moment: int
    known: int


Answer = tuple[int, int, int, tuple[str | None, ...], tuple[int, ...]]
NOTHING: Answer = (NO_TIME, 0, 0, (None,) * VERSIONS, (LACKS,) * VERSIONS)


def drawn(chance: random.Random, n: int, repairs: bool) -> list[Row]:
    """Rows at few different times; some known later, some in two row schemas, some loaded.

    Often one that was loaded and one that was not are of one time, with one sequence or two.
    """
    rows: dict[tuple[int, ...], Row] = {}
    late = chance.choice([0.1, 0.6, 1.0])
    for _ in range(n):
        day = chance.randrange(DAYS)
        time = FIRST + day * DAY_NS + chance.choice([0, 1, 2, DAY_NS // 2, DAY_NS - 1])
        entity, sequence = chance.randrange(ENTITIES), chance.randrange(2)
        known = time + chance.choice([0, 0, 5]) * (chance.random() < 0.5)
        if chance.random() < late:
            known = time + chance.randrange(4 * DAY_NS)
        load = chance.random() < 0.2
        if rows and chance.random() < 0.3:
            entity, time, sequence, _, schema = chance.choice(list(rows))
            load, sequence = schema > 0, chance.choice([sequence, 1 - sequence])
        value = chance.random()
        for schema in chance.choice([[1], [2], [1, 2]]):
            has = {1: (True, False), 2: (True, True)}[schema]
            for revision in range(1 + (chance.randrange(3) if repairs else 0)):
                revised = known if revision == 0 else known + chance.randrange(1, 3 * DAY_NS)
                row = Row(
                    *(entity, time, sequence, revision, -schema if load else schema, revised),
                    revision > 0 and chance.random() < 0.3,
                    tuple(value + i + revision if one else np.nan for i, one in enumerate(has)),
                    tuple((0 if one else LACKS) for one in has),
                )
                rows.setdefault((entity, time, sequence, revision, row.schema), row)
    of_tick: dict[tuple[Any, ...], tuple[int, tuple[float, ...]]] = {}
    found = []
    for row in rows.values():  # what a tick has in several row schemas is equal
        tick = *row[:4], row.schema > 0
        known, values = of_tick.setdefault(tick, (row.known, row.values))
        same = tuple(
            (values[0] + i) if status != LACKS else np.nan for i, status in enumerate(row.statuses)
        )
        found.append(row._replace(values=same, known=known if repairs else row.known))
    return found


def searched(rows: Sequence[Row], asked: Question, repaired: bool) -> Answer:
    """The answer, by looking at all rows."""
    known = [
        row
        for row in rows
        if row.entity == asked.entity and row.time <= asked.moment and row.known <= asked.known
    ]
    if repaired:
        gone = {row[1:3] for row in known if row.revision > 0 and row.cancels}
        known = [row for row in known if row[1:3] not in gone]
    else:
        known = [row for row in known if row.revision == 0]
    if not known:
        return NOTHING
    tick = max(map(ordered, known))
    of_tick = [row for row in known if ordered(row) == tick]

    def rank(row: Row) -> tuple[int, int, int]:
        return (1, row.known, row.revision) if row.revision else (0, 0, 0)

    newest = [row for row in of_tick if rank(row) == max(map(rank, of_tick))]
    values: list[str | None] = [None] * VERSIONS
    statuses = [LACKS] * VERSIONS
    for row in newest:
        for i, status in enumerate(row.statuses):
            if status != LACKS:
                values[i], statuses[i] = float(row.values[i]).hex(), status
    flags = LOADED * all(row.schema < 0 for row in newest)
    flags |= REVISED * any(row.revision > 0 for row in newest)
    flags |= CLOSED * any(row.values[0] > 1.5 for row in newest)
    return *newest[0][1:3], flags, tuple(values), tuple(statuses)


def ordered(row: Row) -> tuple[int, bool, int]:
    """What a tick of an entity is known by, and comes after others by."""
    return row.time, row.schema > 0, row.sequence


class Held:
    """Reads days that are in memory, the entities in parts."""

    def __init__(self, rows: Sequence[Row], repaired: bool, parts: int) -> None:
        self._rows = rows
        self._repaired = repaired
        self._parts = parts

    @property
    def days(self) -> list[Day]:
        return [Day(n) for n in sorted({row.time // DAY_NS for row in self._rows})]

    def ticks(self, day: Day, of: Any = None) -> Iterator[Any]:
        for part in range(self._parts):
            rows = [
                row
                for row in self._rows
                if row.time // DAY_NS == day.number
                and row.entity % self._parts == part
                and (of is None or of[row.entity])
                and (self._repaired or row.revision == 0)
            ]
            yield ticks_of(day_rows(rows), self._repaired, in_order=False)


def day_rows(rows: Sequence[Row]) -> DayRows:
    columns = list(zip(*rows, strict=True)) or [()] * 9
    dtypes = np.int32, np.int64, np.int64, np.int16, np.int32, np.int64, np.bool_
    plain: Any = [np.array(c, dtype) for c, dtype in zip(columns[:7], dtypes, strict=True)]
    values = [np.array([row.values[i] for row in rows], np.float64) for i in range(VERSIONS)]
    statuses = [np.array([row.statuses[i] for row in rows], np.uint8) for i in range(VERSIONS)]
    return DayRows(*[*plain, values[0] > 1.5, values, statuses])


def listed(answers: Answers) -> list[Answer]:
    return [
        (
            *(int(column[i]) for column in answers.columns[:3]),
            tuple(None if v[i] != v[i] else float(v[i]).hex() for v in answers.values),
            tuple(int(codes[i]) for codes in answers.statuses),
        )
        for i in range(len(answers.times))
    ]


def asked_of(chance: random.Random, rows: Sequence[Row], n: int) -> list[Question]:
    """Questions at moments of ticks and beside them, some equal, some about nobody's past."""
    moments = [row.time for row in rows] + [row.known for row in rows] + [FIRST]
    found = []
    for _ in range(n):
        moment = chance.choice(moments) + chance.choice([-1, 0, 0, 1, DAY_NS])
        found.append(Question(chance.randrange(ENTITIES + 1), moment, moment))
    return [*found, *chance.choices(found, k=10)]


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("seed", seeds(25, 1_000))
def test_every_answer_is_what_a_search_of_all_rows_finds(seed: int, repaired: bool) -> None:
    """In one part and in many, from questions in memory and on disk, entities in parts."""
    chance = random.Random(seed)
    rows = drawn(chance, chance.randrange(60), repaired)
    asked = asked_of(chance, rows, 60)
    by = chance.choice(["moment", "one", "any"])
    if by == "one":
        last = max((row.known for row in rows), default=FIRST) - chance.choice([-1, 0, DAY_NS])
        asked = [one._replace(known=last) for one in asked]
    if by == "any":
        asked = [one._replace(known=chance.choice(asked).moment) for one in asked]
    expected = [searched(rows, one, repaired) for one in asked]
    columns = [np.array(c) for c in zip(*asked, strict=True)]
    entity, moments, known = columns[0].astype(np.int32), columns[1], columns[2]
    held = Held(rows, repaired, chance.choice([1, 3]))
    has = np.array([any(row.entity == e for row in rows) for e in range(ENTITIES + 1)])
    of = Sweep(held.days, has, VERSIONS)
    days = sorted({one.moment // DAY_NS for one in asked})
    for parts in (parts_of(days, 1_000), parts_of(days, 0), [Part(day, day) for day in days]):
        questions = HeldQuestions(entity, moments, known, VERSIONS)
        for part in chance.sample(parts, len(parts)):
            sweep(of, part, held, questions)  # type: ignore[arg-type]
        assert listed(questions.answers) == expected
    if by == "any":
        return
    with SpilledQuestions(
        lambda at: at if by == "moment" else np.full_like(at, last), VERSIONS
    ) as spilled:
        cuts = [0, *sorted(chance.choices(range(len(asked) + 1), k=3)), len(asked)]
        for begin, end in pairwise(cuts):
            spilled.add(entity[begin:end], moments[begin:end])
        for part in parts_of(days, chance.choice([0, 2])):
            sweep(of, part, held, spilled)  # type: ignore[arg-type]
        found = [one for number in range(len(cuts) - 1) for one in listed(spilled.answers(number))]
    assert found == expected
