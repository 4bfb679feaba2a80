"""Two requests of Kafka's protocol that aiokafka lacks: what a consumer group looks like now.

`DescribeGroups` answers for groups of the classic protocol (aiokafka knows it without the names of
static members), `ConsumerGroupDescribe` for those of KIP-848. The fields are those of the messages
of the same name in Kafka's sources, `clients/src/main/resources/common/message`.
"""

from __future__ import annotations

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    Bytes,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

from pipelines.kafka.wire_types import Uuid


class DescribeGroupsResponse(Response):
    """Of a group that is not of the classic protocol the state is `Dead`, and it has no members."""

    API_KEY = 15
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", String()),
                ("state", String()),
                ("protocol_type", String()),
                ("protocol", String()),
                (
                    "members",
                    Array(
                        ("member_id", String()),
                        ("instance_id", String()),
                        ("client_id", String()),
                        ("host", String()),
                        ("metadata", Bytes),
                        ("assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class DescribeGroupsStruct(RequestStruct):
    API_KEY = 15
    API_VERSION = 4
    RESPONSE_TYPE = DescribeGroupsResponse
    SCHEMA = Schema(("groups", Array(String())), ("include_authorized_operations", Boolean))


class DescribeGroups(Request[DescribeGroupsStruct]):
    """Brokers know it since Kafka 2.4."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[DescribeGroupsStruct]) -> DescribeGroupsStruct:
        return request_struct_class([self._group], False)


_ASSIGNMENT = Schema(
    (
        "topic_partitions",
        CompactArray(
            ("topic_id", Uuid),
            ("topic", CompactString()),
            ("partitions", CompactArray(Int32)),
            ("tags", TaggedFields),
        ),
    ),
    ("tags", TaggedFields),
)


class ConsumerGroupDescribeResponse(Response):
    """Of a group of the classic protocol the error is `GROUP_ID_NOT_FOUND`."""

    API_KEY = 69
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            CompactArray(
                ("error_code", Int16),
                ("error_message", CompactString()),
                ("group", CompactString()),
                ("state", CompactString()),
                ("group_epoch", Int32),
                ("assignment_epoch", Int32),
                ("assignor", CompactString()),
                (
                    "members",
                    CompactArray(
                        ("member_id", CompactString()),
                        ("instance_id", CompactString()),
                        ("rack_id", CompactString()),
                        ("member_epoch", Int32),
                        ("client_id", CompactString()),
                        ("host", CompactString()),
                        ("subscribed_topics", CompactArray(CompactString())),
                        ("subscribed_topic_regex", CompactString()),
                        ("assignment", _ASSIGNMENT),
                        ("target_assignment", _ASSIGNMENT),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class ConsumerGroupDescribeStruct(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 69
    API_VERSION = 0
    RESPONSE_TYPE = ConsumerGroupDescribeResponse
    SCHEMA = Schema(
        ("groups", CompactArray(CompactString())),
        ("include_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class ConsumerGroupDescribe(Request[ConsumerGroupDescribeStruct]):
    """Brokers know it since Kafka 3.7."""

    API_KEY = 69

    def __init__(self, group: str) -> None:
        self._group = group

    def build(
        self, request_struct_class: type[ConsumerGroupDescribeStruct]
    ) -> ConsumerGroupDescribeStruct:
        return request_struct_class([self._group], False, {})
