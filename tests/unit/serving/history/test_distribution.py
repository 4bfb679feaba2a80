"""Distributions are compared with SciPy, counts with NumPy's histogram, rules by what they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from serving.history.distribution import (
    BINS,
    DAY_NS,
    LEAST_DAYS,
    LEAST_VALUES,
    RULE_OF_THUMB,
    SHARE_RULE,
    bins_of,
    expected,
    index_threshold,
    share_threshold,
    stability_index,
    thinned,
)

COUNTS = st.lists(st.integers(0, 1_000), min_size=2, max_size=12)
VALUES = st.lists(st.sampled_from([0.0, 1.0, -2.5, 3.0]) | st.floats(-9, 9), min_size=1)


@given(st.data())
def test_the_index_is_the_divergence_in_both_directions(data: st.DataObject) -> None:
    one = np.array(data.draw(COUNTS))
    same_size = st.lists(st.integers(0, 1_000), min_size=len(one), max_size=len(one))
    other = np.array(data.draw(same_size))
    p, q = one + 0.5, other + 0.5
    both = stats.entropy(p, q) + stats.entropy(q, p)
    assert stability_index(one, other) == pytest.approx(both, rel=1e-9, abs=1e-12)
    assert stability_index(one, one) == 0.0


@given(VALUES, VALUES)
def test_each_value_is_in_one_bin(training: list[float], values: list[float]) -> None:
    bins = bins_of(np.array(training))
    counts = bins.counts(np.array(values))
    assert counts.sum() == len(values)
    for place, repeated in enumerate(bins.repeated.tolist()):
        assert counts[place] == values.count(repeated)
    rest = [value for value in values if value not in bins.repeated]
    edges = [-np.inf, *bins.bounds.tolist(), np.inf]
    between, _ = np.histogram(rest, edges)
    assert counts[len(bins.repeated) :].tolist() == between.tolist()


def test_bins_have_equal_shares_and_a_repeated_value_its_own() -> None:
    random = np.random.default_rng(1)
    smooth = random.standard_normal(10_000)
    counts = bins_of(smooth).counts(smooth)
    assert len(counts) == BINS
    assert np.all(np.abs(counts - 1_000) <= 1)
    still = np.where(random.random(10_000) < 0.4, 7.0, smooth)
    bins = bins_of(still)
    assert bins.repeated.tolist() == [7.0]
    counts = bins.counts(still)
    assert counts[0] == (still == 7.0).sum()
    assert counts[1:].max() - counts[1:].min() <= 1
    assert bins.counts(np.full(10, 7.0)).tolist()[0] == 10


def test_a_feature_that_is_constant_is_compared_by_whether_it_is_that() -> None:
    bins = bins_of(np.zeros(1_000))
    assert stability_index(bins.counts(np.zeros(1_000)), bins.counts(np.zeros(900))) < 0.001
    assert stability_index(bins.counts(np.zeros(1_000)), bins.counts(np.ones(900))) > 5


def test_without_drift_the_index_is_about_what_is_expected() -> None:
    random = np.random.default_rng(2)
    found = []
    for _ in range(200):
        training, now = random.standard_normal(20_000), random.standard_normal(500)
        bins = bins_of(training)
        found.append(stability_index(bins.counts(training), bins.counts(now)))
    assert np.mean(found) == pytest.approx(expected(BINS, 20_000, 500), rel=0.1)
    assert np.mean(np.array(found) > RULE_OF_THUMB) == 0


def test_neighbouring_means_count_once_a_window() -> None:
    """Means of 20 values of noise: 500 neighbours look like drift, 500 windows do not."""
    random = np.random.default_rng(3)
    window = 20

    def means(n: int) -> np.ndarray:
        return np.convolve(
            random.standard_normal(n + window - 1), np.ones(window) / window, "valid"
        )

    neighbours, windows = [], []
    for _ in range(40):
        training, now = means(50_000), means(10_000)
        for found, values in ((neighbours, now[:500]), (windows, _thinned(now, window))):
            reference = _thinned(training, window)
            bins = bins_of(reference)
            found.append(stability_index(bins.counts(reference), bins.counts(values)))
    assert np.mean(np.array(neighbours) > 0.1) > 0.2
    assert np.mean(np.array(windows) > 0.1) < 0.05


def _thinned(values: np.ndarray, span: int) -> np.ndarray:
    entity = np.zeros(len(values), np.int32)
    times = np.arange(len(values))
    found: np.ndarray = values[thinned(entity, times, np.full(len(values), span))]
    return found


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=60),
    st.integers(0, 20),
)
def test_what_is_thinned(rows: list[tuple[int, int]], span: int) -> None:
    entity = np.array([one for one, _ in rows], np.int32)
    times = np.array([time for _, time in rows], np.int64)
    kept = thinned(entity, times, np.full(len(rows), span))
    for one in set(entity.tolist()):
        of_entity = np.sort(times[entity == one])
        found = np.sort(times[kept][entity[kept] == one])
        assert found[0] == of_entity[0]
        assert np.all(np.diff(found) >= max(1, span))
        for time in of_entity.tolist():  # none is left out that could have counted
            assert np.min(np.abs(found - time)[found <= time]) < max(1, span)


def days(n: int, values: int) -> np.ndarray:
    return np.repeat(np.arange(n) * DAY_NS, values)


def test_the_threshold_is_what_days_differ_by() -> None:
    random = np.random.default_rng(4)
    times = days(LEAST_DAYS, LEAST_VALUES)
    level = np.repeat([1.0, 1.1, 1.0, 0.9, 1.6], LEAST_VALUES)
    values = random.standard_normal(len(times)) * level
    found = index_threshold(values, times, LEAST_VALUES)
    assert found.days == LEAST_DAYS
    last = times == times[-1]
    others = bins_of(values[~last])
    widest = stability_index(others.counts(values[~last]), others.counts(values[last]))
    assert found.value == 2 * widest
    few = index_threshold(values[~last], times[~last], LEAST_VALUES)
    assert few.days == 0
    n = len(values[~last])
    assert few.value == RULE_OF_THUMB + expected(BINS, n, LEAST_VALUES)


def test_false_alarms_are_rare_although_days_are_few() -> None:
    random = np.random.default_rng(6)
    times = days(LEAST_DAYS, LEAST_VALUES)
    alarms = 0
    for _ in range(200):
        training, now = random.standard_normal(len(times)), random.standard_normal(LEAST_VALUES)
        bins = bins_of(training)
        index = stability_index(bins.counts(training), bins.counts(now))
        alarms += index > index_threshold(training, times, LEAST_VALUES).value
    assert alarms <= 2


def test_the_threshold_of_a_share() -> None:
    times = days(LEAST_DAYS, LEAST_VALUES)
    has = np.zeros(len(times), np.bool_)
    assert share_threshold(has, times) == (SHARE_RULE, LEAST_DAYS)
    has[: LEAST_VALUES // 2] = True  # half of a day
    assert share_threshold(has, times) == (1.0, LEAST_DAYS)
    assert share_threshold(has[:-1], times[:-1]) == (SHARE_RULE, 0)
