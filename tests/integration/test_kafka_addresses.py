"""Brokers at addresses that die: who has met another broker asks that one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.errors import BrokerUnavailable, ReplicasRefused
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topic_identity import Incarnations
from pipelines.kafka.topics import describe, ensure_topics, existing
from tests.support.brokers import needs_kafka
from tests.support.network import Network, network
from tickwell.embedded.ports import HOST, keep_port
from tickwell.migrate import migrate
from tickwell.settings import Settings


@pytest.fixture
def first(kafka: str) -> Iterator[Network]:
    """An address of the broker that is not the one by which it calls itself."""
    with ExitStack() as stack:
        yield stack.enter_context(network(f"tcp://{kafka}"))


def address(of: Network) -> str:
    return of.url.removeprefix("tcp://")


def test_look_ups_go_on_when_the_only_address_dies(first: Network) -> None:
    """By the connections that the client has, and by those of the client that replaces it."""
    connection = KafkaConnection(address(first))
    topics = ensure_topics(connection, [f"ticks-{uuid.uuid4().hex[:8]}"], 2)
    incarnations = Incarnations(connection, topics)
    first.cut()
    for _ in range(3):
        incarnations.confirm()
        assert incarnations.certain


@needs_kafka("Tansu takes any number of replicas")
def test_replicas_that_cannot_be_are_refused_before_anything_is_changed(kafka: str) -> None:
    """Postgres is not even connected to: nothing listens there."""
    topic = f"rejected-{uuid.uuid4().hex[:8]}"
    nowhere = f"postgresql://{HOST}:1/none"
    settings = Settings(kafka=kafka, postgres=nowhere, replication=9, rejected_topic=topic)
    with pytest.raises(ReplicasRefused, match="only 1 broker") as refused:
        migrate(settings)
    assert "is it running" not in str(refused.value)
    assert not existing(settings.kafka_connection, [topic])


def test_the_first_address_may_be_dead(kafka: str, tmp_path: Path) -> None:
    dead = f"{HOST}:{keep_port(tmp_path / 'port')}"
    connection = KafkaConnection(f"{dead},{kafka}")
    made = ensure_topics(connection, [f"ticks-{uuid.uuid4().hex[:8]}"], 2)
    assert describe(connection, list(made)) == made
    with pytest.raises(BrokerUnavailable, match="Connection refused"):
        describe(KafkaConnection(dead), list(made))
