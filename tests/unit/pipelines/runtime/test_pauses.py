"""A pause is noticed once, by whoever looks first."""

from __future__ import annotations

from pipelines.runtime.pauses import Pauses


def test_a_pause_is_noticed_once() -> None:
    times = iter([10.0, 11.0, 13.0, 15.1, 15.2, 18.0])
    pauses = Pauses(2.0, clock=lambda: next(times))
    assert [pauses.noticed() for _ in range(5)] == [False, False, True, False, True]
