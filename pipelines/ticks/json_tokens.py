"""JSON's tokens in bytes, compiled: the position after a token, and its value.

A position counts the bytes of the run's data. Each function returns `NO` for what it does not take:
what is not JSON, and JSON that needs more care (escapes, text beyond ASCII, numbers of many digits,
nested values).
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.runtime.machine_code import compiled
from pipelines.ticks.decimal_number import MOST_DIGITS, nearest_double

QUOTE, BACKSLASH, COMMA, COLON = ord('"'), ord("\\"), ord(","), ord(":")
OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY = map(ord, "{}[]")
MINUS, PLUS, POINT, ZERO, NINE = map(ord, "-+.09")
SMALL_E, CAPITAL_E = ord("e"), ord("E")
SPACE, TAB, NEW_LINE, RETURN = map(ord, " \t\n\r")
NOT_ASCII = 0x80
NULL, TRUE, FALSE = (np.frombuffer(word, np.uint8) for word in (b"null", b"true", b"false"))

MOST_INTEGER_DIGITS = 19
"""Digits that always fit into 64 bits without a sign; nanoseconds since 1970 have as many."""

LARGEST = np.uint64(2**63 - 1)

NO = -1
"""Instead of a position."""


@compiled()
def after_space(data, position, end):  # type: ignore[no-untyped-def]
    """The position of the first byte from `position` on that is no white space."""
    while position < end and (
        data[position] == SPACE
        or data[position] == NEW_LINE
        or data[position] == TAB
        or data[position] == RETURN
    ):
        position += 1
    return position


@compiled()
def is_digit(data, position, end):  # type: ignore[no-untyped-def]
    return position < end and ZERO <= data[position] <= NINE


@compiled()
def same(data, position, end, other, first, last):  # type: ignore[no-untyped-def]
    """Whether the bytes from `position` to `end` are those of `other` from `first` to `last`."""
    if end - position != last - first:
        return False
    for k in range(last - first):
        if data[position + k] != other[first + k]:
            return False
    return True


@compiled()
def is_word(data, position, end, word):  # type: ignore[no-untyped-def]
    """Whether the bytes from `position` to `end` are those of `word`."""
    return same(data, position, end, word, 0, word.shape[0])


@compiled()
def string_end(data, position, end):  # type: ignore[no-untyped-def]
    """The position of the quote that ends the string whose first byte is at `position`."""
    while position < end:
        byte = data[position]
        if byte == QUOTE:
            return position
        if byte < SPACE or byte == BACKSLASH or byte >= NOT_ASCII:
            return NO
        position += 1
    return NO


@compiled()
def number(data, position, end):  # type: ignore[no-untyped-def]
    """The end of the number at `position`, and its double."""
    negative = data[position] == MINUS
    position += negative
    if not is_digit(data, position, end):
        return NO, math.nan
    mantissa = np.uint64(0)
    first = position
    if data[position] == ZERO:
        position += 1
        first += 1
        if is_digit(data, position, end):
            return NO, math.nan
    while is_digit(data, position, end):
        mantissa = mantissa * np.uint64(10) + np.uint64(data[position] - ZERO)
        position += 1
    digits = position - first
    power = 0
    whole = True
    if position < end and data[position] == POINT:
        whole = False
        position += 1
        first = position
        while is_digit(data, position, end):
            mantissa = mantissa * np.uint64(10) + np.uint64(data[position] - ZERO)
            position += 1
        if position == first:
            return NO, math.nan
        digits += position - first
        power = first - position
    if digits > MOST_DIGITS:
        return NO, math.nan
    if position < end and (data[position] == SMALL_E or data[position] == CAPITAL_E):
        whole = False
        position += 1
        below = position < end and data[position] == MINUS
        position += below or (position < end and data[position] == PLUS)
        first = position
        exponent = 0
        while is_digit(data, position, end) and position - first < 5:
            exponent = exponent * 10 + (data[position] - ZERO)
            position += 1
        if position == first or position - first == 5:
            return NO, math.nan
        power += -exponent if below else exponent
    if mantissa == np.uint64(0):
        return position, -0.0 if negative and not whole else 0.0  # an integer has no negative zero
    value = nearest_double(mantissa, power)
    if math.isnan(value):
        return NO, math.nan
    return position, -value if negative else value


@compiled()
def integer(data, position, end):  # type: ignore[no-untyped-def]
    """The end of the integer at `position`, and its value."""
    negative = data[position] == MINUS
    position += negative
    first = position
    value = np.uint64(0)
    while is_digit(data, position, end) and position - first <= MOST_INTEGER_DIGITS:
        value = value * np.uint64(10) + np.uint64(data[position] - ZERO)
        position += 1
    digits = position - first
    if digits == 0 or digits > MOST_INTEGER_DIGITS or (digits > 1 and data[first] == ZERO):
        return NO, 0
    if position < end and (
        data[position] == POINT or data[position] == SMALL_E or data[position] == CAPITAL_E
    ):
        return NO, 0
    if value > LARGEST:
        return NO, 0
    return position, -np.int64(value) if negative else np.int64(value)


@compiled()
def other(data, position, end):  # type: ignore[no-untyped-def]
    """The end of a value that no source reads: a plain string, a number, true, false or null."""
    if data[position] == QUOTE:
        position = string_end(data, position + 1, end)
        return position if position == NO else position + 1
    if data[position] == MINUS or is_digit(data, position, end):
        return number(data, position, end)[0]
    for word in (NULL, TRUE, FALSE):
        if is_word(data, position, min(position + word.shape[0], end), word):
            return position + word.shape[0]
    return NO
