"""Runs that are passed on together."""

from __future__ import annotations

from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.kafka.run import together
from tests.support.apps import run


@given(st.lists(st.integers(0, 12)), st.integers(1, 20))
def test_runs_are_grouped_in_their_order_as_far_as_they_are_small(
    sizes: list[int], most: int
) -> None:
    runs = [run(0, size) for size in sizes]
    groups = list(together(runs, most))
    records = [sum(map(len, group)) for group in groups]
    assert list(map(id, chain.from_iterable(groups))) == list(map(id, runs))
    assert all(len(group) == 1 or n < most for group, n in zip(groups, records, strict=True))
    for (_, n), (following, _) in pairwise(zip(groups, records, strict=True)):
        assert n + len(following[0]) >= most, "it would have fit into the group before"
