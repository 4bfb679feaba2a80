"""Pauses before a process is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tickwell.restarts import FIRST_PAUSE, LONGEST_PAUSE, STEADY_SECONDS, Restarts


@given(st.lists(st.floats(0, 3 * STEADY_SECONDS)))
def test_pauses_grow_while_it_ends_soon(runs: list[float]) -> None:
    restarts, in_a_row, before = Restarts(), 0, 0.0
    for ran in runs:
        pause = restarts.after(ran)
        in_a_row = 0 if ran > STEADY_SECONDS else in_a_row + 1
        assert restarts.in_a_row == in_a_row
        if not in_a_row:
            assert pause == 0
        else:
            assert min(FIRST_PAUSE, LONGEST_PAUSE) <= pause <= LONGEST_PAUSE
            assert pause >= before
        before = pause
    assert restarts.count == len(runs)


def test_the_pauses_of_a_process_that_never_runs() -> None:
    restarts = Restarts()
    pauses = [restarts.after(0.0) for _ in range(7)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
