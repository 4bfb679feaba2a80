"""Questions in the order in which they were asked, on disk, and read again day by day.

    batch ──► sorted by day ──► file of questions ──► a day's ──► file of answers ──► batch

A batch is what is asked at once, and answered at once. Of each question the file has the entity,
the moment and its place in the batch. What is in memory are the positions: a few numbers for each
batch and day. A file that nothing has a name for is gone with the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.formats.lake import DAY_NS

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]

KnownOf = Callable[[Int64s], Int64s]
"""By when ticks had to be known that count at moments."""


class Segment(NamedTuple):
    """Questions of a batch about a day."""

    batch: int
    day: int
    entity: Int32s
    moments: Int64s
    known: Int64s


class Answers(NamedTuple):
    """The ticks of k questions."""

    times: Int64s
    """(k,) Event times, `NO_TIME` where there is no tick."""
    sequences: Int64s
    flags: NDArray[np.uint8]
    """(k,) Those of `serving.history.lake.day_ticks`."""
    values: Sequence[NDArray[np.float64]]
    statuses: Sequence[NDArray[np.uint8]]

    @property
    def columns(self) -> list[Any]:
        """All of them."""
        return [self.times, self.sequences, self.flags, *self.values, *self.statuses]

    def some(self, which: Any) -> Answers:
        """Some of them."""
        columns, n = [column[which] for column in self.columns], len(self.values)
        return Answers(columns[0], columns[1], columns[2], columns[3 : 3 + n], columns[3 + n :])


class Questions(Protocol):
    """Questions that a sweep answers."""

    def days(self) -> list[int]:
        """The days that are asked about, in order."""

    def least_known(self) -> Int64s:
        """The least moment by which ticks had to be known, by day."""

    def most_known(self) -> int:
        """The greatest of these moments of all days."""

    def segments(self, day: int) -> Iterator[Segment]:
        """The questions about a day."""

    def answer(self, segment: Segment, answers: Answers) -> None:
        """Take the answers to a segment, in place of those before."""

    def answered(self, segment: Segment) -> Answers:
        """The answers to a segment that were taken last."""


class _Batch(NamedTuple):
    begin: int
    """Where its questions begin in the file, in bytes."""
    rows: int
    of_day: dict[int, tuple[int, int]]
    """The first of its questions about each day, in order of days, and the one after the last."""


class SpilledQuestions:
    """Questions in a file, and their answers, with so many versions, in another one.

    `known_of` says of moments by when ticks had to be known. Used as a context. Raises OSError.
    """

    def __init__(self, known_of: KnownOf, versions: int, folder: Path | None = None) -> None:
        self._known_of = known_of
        self._versions = versions
        self._asked: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._answered: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._size = 0
        self._batches: list[_Batch] = []
        self._least: dict[int, int] = {}
        self._most = np.iinfo(np.int64).min
        self._answers: dict[tuple[int, int], int] = {}
        self._answered_bytes = 0

    def __enter__(self) -> SpilledQuestions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files."""
        self._asked.close()
        self._answered.close()

    def add(self, entity: Int32s, moments: Int64s) -> None:
        """Add the questions of a batch."""
        if not len(moments):
            self._batches.append(_Batch(self._size, 0, {}))
            return
        days = moments // DAY_NS
        since = days - days.min()
        small = int(since.max()) < 2**15
        order = np.argsort(since.astype(np.int16) if small else since, kind="stable")
        of_day, begins = np.unique(days[order], return_index=True)
        ends = np.append(begins[1:], len(order))
        positions = {
            day: (begin, end)
            for day, begin, end in zip(of_day.tolist(), begins.tolist(), ends.tolist(), strict=True)
        }
        known = self._known_of(moments)[order]
        for day, (begin, _) in positions.items():
            least = int(known[begin : positions[day][1]].min())
            self._least[day] = min(self._least.get(day, least), least)
        self._most = max(self._most, int(known.max()))
        self._batches.append(_Batch(self._size, len(order), positions))
        for column in (entity[order], moments[order], order.astype(np.int32)):
            _write(self._asked, np.ascontiguousarray(column).view(np.uint8).data, self._size)
            self._size += column.nbytes

    @property
    def rows(self) -> int:
        """The number of questions."""
        return sum(batch.rows for batch in self._batches)

    def rows_of(self, day: int) -> int:
        """The number of questions about a day."""
        found = (batch.of_day.get(day, (0, 0)) for batch in self._batches)
        return sum(end - begin for begin, end in found)

    def days(self) -> list[int]:
        """The days that are asked about, in order."""
        return sorted(self._least)

    def least_known(self) -> Int64s:
        """The least moment by which ticks had to be known, by day."""
        return np.array([self._least[day] for day in self.days()], np.int64)

    def most_known(self) -> int:
        """The greatest of these moments of all days."""
        return int(self._most)

    def segments(self, day: int) -> Iterator[Segment]:
        """The questions about a day."""
        for number, batch in enumerate(self._batches):
            if day not in batch.of_day:
                continue
            begin, end = batch.of_day[day]
            entity = self._column(batch, 0, 4, begin, end, np.int32)
            moments = self._column(batch, 4, 8, begin, end, np.int64)
            yield Segment(number, day, entity, moments, self._known_of(moments))

    def _column(
        self, batch: _Batch, before: int, width: int, begin: int, end: int, dtype: Any
    ) -> Any:
        position = batch.begin + before * batch.rows + width * begin
        return np.frombuffer(_read(self._asked, width * (end - begin), position), dtype)

    def answer(self, segment: Segment, answers: Answers) -> None:
        """Take the answers to a segment, in place of those before."""
        columns = [np.ascontiguousarray(column) for column in answers.columns]
        key = segment.batch, segment.day
        if key not in self._answers:
            self._answers[key] = self._answered_bytes
            self._answered_bytes += sum(column.nbytes for column in columns)
        position = self._answers[key]
        for column in columns:
            _write(self._answered, column.view(np.uint8).data, position)
            position += column.nbytes

    def answered(self, segment: Segment) -> Answers:
        """The answers to a segment that were taken last."""
        found = empty_answers(len(segment.entity), self._versions)
        self._fill(found, slice(None), self._answers[segment.batch, segment.day])
        return found

    def answers(self, number: int) -> Answers:
        """The answers to a batch, in the order of its questions."""
        batch = self._batches[number]
        found = empty_answers(batch.rows, self._versions)
        order = self._column(batch, 12, 4, 0, batch.rows, np.int32)
        for day, (begin, end) in batch.of_day.items():
            self._fill(found, order[begin:end], self._answers[number, day])
        return found

    def _fill(self, found: Answers, place: Any, position: int) -> None:
        """Fill in answers that lie one column after the other."""
        n = len(found.times[place])
        size = sum(column.itemsize for column in found.columns) * n
        raw = _read(self._answered, size, position)
        begin = 0
        for column in found.columns:
            column[place] = np.frombuffer(raw, column.dtype, n, begin)
            begin += column.itemsize * n


