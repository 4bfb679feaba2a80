"""Answers questions in one pass over the days of a source.

    seed ──► day ──► day ──► …      each day's ticks are searched by the questions about the day
              │       ▲
              └ carry ┘             and what it leaves to later days are few ticks an entity

The carry has of each entity the newest tick that was known, and newer ones that were not known yet:
no other tick of earlier days can be an answer. A pass may begin on any day: its seed is what all
earlier days would have left, found by going back until each entity has a tick that was known. So
parts of a sweep need nothing of each other, and have together the bits of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.features.columns import NO_TIME
from serving.history.lake.day_reader import DayReader
from serving.history.lake.day_ticks import LACKS, DayTicks, joined_ticks, no_ticks, sequences_of
from serving.history.lake.days import Day
from serving.history.lake.kernel import (
    BLOCK_BITS,
    NEVER,
    entity_bounds,
    find,
    least_known,
    needed_later,
    take,
)
from serving.history.lake.questions import Answers, Questions, Segment, empty_answers
from serving.history.stopped import Stopped

LONGEST_GAP = 7
"""Days about which nothing is asked and that are read all the same; over more a seed is cheaper."""

Int64s = NDArray[np.int64]


class Part(NamedTuple):
    """Days that are answered in one pass: those asked about, and the ones between them."""

    first: int
    last: int


def parts_of(asked: Sequence[int], longest_gap: int = LONGEST_GAP) -> list[Part]:
    """The parts of a sweep about some days, which are in order."""
    found: list[Part] = []
    for day in asked:
        if found and day - found[-1].last <= longest_gap + 1:
            found[-1] = found[-1]._replace(last=day)
        else:
            found.append(Part(day, day))
    return found


class Sweep(NamedTuple):
    """What the parts of a sweep have in common; `days` are all of the source that have ticks."""

    days: Sequence[Day]
    known: NDArray[np.bool_]
    """(e,) Of which of the entities the source has ever had a tick."""
    versions: int
    """How many versions are read."""


def _nobody(questions: int) -> None:
    """Nobody is told."""


class Watch(NamedTuple):
    """Who looks on."""

    stop: Event = Event()
    """Ends the sweep once it is set."""
    answered: Callable[[int], None] = _nobody
    """Takes how many more questions are answered."""


UNWATCHED = Watch()


def sweep(
    of: Sweep, part: Part, reader: DayReader, questions: Questions, watch: Watch = UNWATCHED
) -> None:
    """Answer the questions about the days of a part.

    Raises as `DayReader.ticks`, and `Stopped`.
    """
    limits = _Limits(questions, part)
    own = [day for day in of.days if part.first <= day.number <= part.last]
    earlier = [day for day in of.days if day.number < part.first]
    passed = _Pass(of, questions)
    passed.carry = _seed(passed, reader, earlier, limits.of(part.first), watch.stop)
    asked = {day for day in questions.days() if part.first <= day <= part.last}
    with ThreadPoolExecutor(1, "lake") as pool:
        ahead = _ahead(pool, ((day.number, ticks) for day in own for ticks in reader.ticks(day)))
        read = next(ahead, None)
        for number in sorted({*asked, *(day.number for day in own)}):
            _check(watch.stop)
            of_day = _OfDay(passed, number, number in asked, limits.of(number + 1))
            while read is not None and read[0] == number:
                of_day.search(read[1])
                read = next(ahead, None)
            watch.answered(of_day.end())


def _check(stop: Event) -> None:
    if stop.is_set():
        raise Stopped


def _ahead(
    pool: ThreadPoolExecutor, read: Iterator[tuple[int, DayTicks]]
) -> Iterator[tuple[int, DayTicks]]:
    """What is read, the next of it while one is searched; raises here what reading raises."""
    following = pool.submit(next, read, None)
    while (found := following.result()) is not None:
        following = pool.submit(next, read, None)
        yield found


class _Limits:
    """The least and the greatest moment by which ticks had to be known, of questions to come."""

    def __init__(self, questions: Questions, part: Part) -> None:
        days, least = np.array(questions.days(), np.int64), questions.least_known()
        within = (days >= part.first) & (days <= part.last)
        self._days = days[within]
        self._least = np.minimum.accumulate(least[within][::-1])[::-1]
        self._most = questions.most_known()

    def of(self, day: int) -> tuple[int, int]:
        """Those of the questions about a day and later ones."""
        index = int(np.searchsorted(self._days, day))
        return (int(self._least[index]) if index < len(self._least) else NEVER), self._most


class _Searched:
    """Ticks that are searched; `bounds` (e, 2) is filled in."""

    def __init__(self, ticks: DayTicks, bounds: Int64s) -> None:
        self.ticks = ticks
        self.bounds = bounds
        assert entity_bounds(ticks.entity, bounds), "ticks of an entity do not lie together"
        self.least = np.empty((len(ticks) >> BLOCK_BITS) + 1, np.int64)
        least_known(ticks.known, self.least)

    def find(self, asked: Segment, newer: Int64s) -> Int64s:
        """(k,) The index of each question's tick, -1 where none counts, or a `newer` one does."""
        ticks, found = self.ticks, np.empty(len(asked.entity), np.int64)
        searched = ticks.times, ticks.orders, ticks.known, ticks.gone, self.least
        find((asked.entity, asked.moments, asked.known), self.bounds, searched, newer, found)
        return found

    def take(self, found: Int64s, answers: Answers) -> None:
        """Put the ticks that were found into answers; others stay."""
        ticks = self.ticks
        own = ticks.times, ticks.orders, ticks.flags, *ticks.values, *ticks.statuses
        for column, taken in zip(own, answers.columns, strict=True):
            take(found, column, taken)
        answers.sequences[:] = sequences_of(answers.sequences)  # those before stay as they are

    def needed(self, settled: Int64s, limits: tuple[int, int]) -> DayTicks:
        """Those that later questions may need."""
        needed = np.zeros(len(self.ticks), np.bool_)
        needed_later(self.bounds, self.ticks.known, self.ticks.may_go, settled, limits, needed)
        return self.ticks.some(needed)


