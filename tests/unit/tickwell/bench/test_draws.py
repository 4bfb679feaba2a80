"""Draws beside Zipf's law, and the ideal cache beside one that is simulated."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwell.bench.draws import Draws, ideal_hit_ratio

DRAWN = 50_000


@pytest.mark.parametrize("exponent", [0.0, 0.99, 1.2])
def test_entities_are_drawn_as_often_as_zipf_says(exponent: float) -> None:
    draws = Draws(100, exponent, seed=1)
    found = Counter(next(draws) for _ in range(DRAWN))
    weights = [1 / rank**exponent for rank in range(1, 101)]
    for rank, weight in enumerate(weights):
        share = weight / math.fsum(weights)
        deviation = math.sqrt(DRAWN * share * (1 - share))
        assert abs(found[rank] - DRAWN * share) < 5 * deviation


def test_seeds_draw_differently_and_again() -> None:
    first, again, other = (Draws(1000, 1.0, seed) for seed in (1, 1, 2))
    drawn = [[next(draws) for _ in range(100)] for draws in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_one_entity_is_drawn_always() -> None:
    draws = Draws(1, 1.2, seed=1)
    assert {next(draws) for _ in range(100)} == {0}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.integers(1, 25))
def test_no_set_of_that_size_answers_more(drawn: list[int], size: int) -> None:
    counts = np.bincount(drawn, minlength=21)
    ideal = ideal_hit_ratio(counts, size)
    chosen = {entity for entity, _ in Counter(drawn).most_common(size)}
    assert ideal == pytest.approx(sum(one in chosen for one in drawn) / len(drawn))
    recent = dict[int, None]()  # the least recently used one goes
    hits = 0
    for entity in drawn:
        hits += entity in recent
        recent.pop(entity, None)
        recent[entity] = None
        if len(recent) > size:
            del recent[next(iter(recent))]
    assert hits / len(drawn) <= ideal


def test_a_cache_without_bound_and_one_without_draws() -> None:
    assert ideal_hit_ratio(np.array([3, 0, 1]), math.inf) == 1
    assert ideal_hit_ratio(np.array([3, 0, 1]), 0) == 0
    assert math.isnan(ideal_hit_ratio(np.array([0, 0]), 1))


def test_the_page_of_serving_has_these_figures() -> None:
    """An ideal cache of a tenth of a million entities, at skews that are common."""
    for exponent, ideal in ((0.99, 0.83), (1.1, 0.92), (1.2, 0.965)):
        weights = np.arange(1, 1_000_001.0) ** -exponent
        counts = np.round(weights / weights.sum() * 1e12).astype(np.int64)
        assert ideal_hit_ratio(counts, 100_000) == pytest.approx(ideal, abs=0.006)
