"""What a worker sees of its broker beside the ticks: settings that lose some, and strangers.

Any client that names the group of the workers gets a share of their partitions, and what it reads
reaches no store. Nothing fails by that: the partition is only read by nobody of ours. A member is
known by the heartbeats of the workers, which name the id that the broker gave each. A worker that
was killed sends none, and is a member until its session ends: its id is remembered. While the
heartbeats have every partition, nobody else can hold one, and the broker is not asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from pipelines.errors import BrokerUnavailable
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.group_members import DescribedMember, members_of
from pipelines.kafka.topic_settings import topic_remarks
from registry.formats.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""Seconds between two looks at the group."""

REMEMBERED_SECONDS = 10.0
"""Seconds that a worker's id is remembered after its session: a look may be late, and so may the
broker's end of a session."""

LOOKS_A_SETTING = 20
"""Looks at the group for one at the topics' settings, which hardly ever change."""


@dataclass(frozen=True, slots=True)
class BrokerView:
    """What is to be told of the broker: sentences, and `member`, the worker's own id in its group.

    `strangers` are about partitions that a member holds which is no worker of ours.
    """

    member: str = ""
    warnings: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()


class Broker:
    """What can be asked about a group and topics; `notes` are said of the topics in any case."""

    def __init__(
        self,
        kafka: KafkaConnection,
        group: str,
        topics: Collection[str],
        notes: Sequence[str] = (),
    ) -> None:
        self.group = group
        self.topics = topics
        self.members = partial(members_of, kafka, group)
        self._settings = partial(topic_remarks, kafka, list(topics))
        self._notes = notes

    def remarks(self) -> list[str]:
        """What is to be said of the topics. Raises `BrokerUnavailable`."""
        return [*self._settings(), *self._notes]


class BrokerWatch:
    """Looks at the group and the topics of a worker; `view` has what it saw last.

    `session` is that of the group's workers in seconds; `member` gives the worker's own id in the
    group, "" before it has joined; `heartbeats` those of all workers, None where no Redis answers.
    One thread looks; any thread may read `view`.
    """

    def __init__(
        self,
        broker: Broker,
        session: float,
        member: Callable[[], str],
        heartbeats: Callable[[], Sequence[Heartbeat] | None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._broker = broker
        self._member = member
        self._heartbeats = heartbeats
        self._workers = KnownWorkers(session)
        self._clock = clock
        self._suspects: set[str] = set()
        self._looks = 0
        self._warnings: tuple[str, ...] = ()
        self._strangers: tuple[str, ...] = ()

    @property
    def view(self) -> BrokerView:
        return BrokerView(self._member(), self._warnings, self._strangers)

    def look(self) -> None:
        """Look once. What cannot be seen now stays as it was seen last."""
        try:
            if self._looks % LOOKS_A_SETTING == 0:
                self._warnings = _told(self._warnings, self._broker.remarks())
            self._looks += 1  # not where the settings were not answered: the next look asks again
            heartbeats, own = self._heartbeats(), self._member()
            if heartbeats is None or not own:
                return
            self._workers.heard(heartbeats, self._clock())
            all_read = are_all_read(self._broker.topics, heartbeats)
            members = [] if all_read else self._broker.members()
        except BrokerUnavailable:
            return  # the look-up of the topics reports it
        ids = self._workers.ids(members, self._clock())
        unknown = strangers_among(members, heartbeats, {own, *ids})
        # A worker that has just joined may not have said so in a heartbeat yet.
        sure = [member for member in unknown if member.member_id in self._suspects]
        self._suspects = {member.member_id for member in unknown}
        self._strangers = _told(
            self._strangers, [stranger(self._broker.group, one) for one in sure]
        )


class KnownWorkers:
    """The ids of members that are workers, or may be workers that ended: these stay in their group
    until their session ends, and Redis has no heartbeat of them for so long.
    """

    def __init__(self, session: float) -> None:
        self._session = session
        self._heard: dict[str, float] = {}
        self._found: dict[str, float] | None = None

    def heard(self, heartbeats: Sequence[Heartbeat], now: float) -> None:
        """Remember whom heartbeats name; `now` is in seconds."""
        self._heard |= {beat.member: now for beat in heartbeats if beat.member}

    def ids(self, members: Sequence[DescribedMember], now: float) -> set[str]:
        """Those that are no strangers now.

        Who was in the group before the first look may have ended before it, and is given a session.
        """
        if self._found is None:
            self._found = dict.fromkeys((member.member_id for member in members), now)
        kept = self._session + REMEMBERED_SECONDS
        self._heard = {one: at for one, at in self._heard.items() if now - at <= kept}
        self._found = {one: at for one, at in self._found.items() if now - at <= kept}
        return {*self._heard, *self._found}


def are_all_read(topics: Collection[str], heartbeats: Sequence[Heartbeat]) -> bool:
    """Whether each partition of the topics is one that a worker says it reads."""
    numbers = {topic: number for beat in heartbeats for topic, number in beat.partitions.items()}
    read = {(lag.topic, lag.partition) for beat in heartbeats for lag in beat.lag}
    return all(
        topic in numbers and read.issuperset((topic, number) for number in range(numbers[topic]))
        for topic in topics
    )


def strangers_among(
    members: Sequence[DescribedMember], heartbeats: Sequence[Heartbeat], known: Collection[str]
) -> list[DescribedMember]:
    """The members with partitions that are not known by their ids.

    A worker of an earlier build does not say who it is: then a member is known by its name as well,
    and one without a name is not judged.
    """
    unnamed = {beat.instance for beat in heartbeats if beat.state == "running" and not beat.member}
    return [
        member
        for member in members
        if member.partitions
        and member.member_id not in known
        and member.instance not in unnamed
        and not (unnamed and not member.instance)
    ]


def stranger(group: str, member: DescribedMember) -> str:
    """What is told of a member that is no worker of ours."""
    name = f", instance {member.instance}" if member.instance else ""
    return (
        f"{member} of the group {group}: held by a member that is no worker of this stack (client "
        f"{member.client_id}{name}, at {member.host}), so their ticks reach no store. Stop it, or "
        "give it another group.id"
    )


def _told(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    for text in now:
        if text not in before:
            logger.warning("%s", text)
    return tuple(now)
