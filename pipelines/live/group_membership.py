"""How a consumer group shares out partitions, and whether a member is alone in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor


def assignors(
    topic_ids: Mapping[str, bytes], count: Callable[[int], None] = lambda members: None
) -> list[type[RoundRobinPartitionAssignor]]:
    """The assignors of the group: round robin, under a name made of the topics' incarnations.

    The member that shares out, the leader, calls `count` with the number of members.

    A static member that starts again gets its old assignment back without a rebalance, even one
    from before a topic existed. The coordinator rebalances when the name of the group's protocol
    changes, and a recreated topic changes this one. The plain assignor is for the moment in which
    members of both names are in the group.
    """
    incarnations = b"".join(topic_ids[topic] for topic in sorted(topic_ids))
    name = f"roundrobin-{sha256(incarnations).hexdigest()[:12]}"

    class Counting(RoundRobinPartitionAssignor):  # type: ignore[misc]
        @classmethod
        def assign(cls, cluster: Any, members: Any) -> Any:
            count(len(members))
            return super().assign(cluster, members)

    named = type("NamedAssignor", (Counting,), {"name": name})
    return [named, Counting]


class Membership:
    """Whether a member is alone in its group; `partitions` is the number of all topics' partitions.

    The leader knows the number of members before it gets its own share. A static member that
    resumes is never the leader, but it has its share: all partitions if it is alone.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._members: int | None = None
        self.is_alone = True

    def count(self, members: int) -> None:
        """This member, as the leader, shares out among so many."""
        self._members = members

    def joined(self, share: int) -> None:
        """A generation has begun, with a share of so many partitions."""
        self.is_alone = self._members == 1 or share == self._partitions
        self._members = None
