"""How far behind a worker says that it is."""

from __future__ import annotations

from pipelines.live.lag import Lags

TOPIC = "ticks.price"
NOW = 1000.0


def lags_now() -> Lags:
    return Lags(lambda: NOW)


def test_at_the_end() -> None:
    lag = lags_now().of(TOPIC, 0, 7, 7, NOW - 2)
    assert (lag.lag, lag.behind_seconds, lag.unseen_seconds) == (0, 0.0, 2.0)


def test_a_worker_that_has_stored_nothing_is_behind_since_1970() -> None:
    assert lags_now().of(TOPIC, 0, 0, 7, NOW).behind_seconds == NOW


def test_the_last_end_that_was_reached_bounds_it() -> None:
    lags = lags_now()
    lags.of(TOPIC, 0, 5, 5, NOW - 60)  # a quiet market: at the end, long after its last record
    assert lags.of(TOPIC, 0, 5, 7, NOW).behind_seconds == 60
    assert lags.of(TOPIC, 1, 5, 7, NOW).behind_seconds == NOW, "another partition"


def test_in_a_busy_market_an_end_is_reached_while_there_is_a_newer_one() -> None:
    lags = lags_now()
    lags.of(TOPIC, 0, 0, 100, NOW - 9)
    lags.of(TOPIC, 0, 60, 200, NOW - 8)
    assert lags.of(TOPIC, 0, 99, 300, NOW - 7).behind_seconds == NOW, "100 is not stored yet"
    assert lags.of(TOPIC, 0, 150, 400, NOW - 6).behind_seconds == 9
    assert lags.of(TOPIC, 0, 390, 500, NOW - 5).behind_seconds == 9, "400 was reported 6 s ago"
    assert lags.of(TOPIC, 0, 400, 600, NOW - 4).behind_seconds == 6


def test_an_end_from_before_what_is_stored_is_none() -> None:
    """As a broker reports one that recovers: it was not seen, and no worker is at its end."""
    lags = lags_now()
    lags.of(TOPIC, 0, 7, 7, NOW - 9)
    lag = lags.of(TOPIC, 0, 7, 5, NOW)
    assert (lag.lag, lag.unseen_seconds) == (0, 9.0)
    assert lags.of(TOPIC, 0, 7, 8, NOW).behind_seconds == 9
