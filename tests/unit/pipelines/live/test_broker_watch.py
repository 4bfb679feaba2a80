"""Which member of the group is no worker: the heartbeats say who is."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.kafka.group_members import DescribedMember
from pipelines.live.broker_watch import stranger, strangers_among
from registry.formats.heartbeat import Heartbeat


def member(member_id: str, *partitions: str, instance: str = "") -> DescribedMember:
    return DescribedMember(member_id, "rdkafka", "10.0.0.5", instance, partitions)


def beat(instance: str, member_id: str = "", state: str = "running") -> Heartbeat:
    return Heartbeat("online", instance, 1, 0.0, state, 0.0, member=member_id)


OURS = [member("id-1", "t[0]", instance="one"), member("id-2", "t[1]", instance="two")]


@pytest.mark.parametrize(
    ("members", "heartbeats", "found"),
    [
        (OURS, [beat("one", "id-1"), beat("two", "id-2")], []),
        ([*OURS, member("x", "t[2]")], [beat("one", "id-1"), beat("two", "id-2")], ["x"]),
        ([*OURS, member("x")], [beat("one", "id-1"), beat("two", "id-2")], []),
        # another stack's worker may have the same name, and is another member
        (OURS, [beat("one", "id-1"), beat("two", "other")], ["id-2"]),
        # the worker itself, before its heartbeat says which one it is
        (OURS[:1], [], []),
        # a worker of an earlier build says nothing of itself
        (OURS, [beat("two")], []),
        ([*OURS, member("x", "t[2]", instance="x")], [beat("two")], ["x"]),
        ([*OURS, member("x", "t[2]")], [beat("two")], []),
        # a worker that starts is no member yet
        (OURS, [beat("three", state="starting")], ["id-2"]),
    ],
)
def test_who_is_a_stranger(members: list[Any], heartbeats: list[Any], found: list[str]) -> None:
    assert [one.member_id for one in strangers_among(members, heartbeats, "id-1")] == found


def test_a_stranger_is_named_with_what_it_holds() -> None:
    held = [f"t[{number}]" for number in range(20)]
    text = stranger("g-online", member("x", *held))
    assert text.startswith(
        "t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7] and 12 more of the group"
    )
    assert "client rdkafka, at 10.0.0.5" in text
