"""Fetching by topic id: the broker answers for that incarnation of a topic, or not at all.

aiokafka's fetches name topics. One that was deleted and recreated meanwhile is read at the old
offsets as soon as it has as many records, and nothing in the response tells. Version 13 of the same
request (KIP-516, since Kafka 3.1) has the id instead of the name. A broker that does not know it
gets the request by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from pipelines.kafka.wire_types import Uuid

VERSION = 13
"""The first version of the request that has ids."""

LOG_START_VERSION = 5
"""The first version whose response has the first offset of the log, before what was aborted."""


class FetchByIdResponse(Response):
    API_KEY = 1
    API_VERSION = VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("highwater_offset", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        (
                            "aborted_transactions",
                            CompactArray(
                                ("producer_id", Int64),
                                ("first_offset", Int64),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class FetchByIdStruct(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 1
    API_VERSION = VERSION
    RESPONSE_TYPE = FetchByIdResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_time", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("max_bytes", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        (
            "forgotten_topics_data",
            CompactArray(
                ("topic_id", Uuid), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
            ),
        ),
        ("rack_id", CompactString()),
        ("tags", TaggedFields),
    )


class FetchById(Request[FetchByIdStruct]):
    """aiokafka's request with the ids of its topics."""

    API_KEY = 1

    def __init__(self, by_name: FetchRequest, topic_ids: Mapping[str, bytes]) -> None:
        self._by_name = by_name
        self._topic_ids = topic_ids

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Any:
        """The request in the greatest version that a broker and we know."""
        _, greatest = versions.get(self.API_KEY, (0, 0))
        return self._by_name.prepare(versions) if greatest < VERSION else super().prepare(versions)

    def build(self, request_struct_class: type[FetchByIdStruct]) -> FetchByIdStruct:
        named = self._by_name.build(FetchRequest_v11)
        topics: list[tuple[Any, ...]] = [
            (
                self._topic_ids[topic],
                [
                    (partition, epoch, offset, -1, log_start, max_bytes, {})
                    for partition, epoch, offset, log_start, max_bytes in partitions
                ],
                {},
            )
            for topic, partitions in named.topics
        ]
        return request_struct_class(
            named.replica_id,
            named.max_wait_time,
            named.min_bytes,
            named.max_bytes,
            named.isolation_level,
            named.session_id,
            named.session_epoch,
            topics,
            [],
            named.rack_id,
            {},
        )


class Answer(NamedTuple):
    """What a broker responds about a partition.

    `stable` is the offset before which all transactions have ended, `aborted` (producer id, first
    offset) of those that were aborted.
    """

    topic: str
    partition: int
    error_code: int
    highwater: int
    stable: int
    aborted: list[tuple[int, int]]
    data: bytes


def is_by_id(response: Any) -> bool:
    """Whether what a response brings is of the topics with these ids, and of no others."""
    return bool(response.API_VERSION >= VERSION)


def answers(response: Any, topic_ids: Mapping[str, bytes]) -> Iterator[Answer]:
    """What a response to a `FetchById` brings, of either kind."""
    by_id = is_by_id(response)
    names = {topic_id: name for name, topic_id in topic_ids.items()}
    aborted_at = 0 if response.API_VERSION < LOG_START_VERSION else 1
    data_at = -2 if by_id else -1  # behind it are tags
    for topic, partitions, *_ in response.topics:
        name = names[topic] if by_id else topic
        for partition, error_code, highwater, stable, *rest in partitions:
            aborted = [(producer, first) for producer, first, *_ in rest[aborted_at] or ()]
            data = rest[data_at] or b""
            yield Answer(name, partition, error_code, highwater, stable, aborted, data)
