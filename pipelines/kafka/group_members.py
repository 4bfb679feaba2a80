"""The members of a consumer group and the partitions that they hold, as the broker knows them.

aiokafka asks: librdkafka's requests to the coordinator of a group have ended a whole worker by a
failed assertion, and nothing but a sentence for a person depends on the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupIdNotFound,
    IncompatibleBrokerVersion,
    KafkaError,
    for_code,
)
from aiokafka.protocol.api import Request

from pipelines.errors import BrokerUnavailable, RightMissing
from pipelines.kafka import rights
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.group_requests import ConsumerGroupDescribe, DescribeGroups

TIMEOUT = 10.0
"""Seconds for the brokers to answer."""

REQUEST_SECONDS = 3.0
"""Seconds for one of them to answer a request: where the first address is of a frozen one, the next
is tried in time."""

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
    """The members of a group, of the classic protocol or that of KIP-848, [] for no such group.

    Raises `BrokerUnavailable`.
    """

    async def ask() -> list[DescribedMember]:
        async with asyncio.timeout(TIMEOUT):
            client = AIOKafkaClient(
                **kafka.aiokafka(), request_timeout_ms=int(1000 * REQUEST_SECONDS)
            )
            try:
                await client.bootstrap()
                return await _members(client, group)
            finally:
                await client.close()

    try:
        return asyncio.run(ask())
    except TimeoutError:
        raise BrokerUnavailable(kafka.servers, f"no answer in {TIMEOUT:g} s") from None
    except GroupAuthorizationFailedError:
        raise RightMissing(kafka.servers, "Describe", rights.group(group)) from None
    except (KafkaError, OSError, NotImplementedError) as error:  # the last for older brokers
        raise BrokerUnavailable(kafka.servers, f"group {group}: {error}") from None


async def _members(client: AIOKafkaClient, group: str) -> list[DescribedMember]:
    coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
    found = await _described(client, coordinator, DescribeGroups(group))
    if found["members"]:
        return [_member(one, _classic_partitions(one["assignment"])) for one in found["members"]]
    try:
        found = await _described(client, coordinator, ConsumerGroupDescribe(group))
    except (IncompatibleBrokerVersion, GroupIdNotFound):
        return []  # the broker has no groups of this protocol, or not this one
    return [_member(one, _partitions(one["assignment"])) for one in found["members"]]


async def _described(client: AIOKafkaClient, coordinator: int, request: Request[Any]) -> Any:
    """The one group that a response is about, its fields by name."""
    response = await client.send(coordinator, request)
    (group,) = response.to_object()["groups"]
    if group["error_code"]:
        raise for_code(group["error_code"])
    return group


def _member(described: Mapping[str, Any], partitions: Iterable[tuple[str, int]]) -> DescribedMember:
    return DescribedMember(
        described["member_id"],
        described["client_id"],
        described["host"].lstrip("/"),
        described["instance_id"] or "",
        tuple(f"{topic}[{number}]" for topic, number in sorted(partitions)),
    )


def _classic_partitions(assignment: bytes) -> list[tuple[str, int]]:
    """What the leader of a group gave a member; nothing while the group is rebalanced."""
    if not assignment:
        return []
    return list(ConsumerProtocolMemberAssignment.decode(assignment).partitions())


def _partitions(assignment: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for held in assignment["topic_partitions"]:
        yield from ((held["topic"], number) for number in held["partitions"])
