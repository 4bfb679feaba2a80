"""Parts of a sweep that other processes answer, on other machines perhaps.

    questions ──► parts ──► what a part needs is sent ──► its answers come back ──► questions

A part's process reads the lake's files at the paths that they have here, and Postgres as this
process's snapshot has it, which lives as long as this one holds it. Parts are sent some at a time,
so what is in memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from serving.history.lake.day_reader import DayReader, Reading
from serving.history.lake.questions import Answers, HeldQuestions, SpilledQuestions
from serving.history.lake.sweep import Part, Sweep, Watch, sweep
from serving.history.snapshot import Elsewhere, SharedSnapshot, copying
from serving.history.stopped import Stopped

MOST_ROWS = 2_000_000
"""Questions of a part, about, unless a day has more: of so many the answers are about 100 MB."""

PARTS_A_WORKER = 2
"""Parts that are sent at a time: one waits while another one is answered."""


class SweptSource(NamedTuple):
    """What all parts of a source have in common."""

    shared: SharedSnapshot
    reading: Reading
    names: Sequence[str]
    of: Sweep


class SentPart(NamedTuple):
    """What a process needs to answer a part of a sweep."""

    source: SweptSource
    part: Part
    questions: HeldQuestions


def answer_part(sent: SentPart, tell: Any, stop: Any) -> Answers | None:
    """The answers to the questions of a part, None where `stop` was set.

    `tell` takes how many there are so far. Raises as `sweep`.
    """
    answered = 0

    def told(questions: int) -> None:
        nonlocal answered
        answered += questions
        tell(answered)

    source = sent.source
    with copying(source.shared) as copy:
        reader = DayReader(source.reading, source.names, copy)
        try:
            sweep(source.of, sent.part, reader, sent.questions, Watch(stop, told))
        except Stopped:
            return None
    return sent.questions.answers


class SentParts:
    """Has parts of a source answered by `elsewhere`."""

    def __init__(
        self, elsewhere: Elsewhere, source: SweptSource, questions: SpilledQuestions
    ) -> None:
        self._elsewhere = elsewhere
        self._source = source
        self._questions = questions

    def answer(self, parts: Sequence[Part], watch: Watch) -> None:
        """Answer the questions of parts. Raises `Stopped`, and what `elsewhere` raises."""
        at_once = max(1, PARTS_A_WORKER * self._elsewhere.workers)
        share = max(self._questions.rows // at_once, self._elsewhere.fewest_rows)
        cut = list(_cut(parts, self._questions, min(share, MOST_ROWS)))
        for begin in range(0, len(cut), at_once):
            self._answer(cut[begin : begin + at_once], watch)

    def _answer(self, parts: Sequence[Part], watch: Watch) -> None:
        told = 0

        def tell(answered: Mapping[int, int]) -> None:
            nonlocal told
            now = sum(answered.values())
            watch.answered(max(0, now - told))
            told = max(now, told)

        sent = [SentPart(self._source, part, self._held(part)) for part in parts]
        found = self._elsewhere.run(answer_part, sent, tell, watch.stop)
        if watch.stop.is_set() or any(answers is None for answers in found):
            raise Stopped
        for part, answers in zip(parts, found, strict=True):
            self._take(part, answers)

    def _days(self, part: Part) -> list[int]:
        return [day for day in self._questions.days() if part.first <= day <= part.last]

    def _held(self, part: Part) -> HeldQuestions:
        """The questions of a part."""
        asked = self._questions
        segments = [one for day in self._days(part) for one in asked.segments(day)]
        columns = zip(*((one.entity, one.moments, one.known) for one in segments), strict=True)
        entity, moments, known = (np.concatenate(column) for column in columns)
        return HeldQuestions(entity, moments, known, self._source.of.versions)

    def _take(self, part: Part, found: Answers) -> None:
        """Take the answers to the questions of a part."""
        begin = 0
        for day in self._days(part):
            for segment in self._questions.segments(day):
                end = begin + len(segment.entity)
                self._questions.answer(segment, found.some(slice(begin, end)))
                begin = end


def _cut(parts: Sequence[Part], questions: SpilledQuestions, most: int) -> Iterator[Part]:
    """The same days in parts that have about so many questions."""
    for part in parts:
        days = [day for day in questions.days() if part.first <= day <= part.last]
        first, n = days[0], 0
        for day, following in pairwise(days):
            n += questions.rows_of(day)
            if n >= most:
                yield Part(first, day)
                first, n = following, 0
        yield Part(first, days[-1])
