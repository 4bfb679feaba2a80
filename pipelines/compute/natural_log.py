"""A natural logarithm with the same bits on every processor.

libm's `log` differs in the last bit from one processor to the next (it picks its code by what the
processor can do), and a compiler that fuses multiplications with additions does too. This one is
made of `+ - * /` and bit operations in a fixed order, which IEEE 754 defines to the bit.

The method and the constants are those of fdlibm's `e_log.c` (Sun Microsystems, 1993): with
x = 2^k (1 + f) and s = f / (2 + f), log(1 + f) = f - (f²/2 - s (f²/2 + R(s²))), where R is a
minimax polynomial. The error is below one unit in the last place.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.runtime.machine_code import compiled

LN2_HIGH = 6.93147180369123816490e-01
LN2_LOW = 1.90821492927058770002e-10
LG1 = 6.666666666666735130e-01
LG2 = 3.999999999940941908e-01
LG3 = 2.857142874366239149e-01
LG4 = 2.222219843214978396e-01
LG5 = 1.818357216161805012e-01
LG6 = 1.531383769920937332e-01
LG7 = 1.479819860511658591e-01

TWO_54 = 18014398509481984.0
EXPONENT_BIAS = 1023
MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
ONE = np.int64(0x3FF0000000000000)
HALF = np.int64(0x3FE0000000000000)
SQRT_2 = 1.4142135623730951
SMALLEST_NORMAL = 2.2250738585072014e-308

NEAREST = -0.29289321881345254
"""log1p needs no reduction from 1/sqrt(2) - 1 …"""
FARTHEST = 0.41421356237309515
"""… to sqrt(2) - 1."""


@compiled(inline="always")
def _reduced(f: float, k: float) -> float:
    """log(2^k (1 + f)) for f between 1/sqrt(2) - 1 and sqrt(2) - 1."""
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (LG2 + w * (LG4 + w * LG6))
    odd = z * (LG1 + w * (LG3 + w * (LG5 + w * LG7)))
    r = odd + even
    half_square = 0.5 * f * f
    if k == 0.0:
        return f - (half_square - s * (half_square + r))
    return k * LN2_HIGH - ((half_square - (s * (half_square + r) + k * LN2_LOW)) - f)


@compiled()
def log(x: float) -> float:
    """Natural logarithm of a double: -inf of 0, NaN of a negative number or NaN."""
    if not x > 0.0:
        return -math.inf if x == 0.0 else math.nan
    if x == math.inf:
        return x
    k = np.int64(0)
    if x < SMALLEST_NORMAL:
        x *= TWO_54
        k = np.int64(-54)
    bits = np.float64(x).view(np.int64)
    k += (bits >> 52) - EXPONENT_BIAS
    mantissa = bits & MANTISSA
    m = np.int64(mantissa | ONE).view(np.float64)
    if m > SQRT_2:
        m = np.int64(mantissa | HALF).view(np.float64)
        k += 1
    return _reduced(m - 1.0, float(k))


@compiled()
def log_ratio(after: float, before: float) -> float:
    """log(after / before) of two positive doubles, NaN when one is not positive.

    Neighbouring prices differ little, and their quotient would lose the digits that the logarithm
    needs. But after - before is exact (Sterbenz), so log1p((after - before) / before) is within two
    units in the last place of the return itself. Where the quotient leaves the normal numbers, the
    difference of the logarithms does not.
    """
    if not (after > 0.0 and before > 0.0):
        return math.nan
    f = (after - before) / before
    if NEAREST < f < FARTHEST:
        return _reduced(f, 0.0)
    quotient = after / before
    if SMALLEST_NORMAL <= quotient < math.inf:
        return log(quotient)
    return log(after) - log(before)
