"""Topics that were just made, on brokers that have not all heard of them yet."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Uuid

from pipelines.errors import BrokerRefused, ReplicasRefused, TopicMissing
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import Topic, check_topics, ensure_topics, find_topics

BROKER = KafkaConnection("b:1")
NAMES = ["ticks.price", "ticks.rejected"]
TOPIC_ID = Uuid(1, 2)
NO_REPLICAS = SimpleNamespace(replicas=[])
FOUND = {name: Topic(name, (1 << 64 | 2).to_bytes(16), 4) for name in NAMES}


class Impatient(Event):
    """An event that is waited for in no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class Cluster:
    """Brokers that know of each topic only after having been asked for it `late` times."""

    def __init__(self, late: int, forgets: int = 0, on_asked: Event | None = None) -> None:
        self.late = late
        self.forgets = forgets
        self.on_asked = on_asked
        self.asked = 0
        self.made = 0

    def connect(self, settings: dict[str, Any]) -> Any:
        return self

    def create_topics(
        self, new: Sequence[Any], request_timeout: float, validate_only: bool
    ) -> dict[str, Future[None]]:
        assert not validate_only
        self.made += 1
        self.replicas = {topic.replication_factor for topic in new}
        code = KafkaError.TOPIC_ALREADY_EXISTS if self.made > 1 else None
        assert [topic.topic for topic in new] == NAMES[1:]
        return {topic.topic: answer(None, code) for topic in new}

    def describe_topics(
        self, topics: Any, request_timeout: float
    ) -> dict[str, Future[SimpleNamespace]]:
        self.asked += 1
        if self.on_asked is not None:
            self.on_asked.set()
        known = self.asked > self.late and self.made > self.forgets
        code = None if known else KafkaError.UNKNOWN_TOPIC_OR_PART
        described = SimpleNamespace(topic_id=TOPIC_ID, partitions=[NO_REPLICAS] * 4)
        # the first is known from the beginning: all of them must be
        return {name: answer(described, code if name != NAMES[0] else None) for name in NAMES}


def answer(result: Any, code: int | None) -> Future[Any]:
    future: Future[Any] = Future()
    if code is None:
        future.set_result(result)
    else:
        future.set_exception(KafkaException(KafkaError(code)))
    return future


@pytest.mark.parametrize("late", [0, 1, 40])
def test_a_topic_that_was_just_made_is_waited_for(late: int) -> None:
    cluster = Cluster(late)
    assert ensure_topics(BROKER, NAMES, 4, Impatient(), cluster.connect) == FOUND
    assert cluster.asked == max(late, 1) + 1


def test_where_all_exist_none_is_made() -> None:
    """Whoever may not create topics can still use those that are there."""
    cluster = Cluster(late=0, forgets=-1)
    assert ensure_topics(BROKER, NAMES, 4, Impatient(), cluster.connect) == FOUND
    assert (cluster.asked, cluster.made) == (1, 0)


@pytest.mark.parametrize("late", [0, 1, 40])
def test_so_is_one_that_somebody_else_made(late: int) -> None:
    cluster = Cluster(late, forgets=-1)
    assert find_topics(BROKER, NAMES, Impatient(), cluster.connect) == FOUND
    assert cluster.made == 0


def test_a_topic_that_was_still_being_deleted_is_made_again() -> None:
    cluster = Cluster(late=0, forgets=3)
    assert ensure_topics(BROKER, NAMES, 4, Impatient(), cluster.connect) == FOUND


def test_the_wait_has_an_end() -> None:
    for late in (82, 10**9):
        with pytest.raises(TopicMissing, match=NAMES[1]):
            ensure_topics(BROKER, NAMES, 4, Impatient(), Cluster(late).connect)
        with pytest.raises(TopicMissing, match=NAMES[1]):
            find_topics(BROKER, NAMES, Impatient(), Cluster(late).connect)


def test_who_is_asked_to_stop_does_not_wait() -> None:
    stopped = Event()
    cluster = Cluster(late=40, on_asked=stopped)
    with pytest.raises(TopicMissing):
        find_topics(BROKER, NAMES, stopped, cluster.connect)
    assert cluster.asked == 1


def test_another_refusal_is_not_waited_out() -> None:
    class Refuses(Cluster):
        def create_topics(
            self, new: Sequence[Any], request_timeout: float, validate_only: bool
        ) -> Any:
            self.made += 1
            return {topic.topic: answer(None, KafkaError.POLICY_VIOLATION) for topic in new}

    cluster = Refuses(late=0)
    with pytest.raises(BrokerRefused, match=NAMES[1]) as refused:
        ensure_topics(BROKER, NAMES, 4, Impatient(), cluster.connect)
    assert "running" not in str(refused.value)  # who refuses is running
    assert cluster.made == 1


def test_topics_get_the_replicas_that_are_set() -> None:
    for replicas, given in (({}, -1), ({"replicas": 3}, 3)):
        cluster = Cluster(late=0)
        ensure_topics(BROKER, NAMES, 4, Impatient(), cluster.connect, **replicas)
        assert cluster.replicas == {given}


class Checked(Cluster):
    """Brokers that are asked whether topics could be made, and answer with a code."""

    def __init__(self, code: int | None, late: int = 1) -> None:
        super().__init__(late)
        self.code = code

    def create_topics(self, new: Sequence[Any], request_timeout: float, validate_only: bool) -> Any:
        assert validate_only
        self.made += 1
        return {topic.topic: answer(None, self.code) for topic in new}


def test_replicas_that_cannot_be_are_refused() -> None:
    cluster = Checked(KafkaError.INVALID_REPLICATION_FACTOR)
    with pytest.raises(ReplicasRefused, match="Set TICKWELL_REPLICATION"):
        check_topics(BROKER, NAMES, 4, 9, cluster.connect)


@pytest.mark.parametrize("code", [None, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_right_that_may_not_be_needed_is_not_asked_for(code: int | None) -> None:
    cluster = Checked(code)
    check_topics(BROKER, NAMES, 4, 9, cluster.connect)
    assert cluster.made == 1


def test_of_topics_that_exist_nothing_is_checked() -> None:
    cluster = Checked(KafkaError.INVALID_REPLICATION_FACTOR, late=-1)
    cluster.made = 1
    check_topics(BROKER, NAMES, 4, 9, cluster.connect)
    assert cluster.made == 1


def test_topics_are_not_waited_for_once_stopped() -> None:
    stopped = Event()
    cluster = Cluster(late=40, on_asked=stopped)
    with pytest.raises(TopicMissing):
        ensure_topics(BROKER, NAMES, 4, stopped, cluster.connect)
    assert (cluster.made, cluster.asked) == (1, 2)
