"""The columns of a file's event time to nanoseconds UTC.

A time is an integer of a unit, a time in text (as RFC 3339 or ISO 8601 write it, or in a given
format), or a type of time of a Parquet file. Without a zone it is UTC, or local where a time zone
is given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.produce import cells
from pipelines.produce.arrow_arrays import booleans, int64s, integers, mask
from pipelines.produce.arrow_arrays import text as scalar
from pipelines.produce.cell_columns import NO_TIME, NO_VALUE, texts
from pipelines.produce.clock_digits import ClockDigits
from pipelines.produce.errors import Mistaken
from pipelines.produce.options import FILE_UNITS, FileOptions, FileUnit
from pipelines.produce.time_formats import TimeFormat
from pipelines.runtime.array_types import Int64s
from pipelines.ticks.event_time import EPOCH, LATEST, NANOSECONDS
from registry.definitions import TimeUnit

WHOLE = r"^[0-9]{1,19}$"
LOCAL = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?$"
ZONED = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})$"
)
DIGITS_OF_DATE = r"^(19|20|21)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])$"
"""Eight digits that can be a date, 1900 to 2199."""

UNKNOWN = np.iinfo(np.int64).min
"""The time of a row that has none."""


class Times(NamedTuple):
    """Nanoseconds of n rows, `UNKNOWN` without one, and which of them are local.

    By index, `wrong` says what is wrong, and `empty` which rows have a format's sign for no value.
    """

    nanoseconds: Int64s
    local: Any
    wrong: dict[int, str]
    empty: dict[int, str]


class TimeReader:
    """Reads the time columns of one source's files.

    Raises `Mistaken` for a format that Python does not know, and where a unit is unclear.
    """

    def __init__(self, options: FileOptions, ts_unit: TimeUnit, earliest: int) -> None:
        self._earliest = earliest
        self._format = None if options.ts_format is None else TimeFormat(options.ts_format)
        self._clocks = ClockDigits(self._format.clock_digits if self._format else 0)
        self._given: FileUnit | None = options.ts_unit
        self._unit: FileUnit = options.ts_unit or ts_unit

    def read(self, columns: Sequence[Any], name: str) -> Times:
        """The times of a column, or of one of dates and one of times of day."""
        kind = columns[0].type
        if len(columns) == 1 and pa.types.is_timestamp(kind) and self._format is None:
            return _typed(columns[0])
        text = texts(columns[0], name)
        if self._unit == "yyyymmdd" and self._format is None:
            text = pc.replace_substring_regex(
                pc.utf8_trim_whitespace(text),
                r"^([0-9]{4})([0-9]{2})([0-9]{2})(\.0*)?$",
                r"\1-\2-\3",
            )
        if len(columns) == 2:
            text = self._joined(text, texts(columns[1], name), name)
        if self._format is not None:
            return self._formatted(text)
        return self._parsed(text, name)

    def _joined(self, dates: Any, clocks: Any, name: str) -> Any:
        clocks = pc.utf8_trim_whitespace(clocks)
        if self._format is None:
            clocks = pc.replace_substring_regex(clocks, r"^([0-9]):", r"0\1:")
            clocks = self._clocks.timed(clocks, name)
        elif self._format.clock_digits:
            clocks = self._clocks.padded(clocks, name)
        joined = pc.binary_join_element_wise(pc.utf8_trim_whitespace(dates), clocks, scalar(" "))
        return pc.if_else(
            pc.or_(pc.equal(dates, scalar("")), pc.equal(clocks, scalar(""))), scalar(""), joined
        )

    def _parsed(self, text: Any, name: str) -> Times:
        times = _nothing(len(text))
        left = ~mask(pc.equal(text, scalar("")))
        signs = mask(pc.or_(pc.equal(text, scalar(NO_TIME)), pc.equal(text, scalar(NO_VALUE))))
        for index in np.flatnonzero(signs).tolist():
            times.empty[index] = (
                f"{text[index].as_py()} is what databento writes for no time; --skip-empty passes "
                "over such rows"
            )
        left &= ~signs
        if self._unit != "yyyymmdd":
            whole = left & mask(pc.match_substring_regex(text, WHOLE))
            if whole.any():
                self._check_unit(text, whole, name)
                self._counted(text, whole, times)
                left &= ~whole
        for pattern, kind, local in (
            (LOCAL, pa.timestamp("ns"), True),
            (ZONED, pa.timestamp("ns", "UTC"), False),
        ):
            if not left.any():
                return times
            fits = left & mask(pc.match_substring_regex(text, pattern))
            try:
                found = integers(pc.filter(text, booleans(fits)).cast(kind).cast(pa.int64()))
            except pa.ArrowInvalid:  # one of them is no day of the calendar: judged one by one
                continue
            times.nanoseconds[fits], times.local[fits] = found, local
            left &= ~fits
        for index in np.flatnonzero(left).tolist():
            self._judge(text[index].as_py(), index, times)
        return times

    def _counted(self, text: Any, whole: Any, times: Times) -> None:
        """Fill in the times that are integers of a unit; `whole` says which."""
        factor = NANOSECONDS[self._unit]  # type: ignore[index]
        counts = integers(pc.filter(text, booleans(whole)).cast(pa.uint64()), np.uint64)
        indexes = np.flatnonzero(whole)
        outside = (counts < -(-self._earliest // factor)) | (counts >= LATEST // factor)
        times.nanoseconds[indexes] = np.where(outside, 0, counts).astype(np.int64) * factor
        for index, count in zip(indexes[outside].tolist(), counts[outside].tolist(), strict=True):
            times.nanoseconds[index] = UNKNOWN
            times.wrong[index] = (
                f"{count} {self._unit} since 1970 are not between {day(self._earliest)} and 2200"
                f"{unit_hint(count, self._unit, self._earliest)}"
            )

    def _judge(self, cell: str, index: int, times: Times) -> None:
        """The time of one cell."""
        try:
            if self._unit != "yyyymmdd" and cells.NUMBER.fullmatch(cell.strip()):
                found, zoned = cells.since_1970(cell, NANOSECONDS[self._unit]), True
            else:
                found, zoned = cells.moment(cell)
        except ValueError as error:
            times.wrong[index] = f"{cell[:60]!r} {error}"
            return
        _put(times, index, found, not zoned, cell)

    def _formatted(self, text: Any) -> Times:
        """Times in a format of `datetime.strptime`; a cell that many rows share is read once."""
        assert self._format is not None
        times = _nothing(len(text))
        coded = pc.dictionary_encode(text)
        rows = integers(coded.indices, np.int32)
        found = [self._format.read(cell) if cell else None for cell in coded.dictionary.to_pylist()]
        known = [isinstance(one, tuple) and 0 <= one[0] < LATEST for one in found]
        values = [one[0] if good else UNKNOWN for one, good in zip(found, known, strict=True)]  # type: ignore[index]
        local = [bool(good and one[1]) for one, good in zip(found, known, strict=True)]  # type: ignore[index]
        if values:
            times.nanoseconds[:] = np.array(values, np.int64)[rows]
            times.local[:] = np.array(local)[rows]
        for index in np.flatnonzero(~np.array([*known, True])[rows]).tolist():
            one, cell = found[rows[index]], text[index].as_py()
            if isinstance(one, str):
                times.wrong[index] = one
            elif one is not None:
                _put(times, index, one[0], one[1], cell)
        return times

    def _check_unit(self, text: Any, whole: Any, name: str) -> None:
        """Raises `Mistaken` for integers that can be dates, and whose unit nobody has named."""
        if self._given is not None:
            return
        counts = pc.filter(text, booleans(whole))
        if pc.all(pc.match_substring_regex(counts, DIGITS_OF_DATE)).as_py():
            cell = counts[0].as_py()
            read = EPOCH + timedelta(microseconds=int(cell) * NANOSECONDS[self._unit] // 1000)  # type: ignore[index]
            raise Mistaken(
                f"column {name} holds {cell}: is it the date {cell[:4]}-{cell[4:6]}-{cell[6:]} "
                f"(--ts-unit yyyymmdd), or {read:%Y-%m-%d %H:%M:%S}, that many {self._unit} since "
                f"1970 (--ts-unit {self._unit})?"
            )


def unit_hint(cell: int, unit: str, earliest: int) -> str:
    """What else an integer time could be, for one that is out of range in its unit; "" for no idea.

    `earliest` is the first good time, nanoseconds.
    """
    for other in FILE_UNITS:
        if other == "yyyymmdd":
            text = str(cell)
            if re.fullmatch(DIGITS_OF_DATE, text):
                return f"; as a date it is {text[:4]}-{text[4:6]}-{text[6:]}: --ts-unit yyyymmdd"
        elif other != unit and earliest <= cell * NANOSECONDS[other] < LATEST:  # type: ignore[index]
            moment = EPOCH + timedelta(microseconds=cell * NANOSECONDS[other] // 1000)  # type: ignore[index]
            return f"; in {other} it is {moment:%Y-%m-%d}: --ts-unit {other}"
    return ""


def day(nanoseconds: int) -> str:
    """The day of a time, as 2026-11-24."""
    return f"{EPOCH + timedelta(microseconds=nanoseconds // 1000):%Y-%m-%d}"


def _typed(column: Any) -> Times:
    """The times of a Parquet file's own type; without a zone they are local."""
    times = _nothing(len(column))
    kind = column.type
    counted = column.cast(pa.int64())
    known = mask(column.is_valid())
    factor = NANOSECONDS[kind.unit]
    values = integers(pc.if_else(column.is_valid(), counted, int64s(np.zeros(1, np.int64))[0]))
    outside = known & ((values < 0) | (values >= LATEST // factor))
    times.nanoseconds[known] = (values * factor)[known]
    times.local[known] = kind.tz is None
    for index in np.flatnonzero(outside).tolist():
        _put(times, index, int(values[index]) * factor, kind.tz is None, column[index])
    return times


def _put(times: Times, index: int, nanoseconds: int, local: bool, cell: object) -> None:
    if 0 <= nanoseconds < LATEST:
        times.nanoseconds[index], times.local[index] = nanoseconds, local
    else:
        times.nanoseconds[index] = UNKNOWN
        times.wrong[index] = f"{str(cell)[:60]!r} is not between 1970 and 2200"


def _nothing(rows: int) -> Times:
    return Times(np.full(rows, UNKNOWN, np.int64), np.zeros(rows, np.bool_), {}, {})
