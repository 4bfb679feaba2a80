"""What a consumer group makes of its workers: names, sessions, and those that stop."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support.checks import assert_no_difference
from tests.support.pipeline import PATIENCE, Pipeline, wait_for
from tickwell.embedded.broker import choose


def members(running: Pipeline) -> dict[str | None, int]:
    """How many partitions each member of the online group has, by its name if it is static."""
    group = f"{running.settings.group}-online"
    admin = AdminClient({"bootstrap.servers": running.settings.kafka})
    try:
        described = admin.describe_consumer_groups([group])[group].result(30)
    except KafkaException:  # the broker has not made the coordinator of groups yet
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

    tick = json.dumps({"symbol": "A", "price": 1, "ts": 1}).encode()
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
    if choose("auto") != "kafka":
        pytest.skip("Tansu takes any session")
    monkeypatch.setenv("TICKWELL_SESSION", "2")
    assert running.start_worker("online").wait(PATIENCE) == 1
    log = (running.logs / "online-one.log").read_text()
    assert "refuses a session of 2 s: set TICKWELL_SESSION" in log
    assert "Traceback" not in log
