"""The members of a consumer group and the partitions that they hold, as the broker knows them."""

from __future__ import annotations

from dataclasses import dataclass

from confluent_kafka import KafkaException

from pipelines.errors import BrokerUnavailable
from pipelines.kafka.admin import TIMEOUT, Admin
from pipelines.kafka.connection import KafkaConnection

SHOWN_PARTITIONS = 8
"""Partitions of a member that are named; the others are counted."""


@dataclass(frozen=True, slots=True)
class DescribedMember:
    """A member by the id that the broker gave it; `instance` is its name, "" for none."""

    member_id: str
    client_id: str
    host: str
    instance: str
    partitions: tuple[str, ...]
    """Each as `topic[number]`, in order."""

    def __str__(self) -> str:
        named = ", ".join(self.partitions[:SHOWN_PARTITIONS])
        more = len(self.partitions) - SHOWN_PARTITIONS
        return f"{named} and {more} more" if more > 0 else named


def members_of(kafka: KafkaConnection, group: str) -> list[DescribedMember]:
    """The members of a group, of the old protocol or the new one. Raises `BrokerUnavailable`."""
    admin = Admin(kafka)
    asked = admin.client.describe_consumer_groups([group], request_timeout=TIMEOUT)[group]
    try:
        described = admin.answer(asked)
    except KafkaException as error:
        raise BrokerUnavailable(kafka.servers, f"group {group}: {error.args[0].str()}") from None
    return [
        DescribedMember(
            member.member_id,
            member.client_id,
            member.host.lstrip("/"),
            member.group_instance_id or "",
            tuple(
                f"{held.topic}[{held.partition}]"
                for held in sorted(
                    member.assignment.topic_partitions if member.assignment else (),
                    key=lambda held: (held.topic, held.partition),
                )
            ),
        )
        for member in described.members
    ]
