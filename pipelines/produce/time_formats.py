"""Times that are written in a format of `datetime.strptime`.

Python takes formats that cannot be meant, and reads a text that lacks a digit in some way. Both are
refused, or a time would be another one without a word.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pipelines.produce.errors import Mistaken
from pipelines.ticks.event_time import EPOCH

MICROSECOND = timedelta(microseconds=1)

LATER_DIGITS = re.compile(r"(\.\d{6})(\d{1,3})(?!\d)")
"""The digits of a second that `datetime` does not take."""

DIRECTIVE = re.compile(r"%(.)", re.DOTALL)
PART = re.compile(r"(?:%[YmdHMSyjIf])+|%.|\s+|[^%\s]+", re.DOTALL)
"""Directives of numbers that adjoin one another, any other directive, blanks, or other text."""

DIGITS = {"Y": 4, "j": 3} | dict.fromkeys("mdHMSyI", 2)
"""The digits of numbers that another number follows at once."""

CLOCK = re.compile(r"\s((?:%[HMS])+)$")
"""A time of day without a separator, at the end."""

NEEDS = (
    ("p", "Ic", "%p is of the hour of twelve (%I), not of %H"),
    ("I", "p", "%I is the hour of twelve and needs %p; the hour of 24 is %H"),
    ("M", "HIcX", "%M is minutes, and there is no hour; months are %m"),
    ("S", "McX", "%S is seconds, and there are no minutes"),
    ("d", "mbBcx", "%d is the day of a month, and there is no month; minutes are %M"),
)
"""Directives that mean nothing without one of others, and what is said then."""


class TimeFormat:
    """Reads texts of one format. Raises `Mistaken` for one that cannot be meant."""

    def __init__(self, written: str) -> None:
        _check(written)
        self._written = written
        self._shape = _shape(written)

    @property
    def clock_digits(self) -> int:
        """The digits of a time of day that the format ends with, 0 where it has separators."""
        found = CLOCK.search(self._written)
        return len(found[1]) if found else 0

    def read(self, cell: str) -> tuple[int, bool] | str:
        """Nanoseconds and whether they are local, or what is wrong with the cell."""
        text, nanoseconds = cell.strip(), 0
        later = LATER_DIGITS.search(text) if "%f" in self._written else None
        if later is not None:
            text, nanoseconds = LATER_DIGITS.sub(r"\1", text), int(later[2].ljust(3, "0"))
        try:
            if self._shape is not None and self._shape.fullmatch(text) is None:
                raise ValueError("too few digits, or too many")
            moment = datetime.strptime(text, self._written)
        except ValueError:
            return f"{cell[:60]!r} is not written as {self._written!r} (--ts-format)"
        local = moment.tzinfo is None
        since = (moment.replace(tzinfo=UTC) if local else moment) - EPOCH
        return (since // MICROSECOND) * 1000 + nanoseconds, local


def _check(written: str) -> None:
    """Raises `Mistaken` for a format that Python does not read, or reads as nobody means it."""
    try:
        datetime.strptime(EPOCH.strftime(written).strip(), written)
    except (ValueError, re.error) as error:
        raise Mistaken(
            f"--ts-format {written!r}: strptime does not read it ({error}); write it as "
            "'%d.%m.%Y %H:%M:%S'"
        ) from None
    found = set(DIRECTIVE.findall(written))
    if "Z" in found:
        raise Mistaken(
            f"--ts-format {written!r}: a name tells no zone (%Z); write it as it stands, as "
            "'%H:%M:%S EST', and give the zone by --tz"
        )
    for directive, others, problem in NEEDS:
        if directive in found and not found & set(others):
            raise Mistaken(f"--ts-format {written!r}: {problem}")


def _shape(written: str) -> re.Pattern[str] | None:
    """The numbers of digits that a text must have where numbers adjoin; None where none do."""
    parts, adjoin = [], False
    for part in PART.findall(written.strip()):
        if part.isspace():
            parts.append(r"\s+")
        elif part.startswith("%") and len(part) > 2:
            adjoin = True
            numbers = part.replace("%", "")
            digits = sum(DIGITS[number] for number in numbers.removesuffix("f"))
            parts.append(rf"\d{{{digits}}}" + (r"\d{1,9}" if numbers.endswith("f") else ""))
        else:
            parts.append(".+?" if part.startswith("%") else re.escape(part))
    return re.compile("".join(parts), re.ASCII | re.IGNORECASE) if adjoin else None
