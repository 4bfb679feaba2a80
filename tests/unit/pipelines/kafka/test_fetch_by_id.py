"""The request by topic id as aiokafka sends it, and responses of every version.

That a broker understands it is shown with one, in `integration/test_fetch_by_id.py`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.protocol import fetch as fetch_protocol
from aiokafka.protocol.fetch import FetchRequest

from pipelines.kafka.fetch_by_id import (
    VERSION,
    Answer,
    FetchById,
    FetchByIdResponse,
    answers,
    is_by_id,
)

ID, OTHER = bytes(range(16)), bytes(16)
NAMED = FetchRequest(50, 1, 1 << 20, 1, [("t", [(0, 7, 100), (2, 8, 100)]), ("u", [(1, 9, 100)])])
IDS = {"t": ID, "u": OTHER}


def test_a_broker_that_knows_ids_gets_them() -> None:
    request = FetchById(NAMED, IDS).prepare({1: (4, 17)})
    assert (request.API_VERSION, request.FLEXIBLE_VERSION) == (VERSION, True)
    asked = {
        topic: [(partition, offset, most) for partition, _, offset, _, _, most, _ in partitions]
        for topic, partitions, _ in request.topics
    }
    assert asked == {ID: [(0, 7, 100), (2, 8, 100)], OTHER: [(1, 9, 100)]}
    assert (request.max_wait_time, request.min_bytes, request.isolation_level) == (50, 1, 1)
    assert type(request).SCHEMA.decode is not None
    assert request.encode()


@pytest.mark.parametrize("greatest", range(4, VERSION))
def test_any_other_gets_names(greatest: int) -> None:
    request = FetchById(NAMED, IDS).prepare({1: (4, greatest)})
    assert min(greatest, 11) == request.API_VERSION
    assert [topic for topic, _ in request.topics] == ["t", "u"]


def test_a_response_by_id_is_read_as_it_is_written() -> None:
    partition = (2, 0, 20, 19, 3, [(5, 8, {}), (6, 7, {})], -1, b"records", {})
    empty = (1, 3, -1, -1, -1, None, -1, None, {})
    written = FetchByIdResponse(0, 0, 0, [(ID, [partition], {}), (OTHER, [empty], {})], {})
    response = FetchByIdResponse.decode(written.encode())
    assert is_by_id(response)
    assert list(answers(response, IDS)) == [
        Answer("t", 2, 0, 20, 19, [(5, 8), (6, 7)], b"records"),
        Answer("u", 1, 3, -1, -1, [], b""),
    ]


@pytest.mark.parametrize("version", range(4, 12))
def test_a_response_by_name_is_read_by_the_fields_of_its_version(version: int) -> None:
    """A contract test of aiokafka: its own schema says which field is which."""
    kind = getattr(fetch_protocol, f"FetchResponse_v{version}")
    topics = kind.SCHEMA.fields[kind.SCHEMA.names.index("topics")]
    partitions = topics.array_of.fields[topics.array_of.names.index("partitions")]
    values: dict[str, Any] = {
        "partition": 2,
        "error_code": 0,
        "highwater_offset": 20,
        "last_stable_offset": 19,
        "log_start_offset": 3,
        "aborted_transactions": [(5, 8)],
        "preferred_read_replica": -1,
        "message_set": b"records",
    }
    row = tuple(values[name] for name in partitions.array_of.names)
    response: Any = SimpleNamespace(API_VERSION=version, topics=[("t", [row])])
    assert not is_by_id(response)
    assert list(answers(response, IDS)) == [Answer("t", 2, 0, 20, 19, [(5, 8)], b"records")]
