"""Percentiles of a histogram beside numpy's of the times themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwell.bench.histogram import BUCKETS, Histogram, bounds, percentiles

SHARES = (0.5, 0.99, 0.999, 1.0)


@given(st.lists(st.floats(1e-6, 400), min_size=1, max_size=300))
def test_a_percentile_is_at_most_a_hundredth_too_long_and_never_too_short(
    times: list[float],
) -> None:
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    exact = np.quantile(times, SHARES, method="inverted_cdf")
    found = percentiles(histogram.counts(), SHARES)
    for one, true in zip(found, exact, strict=True):
        assert true * (1 - 1e-9) <= one <= true * 1.0101
    assert histogram.counts().sum() == len(times)


def test_what_is_beyond_the_bounds_is_counted_too() -> None:
    histogram = Histogram()
    for time in (0.0, -1e-9, 1e9):
        histogram.add(time)
    counts = histogram.counts()
    assert (counts[0], counts[-1], counts.sum()) == (2, 1, 3)
    assert len(counts) == BUCKETS
    assert bounds()[-1] > 400


def test_nothing_has_no_percentiles() -> None:
    assert all(map(math.isnan, percentiles(Histogram().counts(), SHARES)))


def test_histograms_add_up() -> None:
    """As those of several processes do."""
    one, other, both = Histogram(), Histogram(), Histogram()
    for n in range(1, 100):
        (one if n % 3 else other).add(n / 1000)
        both.add(n / 1000)
    assert (one.counts() + other.counts()).tolist() == both.counts().tolist()
    assert percentiles(both.counts(), [0.5])[0] == pytest.approx(0.05, rel=0.01)
