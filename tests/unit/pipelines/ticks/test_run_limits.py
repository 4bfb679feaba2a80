"""Runs cut so that none is too large for what comes after."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.kafka.run import Run
from pipelines.ticks.run_limits import bounded
from tests.support.logs import run_of_columns


def held(run: Run) -> list[bytes]:
    return [run.value(record) or b"" for record in range(len(run))]


@given(
    st.lists(
        st.sampled_from([b"", b"{}", b"[{},{},{}]", b" [1,2]", b"{,,,,,,,,}", b"\0ab"]), max_size=40
    ),
    st.integers(1, 60),
    st.integers(1, 8),
)
def test_a_run_is_cut_where_it_is_too_large(
    messages: list[bytes], most_bytes: int, most_ticks: int
) -> None:
    n = len(messages)
    whole = run_of_columns(0, (3, 3 + n), range(3, 3 + n), range(n), [b"k"] * n, messages)
    runs = bounded(whole, most_bytes, most_ticks)
    assert [message for run in runs for message in held(run)] == messages
    bounds = [(run.base_offset, run.next_offset) for run in runs]
    assert [start for start, _ in bounds] == [3, *(end for _, end in bounds[:-1])]
    assert bounds[-1][1] == 3 + n

    def size(messages: list[bytes]) -> tuple[int, int]:
        framed = sum(len(m) for m in messages if m[:1] == b"\0")  # longer as JSON
        return sum(map(len, messages)) + 15 * framed, sum(
            m.count(b",") + 1 if b"[" in m else 1 for m in messages
        )

    for one, after in pairwise(map(held, runs)):  # as much as may be; more only of one message
        assert len(one) == 1 or all(map(int.__le__, size(one), (most_bytes, most_ticks)))
        with_next = size([*one, after[0]])
        assert with_next[0] > most_bytes or with_next[1] > most_ticks
