"""JSON's tokens in bytes, compiled: where one ends, and what it says.

Each function answers `NO` for what it does not take: what is not JSON, and what is but is better
read with more care (escapes, text beyond ASCII, numbers of many digits, nested values).
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
"""So many always fit into 64 bits without a sign; nanoseconds of our days have as many."""

LARGEST = np.uint64(2**63 - 1)

NO = -1
"""Instead of a place."""


@compiled()
def after_space(data, at, end):  # type: ignore[no-untyped-def]
    while at < end and (
        data[at] == SPACE or data[at] == NEW_LINE or data[at] == TAB or data[at] == RETURN
    ):
        at += 1
    return at


@compiled()
def is_digit(data, at, end):  # type: ignore[no-untyped-def]
    return at < end and ZERO <= data[at] <= NINE


@compiled()
def same(data, at, end, other, first, last):  # type: ignore[no-untyped-def]
    """Whether the bytes from `at` to `end` are those of `other` from `first` to `last`."""
    if end - at != last - first:
        return False
    for place in range(last - first):
        if data[at + place] != other[first + place]:
            return False
    return True


@compiled()
def is_word(data, at, end, word):  # type: ignore[no-untyped-def]
    """Whether the bytes from `at` to `end` are those of `word`."""
    return same(data, at, end, word, 0, word.shape[0])


@compiled()
def string_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where the quote is that ends the string whose first byte is at `at`."""
    while at < end:
        byte = data[at]
        if byte == QUOTE:
            return at
        if byte < SPACE or byte == BACKSLASH or byte >= NOT_ASCII:
            return NO
        at += 1
    return NO


@compiled()
def number(data, at, end):  # type: ignore[no-untyped-def]
    """Where the number at `at` ends, and its double."""
    negative = data[at] == MINUS
    at += negative
    if not is_digit(data, at, end):
        return NO, math.nan
    mantissa = np.uint64(0)
    first = at
    if data[at] == ZERO:
        at += 1
        first += 1
        if is_digit(data, at, end):
            return NO, math.nan
    while is_digit(data, at, end):
        mantissa = mantissa * np.uint64(10) + np.uint64(data[at] - ZERO)
        at += 1
    digits = at - first
    power = 0
    whole = True
    if at < end and data[at] == POINT:
        whole = False
        at += 1
        first = at
        while is_digit(data, at, end):
            mantissa = mantissa * np.uint64(10) + np.uint64(data[at] - ZERO)
            at += 1
        if at == first:
            return NO, math.nan
        digits += at - first
        power = first - at
    if digits > MOST_DIGITS:
        return NO, math.nan
    if at < end and (data[at] == SMALL_E or data[at] == CAPITAL_E):
        whole = False
        at += 1
        below = at < end and data[at] == MINUS
        at += below or (at < end and data[at] == PLUS)
        first = at
        exponent = 0
        while is_digit(data, at, end) and at - first < 5:
            exponent = exponent * 10 + (data[at] - ZERO)
            at += 1
        if at == first or at - first == 5:
            return NO, math.nan
        power += -exponent if below else exponent
    if mantissa == np.uint64(0):
        return at, -0.0 if negative and not whole else 0.0  # an integer has no negative zero
    value = nearest_double(mantissa, power)
    if math.isnan(value):
        return NO, math.nan
    return at, -value if negative else value


@compiled()
def integer(data, at, end):  # type: ignore[no-untyped-def]
    """Where the integer at `at` ends, and its value."""
    negative = data[at] == MINUS
    at += negative
    first = at
    value = np.uint64(0)
    while is_digit(data, at, end) and at - first <= MOST_INTEGER_DIGITS:
        value = value * np.uint64(10) + np.uint64(data[at] - ZERO)
        at += 1
    digits = at - first
    if digits == 0 or digits > MOST_INTEGER_DIGITS or (digits > 1 and data[first] == ZERO):
        return NO, 0
    if at < end and (data[at] == POINT or data[at] == SMALL_E or data[at] == CAPITAL_E):
        return NO, 0
    if value > LARGEST:
        return NO, 0
    return at, -np.int64(value) if negative else np.int64(value)


@compiled()
def other(data, at, end):  # type: ignore[no-untyped-def]
    """Where a value that nobody asks for ends: a plain string, a number, true, false or null."""
    if data[at] == QUOTE:
        at = string_end(data, at + 1, end)
        return at if at == NO else at + 1
    if data[at] == MINUS or is_digit(data, at, end):
        return number(data, at, end)[0]
    for word in (NULL, TRUE, FALSE):
        if is_word(data, at, min(at + word.shape[0], end), word):
            return at + word.shape[0]
    return NO
