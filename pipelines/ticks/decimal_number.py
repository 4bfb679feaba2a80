"""The double nearest to a decimal number, the same one that `float()` gives.

Two exact ways, each for what it can decide. A number of at most 53 bits times or by a power of ten
that is itself a double takes one operation, which IEEE 754 rounds rightly (Clinger, "How to read
floating point numbers accurately", 1990). Any other is multiplied with a 128-bit power of five,
whose leading bits decide how it rounds in all but a few cases, which are recognised (Lemire,
"Number parsing at a gigabyte per second", 2021). Neither way decides the rest: that is left to
`float()`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipelines.runtime.machine_code import compiled

MOST_DIGITS = 19
"""Decimal digits that always fit into 64 bits."""

LARGEST_POWER = 64
"""Exponent of ten, of either sign. What is beyond is left to `float()`; nothing here is tiny or
infinite."""

EXACT_POWER = 22
"""The largest power of ten that is a double."""

POWERS_OF_TEN = np.array([10.0**power for power in range(EXACT_POWER + 1)])


def _powers_of_five() -> Any:
    """uint64 (powers, 2): the first 128 bits of 5^-64 to 5^64, high and low; 5^-n rounded up."""
    table = np.empty((2 * LARGEST_POWER + 1, 2), np.uint64)
    for power in range(-LARGEST_POWER, LARGEST_POWER + 1):
        if power < 0:
            five = 5**-power
            size = five.bit_length()
            bits = size + 127 if power >= -27 else 2 * size + 128
            leading = 2**bits // five + 1
        else:
            leading = 5**power << 128
        leading >>= leading.bit_length() - 128
        table[power + LARGEST_POWER] = leading >> 64, leading & (2**64 - 1)
    return table


POWERS_OF_FIVE = _powers_of_five()

U32 = np.uint64(32)
LOW_32 = np.uint64(0xFFFFFFFF)
ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)
LAST_9_BITS = np.uint64(0x1FF)
ONE, TWO, THREE = np.uint64(1), np.uint64(2), np.uint64(3)
HIDDEN_BIT = np.uint64(1 << 52)
TWO_53 = np.uint64(1 << 53)
BIAS = 1023


@compiled()
def _multiply(a, b):  # type: ignore[no-untyped-def]
    """The 128 bits of a product of two uint64, high and low."""
    a_high, a_low = a >> U32, a & LOW_32
    b_high, b_low = b >> U32, b & LOW_32
    low = a_low * b_low
    middle = a_high * b_low + (low >> U32)
    other = a_low * b_high + (middle & LOW_32)
    high = a_high * b_high + (middle >> U32) + (other >> U32)
    return high, (other << U32) | (low & LOW_32)


@compiled()
def nearest_double(mantissa, power):  # type: ignore[no-untyped-def]
    """The double nearest to mantissa × 10^power; NaN where it is not decided here.

    `mantissa` is a uint64 above 0.
    """
    if mantissa <= TWO_53 and -EXACT_POWER <= power <= EXACT_POWER:
        if power < 0:
            return np.float64(mantissa) / POWERS_OF_TEN[-power]
        return np.float64(mantissa) * POWERS_OF_TEN[power]
    if power < -LARGEST_POWER or power > LARGEST_POWER:
        return math.nan

    shift = np.uint64(0)
    while mantissa >> np.uint64(63) == np.uint64(0):
        mantissa <<= ONE
        shift += ONE
    high, low = _multiply(mantissa, POWERS_OF_FIVE[power + LARGEST_POWER, 0])
    if high & LAST_9_BITS == LAST_9_BITS:  # the low half of the power may carry into what counts
        more, _ = _multiply(mantissa, POWERS_OF_FIVE[power + LARGEST_POWER, 1])
        low += more
        if more > low:
            high += ONE
    if low == ALL_ONES and (power < -27 or power > 55):
        return math.nan

    upper = high >> np.uint64(63)
    rounding = upper + np.uint64(9)
    result = high >> rounding  # 54 bits: the mantissa, and the bit that it is rounded by
    if low <= ONE and -4 <= power <= 23 and result & THREE == ONE and result << rounding == high:
        result &= ~ONE  # half way between two doubles: the even one
    result = (result + (result & ONE)) >> ONE
    exponent = ((217706 * power) >> 16) + 63 + np.int64(upper) - np.int64(shift) + BIAS
    if result >= TWO_53:
        result = HIDDEN_BIT
        exponent += 1
    bits = (result & ~HIDDEN_BIT) | (np.uint64(exponent) << np.uint64(52))
    return np.uint64(bits).view(np.float64)
