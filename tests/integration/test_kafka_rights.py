"""What ACLs of a Kafka must allow, and what is told where they do not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from pipelines.errors import RightMissing
from pipelines.kafka.group_members import members_of
from tests.support.brokers import starts_kafka
from tests.support.pipeline import Pipeline, pipeline, wait_for
from tests.support.secure_kafka import LIMITED, SecureKafka, secure_kafka
from tickwell.migrate import migrate

pytestmark = starts_kafka()

ROWS = re.compile(r"^\| (the (?:topic|group|cluster).*?) \| (.*) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[SecureKafka]:
    with secure_kafka(data / "kafka-with-rights") as made:
        yield made


class Rights:
    """What the limited user may do."""

    def __init__(self, server: SecureKafka) -> None:
        self._admin = AdminClient({"bootstrap.servers": server.address("PLAINTEXT")})

    def give(self, kind: ResourceType, name: str, operation: str) -> None:
        for done in self._admin.create_acls([self._binding(kind, name, operation)]).values():
            done.result(20)

    def take(self, kind: ResourceType, name: str, operation: str) -> None:
        binding = self._binding(kind, name, operation)
        wanted = AclBindingFilter(
            binding.restype,
            binding.name,
            binding.resource_pattern_type,
            binding.principal,
            binding.host,
            binding.operation,
            binding.permission_type,
        )
        for done in self._admin.delete_acls([wanted]).values():
            assert len(done.result(20)) == 1

    def _binding(self, kind: ResourceType, name: str, operation: str) -> AclBinding:
        named = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()
        return AclBinding(
            kind,
            name,
            ResourcePatternType.LITERAL,
            f"User:{LIMITED}",
            "*",
            getattr(AclOperation, named),
            AclPermissionType.ALLOW,
        )


def readme() -> dict[str, list[str]]:
    """The operations of each row of the README's table."""
    text = Path(__file__).parents[2].joinpath("README.md").read_text()
    return {on: re.findall(r"\b[A-Z]\w+", operations) for on, operations in ROWS.findall(text)}


def give_all(rights: Rights, running: Pipeline) -> None:
    """Give what the README's table says, but for the right to create topics."""
    topics = [running.topic(source) for source in running.sources]
    groups = [f"{running.settings.group}-{sink}" for sink in ("online", "offline")]
    resources = {
        "the topics of the sources": (ResourceType.TOPIC, topics),
        "the topic of rejected ticks": (ResourceType.TOPIC, [running.settings.rejected_topic]),
        "the groups `tickwell-online` and `tickwell-offline`": (ResourceType.GROUP, groups),
    }
    table = readme()
    assert table.keys() - resources.keys() == {
        "the cluster, or these topics, for `tickwell migrate`"
    }
    for on, (kind, names) in resources.items():
        for name in names:
            for operation in table[on]:
                rights.give(kind, name, operation)


@pytest.fixture
def limited(
    tmp_path: Path, server: SecureKafka, redis_database: str, hot_redis: str, postgres_database: str
) -> Iterator[Pipeline]:
    """A pipeline of the limited user, on topics that another one has made."""
    given = server.settings("CLEAR")
    address = given.pop("kafka")
    with pipeline(
        tmp_path, address, redis_database, hot_redis, postgres_database, partitions=2, **given
    ) as made:
        settings = msgspec.structs.replace(made.settings, kafka_username=LIMITED)
        running = replace(made, settings=settings)
        yield running
        running.stop()


def migrated(running: Pipeline, **changes: Any) -> str:
    """Why `tickwell migrate` is refused, "" where it is not."""
    try:
        migrate(msgspec.structs.replace(running.settings, **changes))
    except RightMissing as error:
        return str(error)
    return ""


def ended(running: Pipeline, sink: str) -> str:
    """The log of a worker that ends."""
    worker = running.start_worker(sink, "refused")
    assert worker.wait(90) == 1
    return (running.logs / f"{sink}-refused.log").read_text()


def test_the_rights_of_the_readme_are_enough_and_each_that_is_missing_is_named(
    server: SecureKafka, limited: Pipeline
) -> None:
    rights = Rights(server)
    price, group = limited.topic("price"), f"{limited.settings.group}-online"
    told = migrated(limited)
    assert "no right to Describe on the topic" in told
    assert "is it running" not in told
    with pytest.raises(RightMissing, match=f"Describe on the group {group}"):
        members_of(limited.settings.kafka_connection, group)

    give_all(rights, limited)
    wait_for("nothing more is needed where all topics exist", lambda: migrated(limited) == "")

    other = f"{limited.prefix}.other"
    rights.give(ResourceType.TOPIC, other, "Describe")
    wait_for(
        "the right to create is named",
        lambda: (
            f"no right to Create on the topic {other}" in migrated(limited, rejected_topic=other)
        ),
    )
    rights.give(ResourceType.TOPIC, other, "Create")
    wait_for("it is made", lambda: migrated(limited, rejected_topic=other) == "")

    for sink in ("online", "offline"):
        limited.start_worker(sink)
    limited.produce("price", [(b"A", b'{"symbol": "A", "price": 1, "ts": 1700000000000}')])
    limited.produce("price", [(b"A", b"no tick")])
    limited.wait_drained("online", "offline")
    published = "SELECT count(*) FROM tickwell.rejected_ticks WHERE relayed_at IS NOT NULL"
    wait_for("the rejected tick is relayed", lambda: limited.query(published) == [(1,)])
    limited.stop()
    logs = "".join(log.read_text() for log in limited.logs.glob("*.log"))
    assert "no right" not in logs
    assert "authoriz" not in logs.lower()

    rights.take(ResourceType.TOPIC, price, "Read")
    rights.take(ResourceType.TOPIC, price, "Write")
    refused = not_sent(limited)
    assert f"no right to Write on the topic {price}" in refused, refused
    said = ended(limited, "online")
    assert f"no right to Read on the topic {price}" in said, said
    assert "Traceback" not in said, said
    rights.take(ResourceType.GROUP, group, "Read")
    said = ended(limited, "online")
    assert f"no right to Read on the group {group}" in said, said
    assert "Traceback" not in said, said


def not_sent(running: Pipeline) -> str:
    """What `tickwell produce` says of a file that it cannot send."""
    file = running.logs / "ticks.csv"
    file.write_text("symbol,price,ts\nA,1.5,2024-01-01T00:00:00Z\n")
    command = ("produce", str(file), "--source", "price", "--allow-late", "--no-confirm")
    return running.refused(*command)
