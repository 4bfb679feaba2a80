"""RFC 3339 times in bytes, compiled: what `ticks.event_time` defines, from 1970 to 2200."""

from __future__ import annotations

import numpy as np

from pipelines.runtime.machine_code import compiled
from pipelines.ticks.json_tokens import COLON, MINUS, NO, PLUS, POINT, QUOTE, ZERO, is_digit

SHORTEST = 20
"""Bytes of a time without a fraction, in UTC."""

T, SMALL_T, SPACE, Z, SMALL_Z = map(ord, "Tt Zz")
DAYS_BEFORE = np.array([0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], np.int64)
DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)
FIRST_YEAR, LAST_YEAR = 1970, 2200
MOST_FRACTION = 9
"""Digits of a second's fraction."""


@compiled()
def _two(data, position, end):  # type: ignore[no-untyped-def]
    """The number of two digits, `NO` for anything else."""
    if not (is_digit(data, position, end) and is_digit(data, position + 1, end)):
        return NO
    return np.int64(data[position] - ZERO) * 10 + np.int64(data[position + 1] - ZERO)


@compiled()
def _day(data, position, end):  # type: ignore[no-untyped-def]
    """The days from 1970 to the date at `position`, `NO` for what is none."""
    century, of_century = _two(data, position, end), _two(data, position + 2, end)
    month, day = _two(data, position + 5, end), _two(data, position + 8, end)
    if century == NO or of_century == NO or month < 1 or month > 12 or day < 1:
        return NO
    if data[position + 4] != MINUS or data[position + 7] != MINUS:
        return NO
    year = century * 100 + of_century
    if year < FIRST_YEAR or year > LAST_YEAR:
        return NO
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > DAYS[month - 1] + (is_leap and month == 2):
        return NO
    before = year - 1
    leaps = before // 4 - before // 100 + before // 400 - 477  # those from 1970 on
    days = (year - FIRST_YEAR) * 365 + leaps + DAYS_BEFORE[month - 1] + day - 1
    return days + (is_leap and month > 2)


@compiled()
def _offset(data, position, end):  # type: ignore[no-untyped-def]
    """The position after an offset from UTC, and the offset in seconds."""
    if position >= end:
        return NO, 0
    if data[position] == Z or data[position] == SMALL_Z:
        return position + 1, 0
    if data[position] != PLUS and data[position] != MINUS:
        return NO, 0
    hours, minutes = _two(data, position + 1, end), _two(data, position + 4, end)
    if hours == NO or hours > 23 or minutes == NO or minutes > 59 or data[position + 3] != COLON:
        return NO, 0
    seconds = hours * 3600 + minutes * 60
    return position + 6, -seconds if data[position] == MINUS else seconds


@compiled()
def time_text(data, position, end):  # type: ignore[no-untyped-def]
    """The position after the quoted time at `position`, a quote, and nanoseconds UTC; `NO` for what
    is none, or of another year than 1970 to 2200."""
    position += 1
    if end - position <= SHORTEST:
        return NO, 0
    days = _day(data, position, end)
    hour, minute = _two(data, position + 11, end), _two(data, position + 14, end)
    second = _two(data, position + 17, end)
    if days == NO or hour == NO or hour > 23 or minute == NO or minute > 59:
        return NO, 0
    if second == NO or second > 59 or data[position + 13] != COLON or data[position + 16] != COLON:
        return NO, 0
    between = data[position + 10]
    if between != T and between != SMALL_T and between != SPACE:
        return NO, 0
    position += 19
    nanoseconds = np.int64(0)
    if data[position] == POINT:
        position += 1
        digits = 0
        while is_digit(data, position, end) and digits <= MOST_FRACTION:
            nanoseconds = nanoseconds * 10 + np.int64(data[position] - ZERO)
            position += 1
            digits += 1
        if digits == 0 or digits > MOST_FRACTION:
            return NO, 0
        for _ in range(MOST_FRACTION - digits):
            nanoseconds *= 10
    position, offset = _offset(data, position, end)
    if position == NO or position >= end or data[position] != QUOTE:
        return NO, 0
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset
    return position + 1, seconds * 1_000_000_000 + nanoseconds
