"""Decimal numbers to doubles: Python's `float()` is the oracle."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.ticks.decimal_number import LARGEST_POWER, nearest_double
from tests.support.examples import examples

mantissas = st.integers(1, 2**64 - 1) | st.integers(0, 63).map(lambda bits: 1 << bits)
powers = st.integers(-LARGEST_POWER, LARGEST_POWER)


@examples(10)
@given(mantissas, powers)
@example(2**53 + 1, 0)  # half way between two doubles
@example(9007199254740993, 22)
@example(2**64 - 1, LARGEST_POWER)
@example(1, -LARGEST_POWER)
@example(6803917880028698389, -21)  # the low half of the power of five carries
@example(4483673078556020737, -8)
def test_the_double_is_that_of_float(mantissa: int, power: int) -> None:
    value = nearest_double(np.uint64(mantissa), power)
    assert math.isnan(value) or value == float(f"{mantissa}e{power}")


@examples(5)
@given(st.floats(1e-9, 1e12), st.integers(0, 1), st.integers(0, 9))
def test_half_way_between_two_doubles_the_even_one(near: float, up: int, zeros: int) -> None:
    """A double and half the distance to the next, exactly and a little beside it."""
    doubled = int(math.ldexp(math.frexp(near)[0], 53)) * 2 + 1  # 54 bits: half way
    mantissa = doubled * 2**zeros
    if mantissa + up < 2**64:
        assert nearest_double(np.uint64(mantissa + up), 0) == float(mantissa + up)


@examples(5)
@given(st.floats(1e-6, 1e12, allow_nan=False))
def test_every_double_as_it_is_printed_is_decided(value: float) -> None:
    """What producers send of doubles is read here, and not left to a slower way."""
    digits, _, exponent = f"{value:.17e}".partition("e")
    for text in (repr(value), f"{digits}e{exponent}"):
        number, _, power = text.partition("e")
        whole, _, fraction = number.partition(".")
        mantissa = int(whole + fraction)
        if mantissa < 2**64:
            assert nearest_double(np.uint64(mantissa), int(power or 0) - len(fraction)) == value
