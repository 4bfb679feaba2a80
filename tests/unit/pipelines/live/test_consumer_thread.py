"""What ends a worker whose consumer has failed in the background."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors

from pipelines.errors import RightMissing, SessionRefused
from pipelines.live.consumer_thread import end_when_background_fails


def failures_of(error: Exception, stopping: bool = False) -> list[BaseException]:
    """What the app hears when the second check raises `error`."""
    failures: list[BaseException] = []
    app: Any = SimpleNamespace(
        fail=failures.append,
        stopping=stopping,
        conf=SimpleNamespace(broker_session_timeout=6.0, id="g"),
        incarnations=SimpleNamespace(servers="b:1"),
    )
    outcomes: list[Exception | None] = [None, error]

    def check() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    asyncio.run(asyncio.wait_for(end_when_background_fails(app, check, interval=0.001), 10))
    return failures


def test_an_error_in_the_background_ends_the_worker() -> None:
    """Also while no partition is assigned, and nothing is fetched."""
    error = OSError("closed")
    assert failures_of(error) == [error]


def hidden(error: Exception) -> Exception:
    """As aiokafka gives what its coordinator did not expect."""
    outer = errors.KafkaError("Unexpected error during coordination")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "resource"),
    [
        (errors.GroupAuthorizationFailedError("g"), "the group g"),
        (hidden(errors.GroupAuthorizationFailedError()), "the group g"),
        (errors.TopicAuthorizationFailedError("t"), "the topic t"),
        (errors.TopicAuthorizationFailedError({"u", "t"}), "the topic t, u"),
        (errors.TopicAuthorizationFailedError("t[0] at offset 5"), "the topic t"),
        (errors.TopicAuthorizationFailedError(), "a topic of its sources"),
    ],
)
def test_a_missing_right_is_one_line(
    error: Exception, resource: str, caplog: pytest.LogCaptureFixture
) -> None:
    (failure,) = failures_of(error)
    assert isinstance(failure, RightMissing)
    assert f"no right to Read on {resource}: give it" in str(failure)
    assert caplog.records == []


def test_a_session_that_the_broker_refuses_is_named() -> None:
    (failure,) = failures_of(errors.InvalidSessionTimeoutError())
    assert isinstance(failure, SessionRefused)


@pytest.mark.parametrize("error", [errors.ConsumerStoppedError(), OSError("closed")])
def test_an_app_that_stops_has_no_failure(error: Exception) -> None:
    assert failures_of(error, stopping=True) == []
