"""All rows of a training set answered in one sweep over the days, before the first one is joined.

    rows ──► questions on disk ──► sweep over days ──► answers on disk ──► rows, a piece at a time

A source is swept where that is quicker than to look up each row's tick: where the lake has the
days, and rows are many for the ticks that have to be read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from types import TracebackType

import numpy as np

from serving.history.entity_rows import EntityRows
from serving.history.found_ticks import About, Backfills, FoundTicks
from serving.history.lake.questions import KnownOf, SpilledQuestions
from serving.history.lake.source_sweep import SourceSweep
from serving.history.lake.sweep import Watch
from serving.history.snapshot import LakeReads, Snapshot


class SetSweep:
    """The sources of a set that are swept; used as a context, which ends with the files.

    `refs` are the versions that are read of each source, `name@version`; `known_of` says of moments
    by when ticks had to be known, with repairs or not. Files are in `folder`, or where temporary
    files are.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        refs: Mapping[str, Collection[str]],
        backfills: Backfills,
        known_of: KnownOf,
        repaired: bool,
        folder: Path | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._stack = ExitStack()
        self._piece_at: dict[int, int] = {}
        self._rows = 0
        self._sources = {}
        for source, of_source in refs.items():
            swept = SourceSweep(snapshot, source, of_source, backfills, repaired)
            if swept.of.in_lake:
                questions = SpilledQuestions(known_of, len(of_source), folder)
                self._sources[source] = _Swept(swept, self._stack.enter_context(questions))

    def __enter__(self) -> SetSweep:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(
        self,
        pieces: Iterable[EntityRows],
        stop: Event | None = None,
        done: Callable[[float], None] = lambda part: None,
    ) -> None:
        """Answer all rows, which come in the pieces in which they will be joined.

        `done` takes which part of them is answered, from 0 to 1. Raises `StoresUnavailable`,
        `Stopped`, SQLAlchemy's `DBAPIError`, and OSError.
        """
        if not self._sources:
            return
        keys = self._snapshot.catalog.sources
        for rows in pieces:
            self._piece_at[self._rows] = len(self._piece_at)
            self._rows += len(rows)
            for source, swept in self._sources.items():
                swept.add(rows, keys[source].key)
        for source, swept in list(self._sources.items()):
            if not swept.is_worth_it(self._snapshot.lake):
                del self._sources[source]
        answered = 0

        def told(questions: int) -> None:
            nonlocal answered
            answered += questions
            done(answered / (self._rows * len(self._sources)))

        for swept in self._sources.values():
            swept.run(Watch(stop or Event(), told))

    def found(self, source: str, first: int, about: About, empty: FoundTicks) -> FoundTicks | None:
        """The ticks of a piece of rows, the first of which is row `first`; None if not swept."""
        if source not in self._sources or first not in self._piece_at:
            return None
        answers = self._sources[source].questions.answers(self._piece_at[first])
        if len(answers.times) != len(about.entity):
            return None
        empty.take(slice(None), answers)
        empty.plan = "sweep"
        return empty


class _Swept:
    """A source, and the questions about it."""

    def __init__(self, of: SourceSweep, questions: SpilledQuestions) -> None:
        self.of = of.of
        self.questions = questions
        self._sweep = of
        self._numbers: dict[str, int] = {}

    def add(self, rows: EntityRows, key: tuple[str, ...]) -> None:
        """Ask what rows ask of it."""
        names, entity = rows.entities(key)
        known = self._numbers
        numbers = [known.setdefault(name, len(known)) for name in names]
        self.questions.add(np.array(numbers, np.int32)[entity], rows.moments)

    def is_worth_it(self, limits: LakeReads) -> bool:
        """Whether a sweep is quicker than to look up each question."""
        n = self.questions.rows
        parts = self._sweep.parts(self.questions)
        days = [day for part in parts for day in self.of.between(part.first, part.last)]
        if any(day.dropped for day in days):  # nothing else has all of it
            return True
        of_files = [day.rows for day in days if day.files]
        if n < limits.fewest_questions or not of_files:
            return False
        rows = sum(of_files)
        # what Postgres has of a day is not counted: it is as much as the lake has of another one
        stored = (len(days) - len(of_files)) * rows / len(of_files)
        return rows + stored * limits.stored_weight <= n * limits.rows_a_question

    def run(self, watch: Watch) -> None:
        """Answer them."""
        parts = self._sweep.parts(self.questions)
        self._sweep.run(list(self._numbers), self.questions, parts, watch)
