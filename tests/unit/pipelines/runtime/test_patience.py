"""Calls of a service that refuses, or does not answer."""

from __future__ import annotations

import logging
import time
from threading import Event

import pytest

from pipelines.errors import Stopped, StoreUnavailable
from pipelines.runtime.patience import Patience


def refuse(why: str = "it is loading") -> None:
    raise StoreUnavailable(why)


def test_attempts_are_made_until_one_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    patience, reasons = Patience("the store"), list[str | None]()

    def attempt() -> str:
        reasons.append(patience.reason)
        if len(reasons) < 4:
            refuse(f"refusal {len(reasons)}")
        return "stored"

    assert patience.retry(attempt, Event()) == "stored"
    assert reasons == [None, "refusal 1", "refusal 2", "refusal 3"]
    assert patience.reason is None
    assert caplog.messages == [
        "the store is unavailable, waiting: refusal 1",
        "the store answers again",
    ]


def test_what_does_not_pass_is_raised_at_once() -> None:
    attempts = []

    def attempt() -> None:
        attempts.append(1)
        raise KeyError("not an outage")

    with pytest.raises(KeyError):
        Patience("the store").retry(attempt, Event())
    assert len(attempts) == 1


def test_an_attempt_that_fails_after_the_stop_is_the_last() -> None:
    stop, attempts = Event(), []

    def attempt() -> None:
        attempts.append(1)
        if len(attempts) == 3:
            stop.set()
        refuse()

    with pytest.raises(Stopped):
        Patience("the store").retry(attempt, stop)
    assert len(attempts) == 3


def test_the_passing_errors_are_the_callers() -> None:
    answers = iter([ConnectionError("the network is down"), None])

    def attempt() -> None:
        if error := next(answers):
            raise error

    Patience("the broker", (ConnectionError,)).retry(attempt, Event())
    assert next(answers, "none is left") == "none is left"


def test_a_refusal_is_remembered_until_a_whole_attempt_succeeds() -> None:
    """Not until a call does: a store with a full disk reads, and refuses to write."""
    patience = Patience("the store")
    with pytest.raises(StoreUnavailable), patience.attempt():
        refuse()
    with patience.attempt():
        with patience.call():
            pass
        assert patience.reason == patience.refusal == "it is loading"
    assert patience.reason is None


def test_a_stall_is_reported_while_it_lasts() -> None:
    patience = Patience("the store", stall_seconds=0.01)
    assert patience.reason is None
    with patience.call():
        while patience.reason is None:
            time.sleep(0.001)
        assert patience.reason == "the store has not answered for 0 s"
        assert patience.refusal is None
    assert patience.reason is None


def test_a_call_that_fails_is_no_stall() -> None:
    patience = Patience("the store", stall_seconds=0.0)
    with pytest.raises(StoreUnavailable), patience.call():
        refuse()
    assert patience.reason is None
