"""The schedule of faults is a function of the seed, and leaves a target alone while it recovers."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import KINDS, Fault, schedule


@given(st.integers(), st.floats(30, 600))
def test_the_same_seed_gives_the_same_faults(seed: int, seconds: float) -> None:
    faults = schedule(seed, seconds)
    assert faults == schedule(seed, seconds)
    assert all(0 < fault.at < seconds for fault in faults)


@given(st.integers())
def test_a_target_is_left_alone_until_it_has_recovered(seed: int) -> None:
    recovery = {kind.name: kind.recovery for kind in KINDS}
    by_target: dict[str, list[Fault]] = defaultdict(list)
    for fault in schedule(seed, 300):
        by_target[fault.target].append(fault)
    for faults in by_target.values():
        for one, following in pairwise(faults):
            assert following.at >= one.at + one.down + recovery[one.kind]


def test_a_long_run_has_every_class_and_three_hundred_faults() -> None:
    faults = schedule(1, 18 * 60)
    assert {fault.kind for fault in faults} == {kind.name for kind in KINDS}
    assert len(faults) >= 300
