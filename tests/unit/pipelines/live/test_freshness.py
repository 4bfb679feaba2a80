"""How old ticks are when they are stored, beside numpy's percentiles of all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.live.freshness import LEAST_SECONDS, SPAN_SECONDS, Ages

NOW = 1_700_000_000.0
STEP = 2 ** (1 / 8)
"""How far apart ages are that are counted as one."""


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def known(clock: Clock, ages: list[float]) -> np.ndarray:
    """The timestamps of records that are stored now, in the order of their log."""
    return np.sort((clock.now - np.array(ages)) * 1e9).astype(np.int64)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0.002, 1000), min_size=1, max_size=30), min_size=1, max_size=20))
def test_it_is_the_percentile_of_all_ticks(batches: list[list[float]]) -> None:
    clock = Clock()
    ages = Ages(clock)
    for batch in batches:
        ages.count(known(clock, batch))
    every = [age for batch in batches for age in batch]
    exact = np.percentile(every, 99, method="inverted_cdf")
    told = ages.freshness()
    assert told is not None
    assert told.ticks == len(every)
    assert exact / 1.001 <= told.p99_seconds <= exact * STEP * 1.001


def test_a_large_batch_counts_by_its_ticks() -> None:
    """One old tick beside thousands of young ones is no hundredth of them."""
    clock = Clock()
    ages = Ages(clock)
    ages.count(known(clock, [0.01] * 10_000))
    ages.count(known(clock, [50.0]))
    told = ages.freshness()
    assert told is not None
    assert told.ticks >= 9_000
    assert told.p99_seconds < 0.02
    ages.count(known(clock, [50.0] * 5_000))
    told = ages.freshness()
    assert told is not None
    assert told.p99_seconds > 40


@pytest.mark.parametrize("after", [1.0, SPAN_SECONDS - 1.0])
def test_what_is_older_than_ten_seconds_is_forgotten(after: float) -> None:
    clock = Clock()
    ages = Ages(clock)
    ages.count(known(clock, [3.0]))
    clock.now += after
    first = ages.freshness()
    assert first is not None
    assert first.p99_seconds > 2
    ages.count(known(clock, [0.0]))
    clock.now += SPAN_SECONDS + 1 - after
    second = ages.freshness()
    assert second is not None
    assert (second.ticks, second.p99_seconds) == (1, LEAST_SECONDS)
    clock.now += SPAN_SECONDS + 1
    assert ages.freshness() is None


def test_a_clock_that_is_behind_the_brokers_gives_the_least() -> None:
    clock = Clock()
    ages = Ages(clock)
    ages.count(known(clock, [-5.0]))
    told = ages.freshness()
    assert told is not None
    assert told.p99_seconds == LEAST_SECONDS
