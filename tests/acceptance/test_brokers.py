"""Three brokers, and one of them failing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topic_settings import topic_remarks
from pipelines.kafka.topics import ensure_topics, find_topics
from registry.database import migrations
from registry.database.engine import connect
from tests.support.brokers import starts_kafka
from tests.support.checks import assert_no_difference
from tests.support.kafka_cluster import NODES, KafkaCluster, kafka_cluster
from tests.support.load import burst
from tests.support.pipeline import Pipeline, pipeline, wait_for
from tickwell.embedded.ports import HOST, keep_port
from tickwell.up.process import Process

pytestmark = [starts_kafka(), pytest.mark.long, pytest.mark.timeout(900)]
SINKS = ("online", "offline")
HOLE_SECONDS = 45.0
"""Seconds that a test gives workers to turn to the next leaders: half of what Faust would wait by
its default for one that is frozen, and enough for a machine that is busy."""


@pytest.fixture(scope="module")
def brokers(data: Path) -> Iterator[KafkaCluster]:
    directory = data / uuid.uuid4().hex
    directory.mkdir()
    with kafka_cluster(directory) as made:
        yield made


@pytest.fixture
def running(
    brokers: KafkaCluster,
    services: dict[str, tuple[Process, str]],
    tmp_path: Path,
    hot_redis: str,
) -> Iterator[Pipeline]:
    """Workers of both sinks, to which an address is named first at which nothing listens."""
    engine = connect(services["postgres"][1])
    migrations.upgrade(engine)
    engine.dispose()
    dead = f"{HOST}:{keep_port(tmp_path / 'dead')}"
    addresses = ",".join((dead, *brokers.addresses.values()))
    urls = (services["redis"][1], hot_redis, services["postgres"][1])
    with pipeline(tmp_path, addresses, *urls, replication=NODES) as made:
        made.start_both()
        yield made


def test_a_topic_that_was_just_made_is_found_on_all(brokers: KafkaCluster) -> None:
    """Each of them hears of it a moment later than the one that made it."""
    nodes = [KafkaConnection(address) for address in brokers.addresses.values()]
    for number in range(6):
        name = f"ticks-{uuid.uuid4().hex[:8]}"
        made = ensure_topics(nodes[number % NODES], [name], 2, replicas=NODES)
        assert [find_topics(node, [name]) for node in nodes] == [made] * NODES
        assert brokers.in_sync(name, 0) == set(brokers.nodes)
        assert topic_remarks(nodes[0], [name]) == []


def test_a_single_replica_is_told(brokers: KafkaCluster) -> None:
    """It is what the brokers' default gives."""
    node = KafkaConnection(brokers.addresses[1])
    name = f"ticks-{uuid.uuid4().hex[:8]}"
    ensure_topics(node, [name], 2)
    (remark,) = topic_remarks(node, [name])
    assert remark.startswith(f"{name} has one replica of a partition, on a cluster of 3 brokers")


@pytest.mark.parametrize("frozen", [False, True], ids=["killed", "frozen"])
def test_a_leader_fails(running: Pipeline, brokers: KafkaCluster, frozen: bool) -> None:
    """Its partitions go on by their next leaders, and nothing is lost or stored twice."""
    topic = running.topic("price")
    running.produce("price", burst(0))
    running.wait_drained(*SINKS)
    failing = brokers.leader(topic, 0)
    (brokers.freeze if frozen else brokers.kill)(failing)
    try:
        wait_for("another one leads", lambda: brokers.leader(topic, 0) != failing)
        begun = time.monotonic()
        producer = running.producer(**{"socket.timeout.ms": 3_000})
        running.produce("price", burst(1), producer)
        ends = running.ends()
        for sink in SINKS:
            left = max(1.0, HOLE_SECONDS - (time.monotonic() - begun))
            wait_for(f"{sink} has all", lambda s=sink: stored(running, s, ends), left)
    finally:
        (brokers.thaw if frozen else brokers.start)(failing)
    wait_for("it is back", lambda: brokers.in_sync(topic, 0) == set(brokers.nodes))
    running.produce("price", burst(2))
    running.wait_drained(*SINKS)
    assert_no_difference(running)


def stored(running: Pipeline, sink: str, ends: dict[tuple[bytes, int], int]) -> bool:
    """Whether the store of a sink has all before these ends."""
    return running.watermarks(sink, ends).items() >= ends.items()
