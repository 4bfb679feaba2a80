"""When a replay yields to live."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.replay.throttle import (
    ALIVE_SECONDS,
    BEHIND_SECONDS,
    MOST_RESTS,
    NOTICED_SECONDS,
    TIMES_BEFORE,
    WORK_SECONDS,
    remember,
    rest_seconds,
    why_to_pause,
    worst_freshness,
)
from registry.formats.heartbeat import Freshness, Heartbeat, PartitionLag

NOW = 1_700_000_000.0


def beat(sink: str, *behind: float, state: str = "running", at: float = NOW) -> Heartbeat:
    lag = tuple(
        PartitionLag("ticks.price", number, 0, 10, 10, seconds)
        for number, seconds in enumerate(behind)
    )
    return Heartbeat(sink, "one", 1, at, state, NOW, lag=lag)


@pytest.mark.parametrize(
    ("beats", "why"),
    [
        ([], None),
        ([beat("online", 0.0), beat("offline")], None),
        ([beat("online", BEHIND_SECONDS)], None),
        ([beat("online", 0.0, 12.4), beat("offline", 7.0)], "the online worker is 12 s behind"),
        ([beat("online", 6.0), beat("offline", 0.0, 70.0)], "the offline worker is 70 s behind"),
        ([beat("offline", state="retrying")], "the offline worker waits for its store"),
        ([beat("offline", 900.0, at=NOW - ALIVE_SECONDS - 1)], None),
        ([beat("online", state="starting")], None),
    ],
    ids=[
        "no worker",
        "up to date",
        "at the bound",
        "a lag",
        "the worst",
        "refused",
        "dead",
        "starts",
    ],
)
def test_why_a_replay_pauses(beats: list[Heartbeat], why: str | None) -> None:
    assert why_to_pause(beats, NOW) == why


def fresh(sink: str, p99: float | None, instance: str = "one") -> Heartbeat:
    told = None if p99 is None else Freshness(p99, 100)
    return Heartbeat(sink, instance, 1, NOW, "running", NOW, freshness=told)


@pytest.mark.parametrize(
    ("before", "now", "times"),
    [
        (0.2, 0.4, None),
        (0.2, 0.8, 2.0),
        (0.002, 0.1, None),
        (0.002, 0.3, 3.0),
        (None, 5.0, None),
        (0.2, None, None),
    ],
    ids=["twice", "four times", "a few milliseconds", "noticed", "the first", "nothing stored"],
)
def test_when_the_freshness_of_live_suffers(
    before: float | None, now: float | None, times: float | None
) -> None:
    known: dict[tuple[str, str], float] = {}
    remember(known, [fresh("online", before)])
    remember(known, [fresh("online", now)])  # what is known of a worker stays
    found = worst_freshness(known, [fresh("online", now)])
    assert (found and found.times) == (times and pytest.approx(times))


def test_a_worker_that_joins_later_is_compared_with_those_before_it() -> None:
    """Its first ten seconds are those in which it catches up, beside the backfill."""
    known: dict[tuple[str, str], float] = {}
    remember(known, [fresh("online", 0.2), fresh("online", 0.3, "two"), fresh("offline", 3.0)])
    later = [fresh("online", 40.0, "three"), fresh("offline", 2.0, "three")]
    remember(known, later)
    assert (known["online", "three"], known["offline", "three"]) == (0.2, 2.0)
    found = worst_freshness(known, [fresh("online", 4.0, "three")])
    assert found is not None
    assert found.why == "ticks wait 4.00 s for the online worker, 0.20 s before"


def test_the_worker_that_suffers_most_is_told() -> None:
    known: dict[tuple[str, str], float] = {}
    remember(known, [fresh("online", 0.2), fresh("offline", 1.0), fresh("offline", 0.1, "two")])
    beats = [fresh("online", 0.8), fresh("offline", 2.5), fresh("offline", 0.5, "two")]
    found = worst_freshness(known, beats)
    assert found is not None
    assert found.why == "ticks wait 0.50 s for the offline worker, 0.10 s before"


@given(st.floats(1e-3, 1e6), st.floats(0, 1e6))
def test_a_tenth_of_the_work_is_always_done(worked: float, times: float) -> None:
    """And a rest is over soon, also after an hour of work."""
    rest = rest_seconds(worked, times)
    assert 0 <= rest <= MOST_RESTS * min(worked, WORK_SECONDS)
    assert (rest > 0) == (times > 1)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_the_worse_the_longer(one: float, other: float) -> None:
    assert (one <= other) <= (rest_seconds(1.0, one) <= rest_seconds(1.0, other))


def test_what_is_allowed() -> None:
    known = {("online", "one"): 1.0}
    bound = max(TIMES_BEFORE, NOTICED_SECONDS)
    assert worst_freshness(known, [fresh("online", bound)]) is None
    assert worst_freshness(known, [fresh("online", bound * 1.01)]) is not None
