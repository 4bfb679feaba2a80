"""A sparkline says which counts are higher than others, and which are 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.lifecycle.usage import BLOCKS, sparkline


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ([], ""),
        ([0, 0, 0], "▁▁▁"),
        ([5], "█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([0, 1, 1_000_000], "▁▂█"),
        ([7, 7, 0], "██▁"),
    ],
)
def test_a_line(counts: list[int], line: str) -> None:
    assert sparkline(counts) == line


@given(st.lists(st.integers(0, 10**18), min_size=1))
def test_higher_counts_are_never_shown_lower(counts: list[int]) -> None:
    heights = [BLOCKS.index(block) for block in sparkline(counts)]
    assert len(heights) == len(counts)
    for count, height in zip(counts, heights, strict=True):
        assert (height == 0) == (count == 0)
        assert (height == len(BLOCKS) - 1) >= (count == max(counts) > 0)
        for other, beside in zip(counts, heights, strict=True):
            assert count <= other or height >= beside
