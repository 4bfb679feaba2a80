"""What a consumer group makes of its workers: names, sessions, and those that stop."""

from __future__ import annotations

import json
from functools import partial

import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from registry.formats.heartbeat import Heartbeat
from tests.support.brokers import needs_kafka
from tests.support.checks import assert_no_difference
from tests.support.pipeline import PATIENCE, Pipeline, wait_for

pytestmark = needs_kafka("Tansu does not describe a group's members, and takes any session")


def members(running: Pipeline) -> dict[str | None, int]:
    """How many partitions each member of the online group has, by its name if it is static."""
    group = f"{running.settings.group}-online"
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    try:
        described = admin.describe_consumer_groups([group], request_timeout=5)[group].result(10)
    except (KafkaException, TimeoutError):  # the coordinator of groups is not made yet
        return {}
    return {
        member.group_instance_id: len(member.assignment.topic_partitions)
        for member in described.members
    }


@pytest.mark.timeout(240)
def test_a_worker_that_is_stopped_leaves_its_partitions_to_the_others(
    running: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and not when its session ends; the last one stays a member, to be back soon."""
    monkeypatch.setenv("TICKWELL_SESSION", "60")  # no session ends while this test runs
    for instance in ("one", "two"):
        running.start_worker("online", instance)
    running.start_worker("offline")
    wait_for("both have partitions", lambda: sorted(members(running).values()) == [6, 6])
    stopped = running.processes.pop("online-one")
    stopped.terminate()
    assert stopped.wait(PATIENCE) == 0
    assert list(members(running)) == ["two-online"]

    tick = json.dumps({"symbol": "A", "price": 1, "ts": 1_700_000_000_000}).encode()
    running.produce("price", [(b"A", tick)])
    running.wait_drained("online")
    wait_for("it has all of them", lambda: members(running) == {"two-online": 12})
    last = running.processes.pop("online-two")
    last.terminate()
    assert last.wait(PATIENCE) == 0
    assert list(members(running)) == ["two-online"]
    running.wait_drained("offline")
    assert_no_difference(running)


@pytest.mark.timeout(120)
def test_a_worker_that_is_no_static_member(
    running: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKWELL_STATIC_MEMBER", "false")
    monkeypatch.setenv("TICKWELL_SESSION", "30")  # it leaves, and does not run out
    worker = running.start_worker("online")
    wait_for("it has all partitions, and no name", lambda: members(running) == {None: 12})
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert not members(running)


@pytest.mark.timeout(120)
def test_a_session_that_the_broker_refuses_is_told(
    running: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKWELL_SESSION", "2")
    assert running.start_worker("online").wait(PATIENCE) == 1
    log = (running.logs / "online-one.log").read_text()
    assert "refuses a session of 2 s: set TICKWELL_SESSION" in log
    assert "Traceback" not in log


def heartbeat(running: Pipeline) -> Heartbeat | None:
    """That of the only worker, once it works."""
    beats = [beat for beat in running.heartbeats() if beat.state == "running"]
    return beats[0] if beats else None


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_stray_reader_of_the_group_is_named(running: Pipeline) -> None:
    """It gets a share of the partitions, by the old protocol of groups and by the new one."""
    running.start_worker("online")
    wait_for("it has all partitions", lambda: members(running) == {"one-online": 12})
    for protocol in ("classic", "consumer"):
        stray = Consumer(
            {
                "bootstrap.servers": running.settings.kafka,
                "group.id": f"{running.settings.group}-online",
                "group.protocol": protocol,
                "client.id": f"{protocol} notebook",
            }
        )
        stray.subscribe([running.topic("price")])
        (text,) = wait_for("the reader is named", partial(named, running, stray))
        held = sorted(f"{one.topic}[{one.partition}]" for one in stray.assignment())
        assert text.startswith(", ".join(held))
        assert f"client {protocol} notebook, at 127.0.0.1" in text
        stray.close()
        wait_for("it is forgotten", partial(forgotten, running))


def named(running: Pipeline, stray: Consumer) -> tuple[str, ...]:
    """What the worker says of strangers, once this one has partitions."""
    stray.poll(0.2)
    beat = heartbeat(running)
    return beat.strangers if beat is not None and stray.assignment() else ()


def forgotten(running: Pipeline) -> bool:
    beat = heartbeat(running)
    return beat is not None and not beat.strangers


@pytest.mark.timeout(120)
def test_a_topic_that_loses_ticks_is_told(running: Pipeline) -> None:
    topic = running.topic("price")
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    resource.add_incremental_config(
        ConfigEntry(
            "message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET
        )
    )
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    (altered,) = admin.incremental_alter_configs([resource]).values()
    altered.result(30)
    running.start_worker("offline")

    def told() -> tuple[str, ...]:
        beat = heartbeat(running)
        return () if beat is None else beat.warnings

    (text,) = wait_for("the worker says so", told)
    assert text.startswith(f"{topic} loses ticks before any worker sees them")
    assert text in (running.logs / "offline-one.log").read_text()
    assert text in running.run_tickwell("migrate")


@pytest.mark.timeout(120)
def test_a_redis_that_evicts_is_told_and_waited_for(running: Pipeline) -> None:
    with running.redis() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            worker = running.start_worker("online")
            log = running.logs / "online-one.log"
            wait_for("it says so", lambda: "maxmemory-policy allkeys-lru" in log.read_text())
            assert worker.poll() is None
            assert "maxmemory-policy allkeys-lru" in running.refused("rebuild-online")
            assert not [*client.keys("tw:incarnations:*"), *client.keys("tw:3:filled:*")]
        finally:
            client.config_set("maxmemory-policy", "noeviction")
        wait_for("it begins once that is mended", lambda: heartbeat(running))
