"""Which member of the group is no worker: the heartbeats say who is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipelines.errors import BrokerUnavailable
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.group_members import DescribedMember
from pipelines.live.broker_watch import Broker, BrokerWatch, stranger, strangers_among
from registry.formats.heartbeat import Heartbeat, PartitionLag


def member(member_id: str, *partitions: str, instance: str = "") -> DescribedMember:
    return DescribedMember(member_id, "rdkafka", "10.0.0.5", instance, partitions)


def beat(instance: str, member_id: str = "", state: str = "running") -> Heartbeat:
    return Heartbeat("online", instance, 1, 0.0, state, 0.0, member=member_id)


def reading(instance: str, *partitions: int) -> Heartbeat:
    """The heartbeat of a worker that reads these of the three partitions of `t`."""
    lag = tuple(PartitionLag("t", number, 0, 0, 0, 0.0) for number in partitions)
    ours = beat(instance, {"one": "id-1", "two": "id-2"}[instance])
    return msgspec.structs.replace(ours, lag=lag, partitions={"t": 3})


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
    known = {"id-1", *(beat.member for beat in heartbeats)}
    assert [one.member_id for one in strangers_among(members, heartbeats, known)] == found


class Group(Broker):
    """A group of given members, and topics of which there is nothing to tell."""

    def __init__(self, *members: DescribedMember) -> None:
        super().__init__(KafkaConnection("b:1"), "g-online", ["t"])
        self.current = list(members)
        self.members = lambda: list(self.current)
        self.remarks = list


class Watched:
    """A watch of the worker `id-1`, whose time passes when it is told so."""

    def __init__(self, *members: DescribedMember, session: float) -> None:
        self.group = Group(*members)
        self.heartbeats: list[Heartbeat] = []
        self.now = 1000.0
        self.watch = BrokerWatch(
            self.group, session, lambda: "id-1", lambda: self.heartbeats, lambda: self.now
        )

    def strangers(self, seconds: int) -> list[str]:
        """Of whom it was told in the looks of so many seconds."""
        told = []
        for _ in range(0, seconds, 3):
            self.now += 3
            self.watch.look()
            told += self.watch.view.strangers
        return told


@pytest.mark.parametrize("session", [6.0, 60.0])
@pytest.mark.parametrize("restarting", [True, False])
def test_a_worker_that_was_killed_is_no_stranger_until_its_session_ends(
    session: float, restarting: bool
) -> None:
    """Nor is the id that one had which starts again under its name and takes long."""
    watched = Watched(*OURS, session=session)
    watched.heartbeats = [beat("one", "id-1"), beat("two", "id-2")]
    assert watched.strangers(100) == []
    watched.heartbeats = [beat("one", "id-1")]
    if restarting:
        watched.heartbeats.append(beat("two", state="starting"))
    assert watched.strangers(int(session)) == []
    watched.group.current = OURS[:1]
    assert watched.strangers(30) == []


def test_a_worker_that_was_killed_before_the_first_look_is_none_either() -> None:
    watched = Watched(*OURS, session=60.0)
    watched.heartbeats = [beat("one", "id-1")]
    assert watched.strangers(60) == []
    assert watched.strangers(30) != []


@pytest.mark.parametrize("session", [6.0, 60.0])
def test_a_stranger_that_joins_is_told_at_the_second_look(session: float) -> None:
    watched = Watched(*OURS[:1], session=session)
    watched.heartbeats = [beat("one", "id-1")]
    watched.strangers(3)
    watched.group.current = [OURS[0], member("x", "t[1]")]
    assert watched.strangers(3) == []
    assert watched.strangers(3)[0].startswith("t[1] of the group g-online")


def test_the_broker_is_asked_only_while_a_partition_is_read_by_no_worker() -> None:
    watched = Watched(*OURS, session=6.0)
    watched.heartbeats = [reading("one", 0), reading("two", 1, 2)]
    del watched.group.members  # asking is an error
    assert watched.strangers(30) == []
    watched.group.members = lambda: [*OURS, member("x", "t[2]")]
    watched.heartbeats = [reading("one", 0), reading("two", 1)]
    assert watched.strangers(6)[0].startswith("t[2] of the group g-online")
    del watched.group.members
    watched.heartbeats = [reading("one", 0), reading("two", 1, 2)]
    assert watched.strangers(30) == []
    watched.heartbeats = [beat("one", "id-1")]  # which partitions there are is not known
    with pytest.raises(AttributeError):
        watched.watch.look()


def test_settings_that_were_not_answered_are_asked_for_at_the_next_look() -> None:
    watched = Watched(*OURS[:1], session=6.0)
    answers: list[list[str] | BrokerUnavailable] = [BrokerUnavailable("b:1", "no answer"), ["t!"]]

    def remarks() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, BrokerUnavailable):
            raise answer
        return answer

    watched.group.remarks = remarks
    watched.watch.look()
    assert watched.watch.view.warnings == ()
    for _ in range(5):  # answered once, they are not asked for again for a while
        watched.watch.look()
        assert watched.watch.view.warnings == ("t!",)


def test_a_stranger_is_named_with_what_it_holds() -> None:
    held = [f"t[{number}]" for number in range(20)]
    text = stranger("g-online", member("x", *held))
    assert text.startswith(
        "t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7] and 12 more of the group"
    )
    assert "client rdkafka, at 10.0.0.5" in text
