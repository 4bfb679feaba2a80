"""The logarithm: within one unit in the last place, and the same bits without FMA."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.compute.natural_log import log, log_ratio
from pipelines.ticks.decoder import Decoder
from tests.support.examples import examples
from tests.support.logs import NOW_MS, run_of
from tests.support.shipped import SOURCE

mpmath.mp.prec = 200  # with a double's 53 bits the difference of two logarithms is no oracle

positive = st.floats(min_value=5e-324, max_value=1.7976931348623157e308)
prices = st.floats(min_value=1e-12, max_value=1e12)

HASH = """
import hashlib, pickle, sys
import numpy as np
from numba import njit
from pipelines.compute.natural_log import log, log_ratio
from tests.support.windows import apply_new, table

@njit
def both(values, results):
    for i in range(values.shape[0] - 1):
        results[2 * i] = log(values[i])
        results[2 * i + 1] = log_ratio(values[i], values[i + 1])

values, ticks = pickle.load(sys.stdin.buffer)
results = np.empty(2 * len(values))
both(values, results)
batch = apply_new(table(), ticks)
assert len(batch) == 5_000
found = (results[:-2], batch.event_time, batch.sequence, batch.features, batch.status)
print(hashlib.sha256(b"".join(column.tobytes() for column in found)).hexdigest())
"""


def numbers_and_ticks() -> bytes:
    """Positive numbers of every size, and ticks whose prices are the last of them."""
    chance = np.random.default_rng(1)
    wide, narrow = np.exp(chance.uniform(-700, 700, 200_000)), chance.uniform(0.5, 2, 200_000)
    values = np.concatenate([wide, narrow])
    messages = [
        (b"A", b'{"symbol":"A","price":%r,"ts":%d}' % (price, ts))
        for ts, price in enumerate(values[-5000:].tolist(), NOW_MS - 5000)
    ]
    return pickle.dumps((values, Decoder(SOURCE).decode(run_of(messages))))


def ulps(got: float, exact: mpmath.mpf) -> float:
    return float(abs(mpmath.mpf(got) - exact) / mpmath.mpf(math.ulp(float(exact))))


@examples(20)
@given(st.one_of(positive, st.floats(0.5, 2)))
def test_log_is_within_one_ulp(x: float) -> None:
    exact = mpmath.log(mpmath.mpf(x))
    assert (log(x) == 0.0) if x == 1.0 else ulps(log(x), exact) <= 1


@examples(20)
@given(prices, st.floats(0.5, 2))
def test_the_return_of_neighbouring_prices_is_as_good_as_its_inputs(
    before: float, factor: float
) -> None:
    after = before * factor
    exact = mpmath.log(mpmath.mpf(after)) - mpmath.log(mpmath.mpf(before))
    assert (
        (log_ratio(after, before) == 0.0)
        if after == before
        else (ulps(log_ratio(after, before), exact) <= 3)
    )


@given(positive, positive)
def test_every_return_of_positive_prices_is_finite_and_right(after: float, before: float) -> None:
    exact = mpmath.log(mpmath.mpf(after)) - mpmath.log(mpmath.mpf(before))
    assert abs(log_ratio(after, before) - float(exact)) <= 1e-12 * max(1, abs(float(exact)))


@pytest.mark.parametrize("x", [0.0, -1.0, math.nan])
def test_no_logarithm(x: float) -> None:
    assert not math.isfinite(log(x))
    assert math.isnan(log_ratio(x, 1.0))
    assert math.isnan(log_ratio(1.0, x))


def test_one_and_infinity() -> None:
    assert log(1.0) == 0.0
    assert log(math.inf) == math.inf


def hashed(given: bytes, **environment: str) -> str:
    """The bits of logarithms and of the kernel's rows, computed by another process.

    It is given ticks: the decoder would take it half a minute to compile.
    """
    done = subprocess.run(
        [sys.executable, "-c", HASH],
        env={**os.environ, **environment},
        input=given,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


@pytest.mark.long
def test_the_same_bits_without_fused_multiply_add(tmp_path: Path) -> None:
    given = numbers_and_ticks()
    with_fma = hashed(given)
    without = hashed(
        given,
        NUMBA_CACHE_DIR=str(tmp_path),
        NUMBA_CPU_NAME="generic",
        NUMBA_CPU_FEATURES="-fma,-fma4,-avx,-avx2,-avx512f",
    )
    assert with_fma == without
    assert len(with_fma) == 64


def test_a_second_process_loads_the_kernel_from_the_cache(tmp_path: Path) -> None:
    load = (
        "from pipelines.compute.kernel import advance; s = advance.stats;"
        "print(sum(s.cache_hits.values()), sum(s.cache_misses.values()))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    output = [
        subprocess.run(
            [sys.executable, "-c", load],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert output == [["0", "1"], ["1", "0"]]
