"""Who has which arm: by weight, the same everywhere, and moved as little as can be."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from registry.definitions import Arm, Experiment
from registry.experiments import arm_of

SUBJECTS = [f"S{number}" for number in range(20_000)]
weights_of = st.lists(st.integers(1, 1_000_000), min_size=2, max_size=10)


def experiment(*weights: int, name: str = "sma") -> Experiment:
    arms = (Arm(f"v{n}", f"{n}.0.0", weight) for n, weight in enumerate(weights))
    return Experiment(name, "price_sma_5", tuple(arms))


@given(weights_of, st.text(min_size=1, max_size=50))
def test_an_arm_is_where_the_exact_share_of_the_hash_lies(weights: list[int], subject: str) -> None:
    point = Fraction(int(hashlib.sha256(f"sma\0{subject}".encode()).hexdigest()[:16], 16), 2**64)
    ends = [Fraction(sum(weights[: n + 1]), sum(weights)) for n in range(len(weights))]
    expected = next(n for n, end in enumerate(ends) if point < end)
    assert arm_of(experiment(*weights), subject).variant == f"v{expected}"


def test_arms_have_their_shares() -> None:
    """Within five standard deviations, which one name in two million would miss."""
    weights = [50, 30, 15, 5]
    counts = Counter(arm_of(experiment(*weights), subject).variant for subject in SUBJECTS)
    for n, weight in enumerate(weights):
        share, found = weight / 100, counts[f"v{n}"] / len(SUBJECTS)
        assert abs(found - share) < 5 * math.sqrt(share * (1 - share) / len(SUBJECTS))


def test_a_larger_share_moves_what_it_gains_and_nobody_back() -> None:
    before = [arm_of(experiment(50, 50), subject).variant for subject in SUBJECTS]
    after = [arm_of(experiment(60, 40), subject).variant for subject in SUBJECTS]
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert set(moved) == {("v1", "v0")}
    assert 0.09 < len(moved) / len(SUBJECTS) < 0.11


def test_experiments_divide_independently() -> None:
    """Or the same entities would be the treatment of each."""
    one = [arm_of(experiment(1, 1), subject).variant for subject in SUBJECTS]
    other = [arm_of(experiment(1, 1, name="ema"), subject).variant for subject in SUBJECTS]
    pairs = Counter(zip(one, other, strict=True))
    agreeing = (pairs["v0", "v0"] + pairs["v1", "v1"]) / len(SUBJECTS)
    assert abs(agreeing - 0.5) < 5 * math.sqrt(0.25 / len(SUBJECTS))
