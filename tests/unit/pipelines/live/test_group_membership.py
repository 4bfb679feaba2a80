"""Whether a member is alone in its group, and under which name partitions are shared out."""

from __future__ import annotations

import pytest

from pipelines.live.group_membership import Membership, assignors


@pytest.mark.parametrize(
    ("members", "share", "is_alone"),
    [(1, 4, True), (2, 2, False), (None, 2, False), (None, 4, True)],
    ids=["leader of one", "leader of two", "follower", "resumed with all partitions"],
)
def test_a_member_that_is_alone(members: int | None, share: int, is_alone: bool) -> None:
    membership = Membership(4)
    if members is not None:
        membership.count(members)
    membership.joined(share)
    assert membership.is_alone is is_alone


def test_a_count_holds_for_one_generation() -> None:
    membership = Membership(4)
    membership.count(1)
    membership.joined(4)
    membership.joined(2)
    assert not membership.is_alone


def test_a_recreated_topic_changes_the_name_of_the_assignor() -> None:
    before, after = (
        [assignor.name for assignor in assignors({"t": topic_id})]
        for topic_id in (bytes(16), bytes(15) + b"x")
    )
    assert before[0] != after[0]
    assert before[1] == after[1] == "roundrobin"
