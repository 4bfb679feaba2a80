"""Reads the ticks of days: in the files of the lake, in Postgres, or in both.

A day is read some entities at a time, so that what is in memory is bounded, whatever a day has; all
ticks of an entity and a day come together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from registry.formats.lake import DAY_NS
from serving.history.lake.day_ticks import DayRows, DayTicks, joined, ticks_of
from serving.history.lake.days import Day, DayFile
from serving.history.lake.files import EntityNumbers, OpenFile, OtherFile, columns_of, error_of
from serving.history.lake.stored_rows import Copy, Schemas, Stretch, stored_rows

ROWS_AT_ONCE = 1_000_000
"""Rows of files that are in memory at once, about: each row group has 131,072."""

STORED_BYTES = 32_000_000
"""Bytes of rows of Postgres that are in memory at once, about."""


class Reading(NamedTuple):
    """What is read of a source's days; it can be sent to another process."""

    source: str
    schemas: Schemas
    refs: tuple[str, ...]
    """The versions that are asked for, `name@version`."""
    complete: frozenset[str]
    """Those whose backfills are complete."""
    repaired: bool
    """Whether repairs count; else it is what was served."""
    rows_at_once: int = ROWS_AT_ONCE
    stored_bytes: int = STORED_BYTES

    def backfilled(self, day: Day) -> Collection[str]:
        """The versions whose backfilled values count that the day's files have.

        Of a day that Postgres has as well these are the values that its blocks have.
        """
        return self.refs if day.dropped else self.complete


class DayReader:
    """Reads the ticks of some entities, which are numbered by their place in `names`."""

    def __init__(self, reading: Reading, names: Sequence[str], copy: Copy) -> None:
        self._reading = reading
        self._copy = copy
        self._numbers = np.array(sorted(range(len(names)), key=names.__getitem__), np.int32)
        self._names = [names[number] for number in self._numbers.tolist()]
        self._texts = pa.array(self._names, pa.string())

    def ticks(self, day: Day, of: NDArray[np.bool_] | None = None) -> Iterator[DayTicks]:
        """The ticks of a day, of all entities or of those that `of` (e,) says.

        Raises `StoresUnavailable` for files that are needed and cannot be read, and SQLAlchemy's
        `DBAPIError`.
        """
        numbers, names, texts = self._numbers, self._names, self._texts
        if of is not None:
            asked = np.flatnonzero(of[numbers])
            numbers, texts = numbers[asked], texts.take(pa.array(asked))
            names = texts.to_pylist()
        if not names:
            return
        entities = _Entities(names, numbers, texts)
        if not day.files:
            yield from self._stored(day, entities)
            return
        with ExitStack() as stack:
            try:
                files = [stack.enter_context(self._opened(day, file)) for file in day.files]
            except OtherFile:  # another one took its place, and Postgres has the day as it was
                yield from self._stored(day, entities)
                return
            for part in _ranges(files, entities, self._reading.rows_at_once):
                yield from self._part(day, files, part)

    def _opened(self, day: Day, file: DayFile) -> OpenFile:
        reading = self._reading
        wanted = columns_of(
            file.schema_id, reading.schemas.features, reading.refs, reading.backfilled(day)
        )
        try:
            return OpenFile(file, wanted)
        except OtherFile as error:
            if day.dropped:
                raise error_of(file, reading.source, day.number, str(error)) from None
            raise

    def _stored(self, day: Day, entities: _Entities) -> Iterator[DayTicks]:
        for rows in self._stored_rows(day, entities):
            yield ticks_of(rows, self._reading.repaired, in_order=False)

    def _stored_rows(self, day: Day, entities: _Entities) -> list[DayRows]:
        reading = self._reading
        begin = day.number * DAY_NS
        stretch = Stretch(begin, begin + DAY_NS, reading.repaired)
        numbered = entities.numbers.tolist(), entities.names
        return stored_rows(
            *(self._copy, reading.schemas, stretch, numbered, reading.refs, reading.stored_bytes)
        )

    def _part(self, day: Day, files: Sequence[OpenFile], entities: _Entities) -> Iterator[DayTicks]:
        """The ticks of entities that have few enough rows in the files of a day."""
        try:
            parts = list(self._rows_of_files(day, files, entities))
        except OtherFile:
            yield from self._stored(day, entities)
            return
        in_order = len(parts) == 1
        if day.in_postgres:
            stored = [rows for rows in self._stored_rows(day, entities) if len(rows.entity)]
            in_order &= not stored
            parts += stored
        if parts:
            yield ticks_of(joined(parts), self._reading.repaired, in_order)

    def _rows_of_files(
        self, day: Day, files: Sequence[OpenFile], entities: _Entities
    ) -> Iterator[DayRows]:
        reading = self._reading
        numbers = EntityNumbers(entities.texts, entities.numbers)
        for opened, file in zip(files, day.files, strict=True):
            groups = [
                number
                for number, (first, last, _) in enumerate(opened.groups)
                if entities.has_any(first, last)
            ]
            try:
                rows = opened.rows(groups, numbers, reading.repaired)
            except OtherFile as error:
                if day.dropped:
                    raise error_of(file, reading.source, day.number, str(error)) from None
                raise
            if rows is not None:
                yield rows


class _Entities(NamedTuple):
    """Entities in the order of their names."""

    names: Sequence[str]
    numbers: NDArray[np.int32]
    texts: pa.Array

    def between(self, first: str, end: str | None) -> _Entities:
        """Those from one name up to another one, or to the last one."""
        past = len(self.names) if end is None else bisect_left(self.names, end)
        part = slice(bisect_left(self.names, first), past)
        return _Entities(self.names[part], self.numbers[part], self.texts[part])

    def has_any(self, first: str | None, last: str | None) -> bool:
        """Whether one of them has a name from `first` to `last`; None is not known."""
        if first is None or last is None:
            return True
        index = bisect_left(self.names, first)
        return index < len(self.names) and self.names[index] <= last


def _ranges(files: Sequence[OpenFile], entities: _Entities, most: int) -> Iterator[_Entities]:
    """The entities in parts that have about so many rows in the files."""
    groups = [
        (first, rows)
        for file in files
        for first, last, rows in file.groups
        if first is not None and entities.has_any(first, last)
    ]
    begin, n = "", 0
    for first, rows in sorted(groups):
        if n and n + rows > most and first > begin:
            part = entities.between(begin, first)
            if part.names:
                yield part
            begin, n = first, 0
        n += rows
    rest = entities.between(begin, None)
    if rest.names:
        yield rest
