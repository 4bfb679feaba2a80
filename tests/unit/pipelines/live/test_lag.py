"""How far behind a worker says that it is."""

from __future__ import annotations

import time

import pytest

from pipelines.live.lag import Lags

TOPIC = "ticks.price"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    return 1000.0


def test_at_the_end(now: float) -> None:
    lag = Lags().of(TOPIC, 0, 7, 7, now - 2)
    assert (lag.lag, lag.behind_seconds, lag.unseen_seconds) == (0, 0.0, 2.0)


def test_who_has_stored_nothing_yet_is_as_far_behind_as_can_be(now: float) -> None:
    assert Lags().of(TOPIC, 0, 0, 7, now).behind_seconds == now


def test_the_last_end_that_was_reached_bounds_it(now: float) -> None:
    lags = Lags()
    lags.of(TOPIC, 0, 5, 5, now - 60)  # a quiet market: at the end, long after its last record
    assert lags.of(TOPIC, 0, 5, 7, now).behind_seconds == 60
    assert lags.of(TOPIC, 1, 5, 7, now).behind_seconds == now, "another partition"


def test_in_a_busy_market_an_end_is_reached_while_there_is_a_newer_one(now: float) -> None:
    lags = Lags()
    lags.of(TOPIC, 0, 0, 100, now - 9)
    lags.of(TOPIC, 0, 60, 200, now - 8)
    assert lags.of(TOPIC, 0, 99, 300, now - 7).behind_seconds == now, "100 is not stored yet"
    assert lags.of(TOPIC, 0, 150, 400, now - 6).behind_seconds == 9
    assert lags.of(TOPIC, 0, 390, 500, now - 5).behind_seconds == 9, "400 was told 6 s ago"
    assert lags.of(TOPIC, 0, 400, 600, now - 4).behind_seconds == 6


def test_an_end_from_before_what_is_stored_is_none(now: float) -> None:
    """As a broker tells that recovers: it was not seen, and nobody is at its end."""
    lags = Lags()
    lags.of(TOPIC, 0, 7, 7, now - 9)
    lag = lags.of(TOPIC, 0, 7, 5, now)
    assert (lag.lag, lag.unseen_seconds) == (0, 9.0)
    assert lags.of(TOPIC, 0, 7, 8, now).behind_seconds == 9
