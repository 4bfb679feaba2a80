"""When look-ups of the topics that fail are a state of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pipelines.errors import BrokerUnavailable, TopicMissing, TopicRecreated
from pipelines.kafka.topic_identity import FRESH_SECONDS
from pipelines.live.background import watch_topics
from pipelines.live.health import Health

SILENT = BrokerUnavailable("b:1", "no answer in 10 s")
MISSING = TopicMissing("ticks", "b:1")
RECREATED = TopicRecreated("ticks")


def states(seconds: float, *looks: Exception | None) -> list[str | None]:
    """The state of a worker before each look-up, each of which takes so long, and at the end."""
    health, now = Health("online"), [100.0]
    found: list[str | None] = []
    left: Iterator[Exception | None] = iter((*looks, RECREATED))

    def confirm() -> None:
        found.append(health.topics_error)
        now[0] += seconds
        error = next(left)
        if error is not None:
            raise error

    failed: list[BaseException] = []
    asyncio.run(watch_topics(confirm, health, failed.append, 0.0, lambda: now[0]))
    assert failed == [RECREATED]
    return found


@pytest.mark.parametrize("failure", [SILENT, MISSING])
def test_one_look_up_that_fails_is_no_state(failure: Exception) -> None:
    assert states(3.0, failure, None, failure, failure, None) == [None] * 6


@pytest.mark.parametrize("failure", [SILENT, MISSING])
def test_a_state_is_that_runs_wait(failure: Exception) -> None:
    """Which they do once the last look-up that succeeded began too long ago."""
    text = str(failure)
    assert states(4.0, None, failure, failure, failure, None) == [
        None,
        None,
        None,
        text,
        text,
        None,
    ]
    assert states(FRESH_SECONDS, failure, failure) == [None, text, text]
