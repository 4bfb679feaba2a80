"""The kernel's natural logarithm in plain Python, for whoever shows how a value came about.

It is written a second time, and imports nothing of the kernel, so that one tells of a mistake in
the other; the bits are the same. The method and the constants are those of fdlibm's `e_log.c`
(Sun Microsystems, 1993).
"""

from __future__ import annotations

import math
import sys

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ODD = 6.666666666666735130e-01, 2.857142874366239149e-01, 1.818357216161805012e-01
LAST_ODD = 1.479819860511658591e-01
EVEN = 3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01
"""Coefficients of the minimax polynomial, by the powers of s² that they stand before."""

SQRT_2 = 1.4142135623730951
NEAREST, FARTHEST = -0.29289321881345254, 0.41421356237309515
"""Between these f, 1/sqrt(2) - 1 and sqrt(2) - 1, log(1 + f) needs no reduction."""


def log(x: float) -> float:
    """Natural logarithm of a double: -inf of 0, NaN of a negative number or NaN."""
    if not x > 0.0:
        return -math.inf if x == 0.0 else math.nan
    if x == math.inf:
        return x
    half, exponent = math.frexp(x)  # half is from 0.5 on, below 1
    m, k = half * 2.0, exponent - 1
    if m > SQRT_2:
        m, k = half, exponent
    return _reduced(m - 1.0, float(k))


def log_ratio(after: float, before: float) -> float:
    """log(after / before) of two positive doubles, NaN where one is not positive."""
    if not (after > 0.0 and before > 0.0):
        return math.nan
    f = (after - before) / before
    if NEAREST < f < FARTHEST:
        return _reduced(f, 0.0)
    quotient = after / before
    if sys.float_info.min <= quotient < math.inf:
        return log(quotient)
    return log(after) - log(before)


def _reduced(f: float, k: float) -> float:
    """log(2^k (1 + f)) for f between `NEAREST` and `FARTHEST`."""
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (EVEN[0] + w * (EVEN[1] + w * EVEN[2]))
    odd = z * (ODD[0] + w * (ODD[1] + w * (ODD[2] + w * LAST_ODD)))
    r = odd + even
    half_square = 0.5 * f * f
    if k == 0.0:
        return f - (half_square - s * (half_square + r))
    return k * LN2_HIGH - ((half_square - (s * (half_square + r) + k * LN2_LOW)) - f)
