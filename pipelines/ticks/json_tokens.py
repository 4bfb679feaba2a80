"""JSON's tokens in bytes, compiled: the position after a token, and its value.

A position counts the bytes of the run's data. Each function returns `NO` for what it does not take:
what is not JSON, and JSON that needs more care (escapes, text beyond ASCII, numbers of many digits,
values that are nested deeply).
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
NO_VALUE = 2**63 - 1
"""What formats with scaled integers write for no value; whether it is one is decided elsewhere."""

MOST_CHARACTERS = 400
"""Characters of a number that no source reads. Python refuses integers of some thousand digits."""

MOST_NESTED = 60
"""Arrays and objects within each other in a value that no source reads: a bit for each."""

ONE = np.uint64(1)

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
def scaled_integer(data, position, end, power):  # type: ignore[no-untyped-def]
    """The end of the integer at `position`, and the double nearest to it times 10^power."""
    negative = data[position] == MINUS
    position, value = integer(data, position, end)
    if position == NO or value == 0:
        return position, 0.0
    if value == NO_VALUE:
        return NO, math.nan
    # an integer has at most 63 bits, so its magnitude has as well
    double = nearest_double(np.uint64(-value if negative else value), power)
    if math.isnan(double):
        return NO, math.nan
    return position, -double if negative else double


@compiled()
def number_end(data, position, end):  # type: ignore[no-untyped-def]
    """The end of a number that no source reads, at `position`."""
    first = position
    position += data[position] == MINUS
    whole = position
    while is_digit(data, position, end):
        position += 1
    if position == whole or (position - whole > 1 and data[whole] == ZERO):
        return NO
    if position < end and data[position] == POINT:
        fraction = position + 1
        position = fraction
        while is_digit(data, position, end):
            position += 1
        if position == fraction:
            return NO
    if position < end and (data[position] == SMALL_E or data[position] == CAPITAL_E):
        position += 1
        position += position < end and (data[position] == MINUS or data[position] == PLUS)
        exponent = position
        while is_digit(data, position, end):
            position += 1
        if position == exponent:
            return NO
    return position if position - first <= MOST_CHARACTERS else NO


@compiled()
def scalar_end(data, position, end):  # type: ignore[no-untyped-def]
    """The end of a value that no source reads: a plain string, a number, true, false or null."""
    if data[position] == QUOTE:
        position = string_end(data, position + 1, end)
        return position if position == NO else position + 1
    if data[position] == MINUS or is_digit(data, position, end):
        return number_end(data, position, end)
    for word in (NULL, TRUE, FALSE):
        if is_word(data, position, min(position + word.shape[0], end), word):
            return position + word.shape[0]
    return NO


@compiled()
def value_start(data, position, end):  # type: ignore[no-untyped-def]
    """Where the value of the member begins whose name ends with the quote before `position`."""
    position = after_space(data, position, end)
    if position >= end or data[position] != COLON:
        return NO
    position = after_space(data, position + 1, end)
    return position if position < end else NO


@compiled()
def skipped(data, position, end):  # type: ignore[no-untyped-def]
    """The end of any value that no source reads, at `position`."""
    if data[position] != OPEN_OBJECT and data[position] != OPEN_ARRAY:
        return scalar_end(data, position, end)
    depth = 0
    objects = np.uint64(0)  # a bit for each open object, the lowest of the innermost
    while True:  # a value begins here, or a member's name, or an array or an object ends
        is_begin = data[position] == OPEN_OBJECT or data[position] == OPEN_ARRAY
        if is_begin:
            if depth == MOST_NESTED:
                return NO
            depth += 1
            objects = objects << ONE | np.uint64(data[position] == OPEN_OBJECT)
            position = after_space(data, position + 1, end)
            if position >= end:
                return NO
        else:
            position = scalar_end(data, position, end)
            if position == NO:
                return NO
        while True:  # behind a value, or at the begin of an array or an object
            in_object = objects & ONE == ONE
            if not is_begin:
                if depth == 0:
                    return position
                position = after_space(data, position, end)
                if position >= end:
                    return NO
            if data[position] == (CLOSE_OBJECT if in_object else CLOSE_ARRAY):
                is_begin = False
                depth -= 1
                objects >>= ONE
                position += 1
                continue
            if not is_begin:
                if data[position] != COMMA:
                    return NO
                position = after_space(data, position + 1, end)
                if position >= end:
                    return NO
            if in_object:
                if data[position] != QUOTE:
                    return NO
                position = string_end(data, position + 1, end)
                if position == NO:
                    return NO
                position = value_start(data, position + 1, end)
                if position == NO:
                    return NO
            break
