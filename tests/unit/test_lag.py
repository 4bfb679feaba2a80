"""How far behind a worker says that it is."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from pipelines.lag import Lags
from pipelines.runs import Run
from tests.logs import run_of

TOPIC = "ticks.price"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    return 1000.0


def stored_at(seconds: float) -> Run:
    run = run_of(0, (0, 1), [0], [0], [b"A"], [b"{}"])
    return replace(run, topic=TOPIC, timestamps=np.array([int(seconds * 1000)]))


def test_at_the_end(now: float) -> None:
    lag = Lags().of(TOPIC, 0, 7, 7, now - 2)
    assert (lag.lag, lag.behind_seconds, lag.unseen_seconds) == (0, 0.0, 2.0)


def test_who_has_stored_nothing_yet_is_as_far_behind_as_can_be(now: float) -> None:
    assert Lags().of(TOPIC, 0, 0, 7, now).behind_seconds == now


def test_the_last_record_and_the_last_end_bound_it(now: float) -> None:
    lags = Lags()
    lags.stored(stored_at(now - 60))
    assert lags.of(TOPIC, 0, 5, 7, now).behind_seconds == 60
    lags.of(TOPIC, 0, 5, 5, now - 3)  # a quiet market: at the end, long after its last record
    assert lags.of(TOPIC, 0, 5, 7, now).behind_seconds == 3
    lags.stored(stored_at(now - 1))
    assert lags.of(TOPIC, 0, 6, 7, now).behind_seconds == 1
    assert lags.of(TOPIC, 1, 5, 7, now).behind_seconds == now, "another partition"


def test_an_end_from_before_what_is_stored_is_none(now: float) -> None:
    """As a broker tells that recovers: it was not seen, and nobody is at its end."""
    lags = Lags()
    lags.of(TOPIC, 0, 7, 7, now - 9)
    lag = lags.of(TOPIC, 0, 7, 5, now)
    assert (lag.lag, lag.unseen_seconds) == (0, 9.0)
    assert lags.of(TOPIC, 0, 7, 8, now).behind_seconds == 9
