"""What is told of sources whose entities may come from several partitions."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pipelines.ticks.homes import elsewhere, home_remarks
from registry.definitions import Partitioner
from tests.support.shipped import SOURCE


@pytest.mark.parametrize(
    ("partitioner", "partitions", "told"),
    [("any", 2, True), ("any", 1, False), ("murmur2", 2, False), ("crc32", 2, False)],
)
def test_a_home_that_no_log_decides_is_told(
    partitioner: Partitioner, partitions: int, told: bool
) -> None:
    remarks = home_remarks(replace(SOURCE, partitioner=partitioner), partitions)
    assert len(remarks) == told
    for remark in remarks:
        assert remark.startswith("ticks.price has 2 partitions, and its source price declares")
        assert "messages without a key are rejected" in remark
        assert "Use a topic of one partition, or" in remark


def test_why_a_tick_is_not_at_home() -> None:
    """No partitioner is recommended: of messages without a key none puts them in one partition."""
    spread = elsewhere(replace(SOURCE, partitioner="any", message_key="any"), 3, 1)
    keyed = elsewhere(replace(SOURCE, partitioner="crc32", message_key="any"), 3, 1)
    for told in (spread, keyed):
        assert told.startswith("came from partition 3, and its entity is at home in 1: ")
        assert "all messages of an entity the same key" in told
        assert "murmur2" not in told
    assert "its messages have several keys" in keyed