class _Pass:
    """A pass over days: `carry` is what those before have left."""

    def __init__(self, of: Sweep, questions: Questions) -> None:
        self.of = of
        self.questions = questions
        self.bounds = self.empty_bounds()
        """Those of the ticks that are searched just now."""
        self.carry = _Searched(no_ticks(of.versions), self.empty_bounds())

    def empty_bounds(self) -> Int64s:
        """Bounds of no ticks."""
        return np.zeros((len(self.of.known), 2), np.int64)

    def unanswered(self, n: int) -> Answers:
        """Answers that say that there is no tick."""
        found = empty_answers(n, self.of.versions)
        found.times[:], found.sequences[:], found.flags[:] = NO_TIME, 0, 0
        for values, statuses in zip(found.values, found.statuses, strict=True):
            values[:], statuses[:] = np.nan, LACKS
        return found


class _OfDay:
    """A day, whose ticks come some entities at a time; `limits` are of questions about later ones.

    Ends with the carry that it leaves.
    """

    def __init__(self, passed: _Pass, number: int, is_asked: bool, limits: tuple[int, int]) -> None:
        self._pass = passed
        self._number = number
        self._is_asked = is_asked
        self._limits = limits
        self._settled = np.full(len(passed.bounds), NEVER, np.int64)
        self._left: list[DayTicks] = []
        self._are_answered = False
        self._n = 0

    def search(self, ticks: DayTicks) -> None:
        """Answer the questions about the entities of these ticks."""
        if not len(ticks):
            return
        searched = _Searched(ticks, self._pass.bounds)
        self._answer(searched)
        self._left.append(searched.needed(self._settled, self._limits))

    def _answer(self, searched: _Searched | None) -> None:
        if not self._is_asked:
            return
        questions = self._pass.questions
        for segment in questions.segments(self._number):
            found = np.full(len(segment.entity), -1, np.int64)
            if searched is not None:
                found = searched.find(segment, found)
            if self._are_answered:
                answers = questions.answered(segment)
            else:
                answers = self._pass.unanswered(len(found))
                self._n += len(found)
                carry = self._pass.carry
                carry.take(carry.find(segment, found), answers)
            if searched is not None:
                searched.take(found, answers)
            questions.answer(segment, answers)
        self._are_answered = True

    def end(self) -> int:
        """Answer what no tick of the day did, and leave to later days what they may need.

        Returns how many questions about the day there were.
        """
        if not self._are_answered:
            self._answer(None)
        before = self._pass.carry.needed(self._settled, self._limits)
        left = joined_ticks([before, *self._left])
        self._pass.carry = _Searched(left, self._pass.carry.bounds)
        return self._n


def _seed(
    passed: _Pass,
    reader: DayReader,
    earlier: Sequence[Day],
    limits: tuple[int, int],
    stop: Event,
) -> _Searched:
    """What earlier days leave to a part: they are read back from the newest one.

    An entity is read until it has a tick that was known by all questions; one of which the source
    has never had a tick is not looked for.
    """
    known = passed.of.known
    settled = np.where(known, NEVER, np.iinfo(np.int64).min)
    found: list[DayTicks] = []
    for day in reversed(earlier):
        _check(stop)
        open_ = settled > limits[0]
        if not open_.any():
            break
        for ticks in reader.ticks(day, open_):
            searched = _Searched(ticks, passed.bounds)
            found.append(searched.needed(settled, limits))
    seed = joined_ticks([no_ticks(passed.of.versions), *reversed(found)])
    return _Searched(seed, passed.carry.bounds)
