"""How often and until when a call is tried; the clock and chance are the test's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwell.client.calls import Calls, Chances, Retries
from tickwell.client.errors import (
    CertificateRefused,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    ServerMistake,
)

BROKEN = ConnectionFailed("http://h", "reset")
NEVER = [
    NotReady("starts", 503),
    InvalidRequest("why", 422),
    ServerMistake("why", 500),
    CertificateRefused("http://h", "why"),
]
"""What does not say that another attempt is of use."""


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def longest(low: float, high: float) -> float:
    """Chance, at its worst."""
    return high


def calls(clock: Clock, retries: Retries = Retries(reserve=1e6)) -> Calls:  # noqa: B008 - frozen
    return Calls("http://h", retries, Chances(clock, longest))


def test_pauses_grow_and_are_drawn_from_zero_up() -> None:
    call = calls(Clock(), Retries(100, 1, 1e6, 0.01, 0.05)).begin(100)
    assert [call.pause(BROKEN, n) for n in range(1, 6)] == [0.01, 0.02, 0.04, 0.05, 0.05]
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    lucky = Calls("http://h", Retries(), Chances(Clock(), draw)).begin(100)
    assert [lucky.pause(BROKEN, n) for n in (1, 2)] == [0, 0]
    assert drawn == [(0.0, 0.01), (0.0, 0.02)]


def test_a_server_is_given_the_time_that_it_asks_for() -> None:
    call = calls(Clock()).begin(100)
    assert call.pause(NotReady("full", 503, retry_after_seconds=3), 1) == 3
    assert call.pause(NotReady("full", 503, retry_after_seconds=0), 1) == 0.01


@pytest.mark.parametrize("error", NEVER, ids=lambda error: type(error).__name__)
def test_what_is_not_safe_or_of_no_use_is_not_tried_again(error: ClientError) -> None:
    call = calls(Clock()).begin(100)
    with pytest.raises(type(error)) as raised:
        call.pause(error, 1)
    assert raised.value is error


def test_a_request_is_sent_a_few_times_at_most() -> None:
    call = calls(Clock(), Retries(attempts=3)).begin(100)
    call.pause(BROKEN, 2)
    with pytest.raises(ConnectionFailed):
        call.pause(BROKEN, 3)


def test_the_deadline_is_of_all_attempts_together() -> None:
    clock = Clock()
    call = calls(clock).begin(2.0)
    assert call.remaining() == 2.0
    clock.now += 1.5
    assert call.remaining() == 0.5
    call.pause(BROKEN, 1)
    clock.now += 0.5
    with pytest.raises(DeadlineExceeded, match=r"within 2 s; before that: .*reset"):
        call.remaining()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_call_begins_without_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        calls(Clock()).begin(seconds)


@given(
    st.floats(0.01, 10),
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 5)), min_size=1, max_size=20),
)
def test_no_pause_reaches_the_deadline(seconds: float, steps: list[tuple[float, float]]) -> None:
    clock = Clock()
    call = calls(clock, Retries(attempts=100, reserve=1e6)).begin(seconds)
    end = clock.now + seconds
    for attempt, (asked_for, took) in enumerate(steps, 1):
        clock.now += took
        try:
            pause = call.pause(NotReady("full", 503, retry_after_seconds=asked_for), attempt)
        except ClientError:
            return
        assert clock.now + pause <= end  # not quite: sums are rounded
        clock.now += pause


@given(
    st.floats(0, 1),
    st.integers(0, 20),
    st.lists(st.integers(0, 5), max_size=200),
)
def test_retries_are_a_share_of_the_calls(share: float, reserve: int, wanted: list[int]) -> None:
    """Whatever comes when: no more than the reserve, and a share of each call so far."""
    retried = 0
    every = calls(Clock(), Retries(attempts=10, share=share, reserve=reserve))
    for begun, retries in enumerate(wanted, 1):
        call = every.begin(1000)
        for attempt in range(1, retries + 1):
            try:
                call.pause(BROKEN, attempt)
            except ConnectionFailed:
                break
            retried += 1
        assert retried <= reserve + share * begun + 1e-6


def test_a_quiet_time_earns_no_more_than_the_reserve() -> None:
    every = calls(Clock(), Retries(attempts=100, share=1, reserve=2))
    for _ in range(50):
        call = every.begin(1000)
    assert [call.pause(BROKEN, 1) for _ in range(2)]
    with pytest.raises(ConnectionFailed):
        call.pause(BROKEN, 1)
