"""What a consumer group knows of workers that stop."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.acceptance.checks import assert_no_difference
from tests.acceptance.pipeline import PATIENCE, Pipeline, wait_for


def members(running: Pipeline) -> dict[str, int]:
    """How many partitions each member of the online group has, by the name of its instance."""
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
def test_a_worker_that_is_stopped_leaves_its_partitions_to_the_others(running: Pipeline) -> None:
    """At once, and not when its session ends; the last one keeps its place, to be back soon."""
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