class HeldQuestions:
    """Questions in memory, all of one batch; with their answers, they can go to other processes."""

    def __init__(self, entity: Int32s, moments: Int64s, known: Int64s, versions: int) -> None:
        self._order = np.argsort(moments // DAY_NS, kind="stable")
        self._entity = np.ascontiguousarray(entity[self._order])
        self._moments = np.ascontiguousarray(moments[self._order])
        self._known = np.ascontiguousarray(known[self._order])
        days, begins = np.unique(self._moments // DAY_NS, return_index=True)
        ends = np.append(begins[1:], len(self._moments))
        self._of_day = dict(
            zip(days.tolist(), zip(begins.tolist(), ends.tolist(), strict=True), strict=True)
        )
        self.answers = empty_answers(len(moments), versions)
        """In the order in which the questions were given."""

    def days(self) -> list[int]:
        """The days that are asked about, in order."""
        return list(self._of_day)

    def least_known(self) -> Int64s:
        """The least moment by which ticks had to be known, by day."""
        begins = [begin for begin, _ in self._of_day.values()]
        return np.minimum.reduceat(self._known, begins) if begins else np.empty(0, np.int64)

    def most_known(self) -> int:
        """The greatest of these moments of all days."""
        return int(self._known.max(initial=np.iinfo(np.int64).min))

    def segments(self, day: int) -> Iterator[Segment]:
        """The questions about a day."""
        if day in self._of_day:
            part = slice(*self._of_day[day])
            yield Segment(0, day, self._entity[part], self._moments[part], self._known[part])

    def answered(self, segment: Segment) -> Answers:
        """The answers to a segment that were taken last."""
        return self.answers.some(self._order[slice(*self._of_day[segment.day])])

    def answer(self, segment: Segment, answers: Answers) -> None:
        """Take the answers to a segment, in place of those before."""
        place = self._order[slice(*self._of_day[segment.day])]
        for column, found in zip(self.answers.columns, answers.columns, strict=True):
            column[place] = found


def empty_answers(n: int, versions: int) -> Answers:
    """Answers to n questions that are still to be filled in."""
    return Answers(
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.uint8),
        [np.empty(n, np.float64) for _ in range(versions)],
        [np.empty(n, np.uint8) for _ in range(versions)],
    )


def _read(file: IO[bytes], size: int, position: int) -> bytes:
    parts = []
    while size:
        part = os.pread(file.fileno(), size, position)
        if not part:
            raise OSError("a temporary file is shorter than what was written to it")
        parts.append(part)
        size, position = size - len(part), position + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(file: IO[bytes], data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(file.fileno(), data, position)
        data, position = data[written:], position + written
