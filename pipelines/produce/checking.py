"""The whole input through the product's own decoder, before the first row is sent.

    file ─► TickRows ─► messages ─► Decoder ─► Order
                                       └► problems: an error, or rows of the file of rejects

A row that was sent before a bad one appeared would be sent again by the second try. So files are
read twice: to be checked, and to be sent.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import Stopped
from pipelines.produce.cell_columns import texts
from pipelines.produce.errors import BadFile, BadRow, Mistaken, NothingToSend, Problem
from pipelines.produce.options import FileOptions
from pipelines.produce.order import ROW_BITS, Order
from pipelines.produce.read_ahead import ahead
from pipelines.produce.tick_rows import TickFile, TickRows
from pipelines.ticks.columns import Rejection, Ticks
from pipelines.ticks.decoder import Decoder
from pipelines.ticks.rejection_reasons import FROM_THE_FUTURE, KEY_MISMATCH, OUT_OF_RANGE
from registry.definitions import Source

FIELD_OF = {OUT_OF_RANGE: "ts", FROM_THE_FUTURE: "ts", KEY_MISMATCH: "key"}
"""The field that a reason is about; of other reasons the detail begins with it."""

WAY_OUT = "; nothing was sent. --reject FILE sends the good rows, and writes the others there"


class TickFiles:
    """Files that are read one after the other, as often as asked, as ticks of one source."""

    def __init__(self, files: Sequence[Path], source: Source, options: FileOptions) -> None:
        self.files = files
        self.source = source
        self.options = options
        self._sizes = [max(1, file.stat().st_size) for file in files]
        self._states: dict[Path, tuple[int, int]] = {}
        self._read = 0
        self._open: TickFile | None = None
        self.any_doubled = False
        """Whether the order of rows has told the times of a doubled hour apart."""

    def blocks(self) -> Iterator[tuple[int, TickRows]]:
        """The rows of all files, each block with the index of its file.

        Raises `BadFile` also for a file that has changed since it was read before.
        """
        self._read = 0
        for index, file in enumerate(self.files):
            state = file.stat()
            now = (state.st_size, state.st_mtime_ns)
            if self._states.setdefault(file, now) != now:
                raise BadFile(file, 0, "it was changed while it was checked; start again")
            with closing(TickFile(file, self.source, self.options)) as self._open:
                for rows in self._open.blocks():
                    yield index, rows
                self.any_doubled |= self._open.local_times.any_doubled
            self._open = None
            self._read += self._sizes[index]

    def done(self) -> float:
        """How much of the files was read, 0 to 1."""
        opened = self._open
        index = min(len(self._sizes) - 1, self.files.index(opened.file)) if opened else 0
        part = opened.table.done() * self._sizes[index] if opened else 0
        return min(1.0, (self._read + part) / sum(self._sizes))

    def place(self, index: int, row: int) -> int:
        """The place of a row among all files."""
        return index << ROW_BITS | row

    def named(self, place: int) -> str:
        """A row by its place, as it is named in messages."""
        return f"{self.files[place >> ROW_BITS]}, row {place & ((1 << ROW_BITS) - 1)}"


@dataclass(slots=True)
class Checked:
    """What the check has found. `refused` are masks of the good rows, by the number of a block."""

    good: int = 0
    empty: int = 0
    problems: int = 0
    refused: dict[int, Any] = field(default_factory=dict)


class Rejects:
    """The file for rows that are no ticks: their own cells, and a column that says why.

    It is a CSV with commas and the names of the file that they came from, if it has any. Until
    `keep` it has another name, and `close` removes it.
    """

    def __init__(self, file: Path) -> None:
        """Raises `Mistaken` for a file that exists: it may be the one that is read."""
        if file.exists():
            raise Mistaken(f"--reject {file}: it exists already; name a new file")
        self.file = file
        self._opened: Any = None
        self._writer: Any = None
        self._names: Sequence[str] | None = None

    def write(self, rows: TickRows, problems: Sequence[Problem]) -> None:
        """Write what is wrong with rows of a block."""
        names = rows.plan.table
        if self._names is None:
            self._opened = self._create()
            self._writer = csv.writer(self._opened)
            if any(names):
                self._writer.writerow([*names, "problem"])
            self._names = names
        if list(self._names) != list(names):
            raise Mistaken("--reject: the files have different columns; send them one by one")
        original = rows.original
        index_of = (
            {}
            if original is None
            else {number: index for index, number in enumerate(original.numbers.tolist())}
        )
        for problem in problems:
            index = index_of.get(problem.row)
            cells: list[Any] = [*problem.cells, *[""] * (len(names) - len(problem.cells))]
            if index is not None and original is not None:
                cells = [_shown(column.slice(index, 1)) for column in original.columns]
            self._writer.writerow([*cells, str(problem)])

    def keep(self) -> None:
        """Give the file its name: what is not in it is sent. Raises `Mistaken`."""
        if self._opened is None:
            return
        self._opened.close()
        if self.file.exists():
            raise Mistaken(f"--reject {self.file}: it exists meanwhile; nothing was sent")
        Path(self._opened.name).rename(self.file)
        self._opened = None

    def close(self) -> None:
        """Remove what was not kept."""
        if self._opened is not None:
            self._opened.close()
            Path(self._opened.name).unlink(missing_ok=True)
            self._opened = None

    def _create(self) -> Any:
        part = self.file.with_name(f".{self.file.name}.{os.getpid()}.part")
        try:
            return part.open("x", newline="", encoding="utf-8")
        except OSError as error:
            raise Mistaken(f"--reject {self.file}: {error.strerror}") from None


def _shown(cell: Any) -> str:
    """A column of one cell as the text that it was read as, which a second try reads as well."""
    try:
        return str(texts(cell, "")[0].as_py())
    except Mistaken:
        return str(cell[0].as_py())


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """`order` is None where rows get the time of sending. `rejects` is where bad rows go."""

    order: Order | None
    rejects: Rejects | None = None
    limit: int | None = None


def check(
    files: TickFiles, options: CheckOptions, progress: Callable[[int], None], stop: Event
) -> Checked:
    """Check every row. `progress` is told how many are good so far.

    Raises `BadRow` for the first row that is no tick where there is no file for them, and for one
    whose time is unclear in any case; `NothingToSend`, `BadFile`, and `Stopped`.
    """
    found, decoder = Checked(), Decoder(files.source)
    last: tuple[int, int] | None = None
    for number, (index, rows) in enumerate(ahead(files.blocks())):
        if stop.is_set():
            raise Stopped("nothing was sent")
        if last is not None and index != last[0]:
            break
        _check_clear(files, index, rows, None if last is None else last[1])
        if last is not None:
            continue
        rows, judged = _first(decoder, rows, files, options.limit, found.good)
        found.good += int(judged.good.sum())
        found.empty += rows.empty
        if options.order is not None and judged.ticks is not None:
            places = rows.numbers[judged.ticks.record] | files.place(index, 0)
            options.order.add(judged.ticks, places)
        if not judged.good.all():
            found.refused[number] = judged.good
        if judged.problems:
            _refuse(files, index, rows, judged.problems, options.rejects, found)
        progress(found.good)
        if options.limit is not None and found.good >= options.limit:
            if files.options.tz is None:
                break
            # rows behind the last one may tell which of two hours it is in
            last = index, int(rows.numbers[-1])
    if not found.good:
        raise NothingToSend(
            f"no row is a tick: {found.empty:,} without a value were passed over, "
            f"{found.problems:,} are bad; nothing was sent"
        )
    return found


def sendable(files: TickFiles, found: Checked) -> Iterator[TickRows]:
    """The rows that are to be sent, once they are checked."""
    sent = 0
    for number, (_, rows) in enumerate(files.blocks()):
        good = found.refused.get(number)
        if good is not None:
            rows = rows.slice(0, len(good)).only(good)
        rows = rows.slice(0, min(len(rows), found.good - sent))
        sent += len(rows)
        if len(rows):
            yield rows
        if sent >= found.good:
            return


class _Judged(NamedTuple):
    """What is wrong with rows, in their order, a mask of the good ones, and their ticks."""

    problems: list[Problem]
    good: Any
    ticks: Ticks | None


def _first(
    decoder: Decoder, rows: TickRows, files: TickFiles, limit: int | None, had: int
) -> tuple[TickRows, _Judged]:
    """As many rows as a limit leaves, judged; those that are no ticks do not count."""
    now = time.time_ns()
    judged = _judge(decoder, rows, files, now)
    if limit is None or had + int(judged.good.sum()) < limit:
        return rows, judged
    cut = rows.slice(0, int(np.flatnonzero(judged.good)[limit - had - 1]) + 1)
    problems = [problem for problem in rows.problems if problem.row < cut.numbers[-1]]
    first = replace(cut, problems=problems, original=rows.original)
    return first, _judge(decoder, first, files, now)


def _judge(decoder: Decoder, rows: TickRows, files: TickFiles, now: int) -> _Judged:
    """Judge rows as a worker would at a moment, nanoseconds: each is one tick, or a problem."""
    problems = list(rows.problems)
    if not len(rows):
        return _Judged(sorted(problems), np.ones(0, np.bool_), None)
    ticks = decoder.decode(rows.messages(now).run(now // 10**6))
    good = np.bincount(ticks.record, minlength=len(rows)) == 1
    refused = np.zeros(len(rows), np.bool_)
    for rejection in ticks.rejected:
        good[rejection.offset] = False
        refused[rejection.offset] = True
        problems.append(_problem(rejection, rows, files))
    for index in np.flatnonzero(~(good | refused)).tolist():
        text = f"workers would pass over it: it is no tick of {files.source.name} (where)"
        problems.append(Problem(int(rows.numbers[index]), "", text))
    return _Judged(sorted(problems), good, ticks)


def _check_clear(files: TickFiles, index: int, rows: TickRows, last: int | None) -> None:
    """Raises `BadRow` for a row of unclear time, up to the last row that is sent, None for any.

    No file of rejects takes it: which other rows are of the unclear hour is not known either.
    """
    for problem in rows.unclear:
        if last is None or problem.row <= last:
            raise BadRow(files.files[index], problem, "; nothing was sent")


def _problem(rejection: Rejection, rows: TickRows, files: TickFiles) -> Problem:
    """A rejection of the decoder, by the column of the field that it is about."""
    field = FIELD_OF.get(rejection.reason) or rejection.detail.split(" ", 1)[0]
    shown = rows.plan.shown.get(files.source.key[0] if field == "key" else field, "")
    row = int(rows.numbers[rejection.offset])
    return Problem(row, shown, f"{rejection.detail} ({rejection.reason})")


def _refuse(
    files: TickFiles,
    index: int,
    rows: TickRows,
    problems: Sequence[Problem],
    rejects: Rejects | None,
    found: Checked,
) -> None:
    file = files.files[index]
    if rejects is None:
        raise BadRow(file, problems[0], WAY_OUT)
    found.problems += len(problems)
    rejects.write(rows, problems)
