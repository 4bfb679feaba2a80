"""The broker that tests run on, and what only Apache Kafka can show."""

from __future__ import annotations

import os
from functools import cache
from typing import Literal

import pytest

from tests.support.containers import engine_answers
from tickwell.embedded.broker import choose


@cache
def startable() -> Literal["kafka", "tansu"]:
    """The kind of broker that a test can start itself: Apache Kafka where Java and Maven are."""
    return choose("auto")


@cache
def is_kafka() -> bool:
    """Whether the broker of the fixture `kafka` is Apache Kafka, as one from outside is."""
    return "TICKWELL_KAFKA" in os.environ or engine_answers() or startable() == "kafka"


def needs_kafka(why: str) -> pytest.MarkDecorator:
    """Skips a test of the fixture's broker on Tansu, which cannot show what the test asserts."""
    return pytest.mark.skipif(
        not is_kafka() and os.environ.get("CI") != "true", reason=f"needs Apache Kafka: {why}"
    )


def must_delete_records() -> None:
    """Skips the test that runs where the fixture's broker cannot delete records."""
    if not is_kafka() and os.environ.get("CI") != "true":
        pytest.skip("needs Apache Kafka: Tansu deletes no records")


def starts_kafka() -> pytest.MarkDecorator:
    """Skips a test that starts an Apache Kafka of its own."""
    return pytest.mark.skipif(
        startable() != "kafka" and os.environ.get("CI") != "true",
        reason="starts Apache Kafka: needs Java 17 and Maven",
    )
