"""Whether two samples of a feature are distributed alike.

The measure is the population stability index: of B bins with shares p of one sample and q of the
other, the sum of (p - q) ln(p / q) (Siddiqi, Credit Risk Scorecards, 2006), a symmetrised
Kullback-Leibler divergence. Three rules make it a measure of drift rather than of something else:

- *Neighbouring values are not independent.* Two means of 20 ticks that are one tick apart share 19
  of them, and 500 such values of pure noise differ from others as if all had changed. So of each
  entity one value a window length counts (`thinned`).
- *A small sample differs from any other*: without drift the index is (B - 1)(1/n + 1/m) on the
  average (`expected`), so fewer than 500 values of a side are not compared.
- *A value that is repeated is a bin of its own*, as the price of a symbol that stands still: bounds
  between quantiles that are equal would say nothing.

Each bin has half a value more than were counted (Laplace), so an empty one is no infinity.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 10
LEAST_VALUES = 500
"""Independent values of a sample below which it is not compared."""

LEAST_DAYS = 5
"""Days of training below which what differs from day to day is not known."""

RULE_OF_THUMB = 0.25
"""The index over which a sample counts as another one, where no days could tell."""

SHARE_RULE = 0.05
"""The same for the share of a status."""

MARGIN = 2.0
ADDED = 0.5
DAY_NS = 86_400 * 10**9

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]


class Bins(NamedTuple):
    """Where values are counted: those that are repeated by themselves, others between bounds."""

    repeated: Floats
    """Sorted."""
    bounds: Floats
    """Sorted; a value that equals one belongs to the bin above."""

    def counts(self, values: Floats) -> Int64s:
        """How many values are in each bin."""
        place = np.searchsorted(self.repeated, values)
        known = place < len(self.repeated)
        known[known] = self.repeated[place[known]] == values[known]
        alone = np.bincount(place[known], minlength=len(self.repeated))
        between = np.searchsorted(self.bounds, values[~known], side="right")
        return np.concatenate([alone, np.bincount(between, minlength=len(self.bounds) + 1)])


def bins_of(values: Floats) -> Bins:
    """Ten bins, or fewer, with about as many of these values each."""
    distinct, times = np.unique(values, return_counts=True)
    repeated = distinct[times * BINS >= len(values)]
    rest = values[~np.isin(values, repeated)]
    places = max(1, round(BINS * len(rest) / len(values)))
    inner = np.linspace(0, 1, places + 1)[1:-1]
    bounds = np.unique(np.quantile(rest, inner)) if len(rest) else np.empty(0)
    return Bins(repeated, bounds)


def stability_index(counts: Int64s, others: Int64s) -> float:
    """The population stability index of two samples, by their counts in the same bins."""
    smoothed = [(one + ADDED) / (one + ADDED).sum() for one in (counts, others)]
    p, q = smoothed
    return math.fsum((p - q) * np.log(p / q))


def expected(bins: int, n: int, m: int) -> float:
    """What the index of two samples of one distribution is on the average."""
    return (bins - 1) * (1 / n + 1 / m)


def thinned(entity: NDArray[Any], times: Int64s, spans: Int64s) -> NDArray[np.intp]:
    """Which of n values to count: of each entity the first, and others a span after the last one.

    `times` (n,) are the event times of the values, in nanoseconds, and `spans` (n,) the window
    lengths; of values of one time at most one counts.
    """
    order = np.lexsort((times, entity))
    kept = []
    last_entity: int | None = None
    last = 0
    of = entity[order].tolist(), times[order].tolist(), spans[order].tolist()
    for number, one, time, span in zip(order.tolist(), *of, strict=True):
        if one != last_entity or time - last >= max(1, span):
            kept.append(number)
            last_entity, last = one, time
    return np.array(kept, np.intp)


class Threshold(NamedTuple):
    """What counts as drift."""

    value: float
    days: int
    """The days of training that it comes from; 0 where it is a rule of thumb."""


def index_threshold(values: Floats, times: Int64s, compared: int) -> Threshold:
    """The index over which a sample of `compared` values counts as another one.

    It is twice the most by which a day of training differs from all other days, where five days
    have enough values: a feature that differs between days has not drifted when it differs today.
    Twice, since of seven days that are alike each is the oddest one in one case of seven.
    """
    days, counts = _days(times)
    whole = days[counts >= LEAST_VALUES]
    if len(whole) < LEAST_DAYS:
        bins = bins_of(values)
        size = len(bins.repeated) + len(bins.bounds) + 1
        return Threshold(RULE_OF_THUMB + expected(size, len(values), max(1, compared)), 0)
    day = times // DAY_NS
    found = []
    for one in whole.tolist():
        others = values[day != one]
        bins = bins_of(others)
        found.append(stability_index(bins.counts(others), bins.counts(values[day == one])))
    return Threshold(MARGIN * max(found), len(whole))


def share_threshold(has: NDArray[np.bool_], times: Int64s) -> Threshold:
    """How far a share may be from that of training: twice as far as a day's from other days'."""
    days, counts = _days(times)
    whole = days[counts >= LEAST_VALUES]
    if len(whole) < LEAST_DAYS:
        return Threshold(SHARE_RULE, 0)
    day = times // DAY_NS
    found = [abs(has[day == one].mean() - has[day != one].mean()) for one in whole.tolist()]
    return Threshold(max(SHARE_RULE, MARGIN * max(map(float, found))), len(whole))


def _days(times: Int64s) -> tuple[Int64s, Int64s]:
    days, counts = np.unique(times // DAY_NS, return_counts=True)
    return days, counts
