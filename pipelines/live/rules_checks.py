"""Whether other rules of a source may begin, by what the stores have of its topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, select

from pipelines.errors import HomesElsewhere, HomesUnknown, PartitionsChanged, StoresApart
from pipelines.kafka.topics import Topic
from pipelines.ticks.partitioners import HASHES
from registry.database.tables import topics
from registry.definitions import Source
from registry.resources import sql
from registry.source_rules import SourceRules

MESSAGE_KEYS = sql(__package__, "message_keys")

KEYS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Stored:
    """The offsets before which a partition is stored, or may be; None for nothing.

    `online` has the run that was begun in Redis, whose entities are ahead of the watermark.
    """

    online: int | None
    offline: int | None
    replayed: int | None

    @property
    def end(self) -> int:
        return max(self.online or 0, self.offline or 0, self.replayed or 0)


def check_change(
    connection: Connection,
    rules: SourceRules,
    declared: Source,
    topic: Topic,
    stored: Mapping[int, Stored],
) -> None:
    """Check that rules may change at what is stored of a topic, by partition.

    Raises `PartitionsChanged`, `StoresApart`, `HomesElsewhere` and `HomesUnknown`.
    """
    _check_partitions(connection, topic)
    _check_stores(rules, declared, stored)
    _check_homes(connection, rules, declared, topic)


def _check_partitions(connection: Connection, topic: Topic) -> None:
    """Raises `PartitionsChanged` where keys have moved since live first read the topic."""
    wanted = select(topics.c.partitions).where(topics.c.topic_id == UUID(bytes=topic.topic_id))
    settled = connection.execute(wanted).scalar_one_or_none()
    if settled not in (None, topic.partitions):
        raise PartitionsChanged(topic.name, settled, topic.partitions)


def moves_keys(rules: SourceRules, declared: Source) -> bool:
    """Whether the partitions of message keys may be others than before."""
    was = rules.source
    return declared.partitioner != "any" and (
        rules.newest.of_earlier_build
        or (was.partitioner, was.message_key) != (declared.partitioner, declared.message_key)
    )


def _check_stores(rules: SourceRules, declared: Source, stored: Mapping[int, Stored]) -> None:
    """Raises `StoresApart` where a store has to store more before the rules can change."""
    of_earlier_build = rules.newest.of_earlier_build
    for partition, known in stored.items():
        offline = known.offline or 0
        # an empty Redis is filled from Postgres, and is then where that is
        online = offline if known.online is None else known.online
        was_read = known.offline is not None or known.online is not None
        if of_earlier_build and offline != online:
            why = "only the earlier build knows how to decide what is between"
        elif of_earlier_build and was_read and online < (known.replayed or 0):
            why = f"a replay of the earlier build has stored up to {known.replayed} already"
        elif moves_keys(rules, declared) and offline < online:
            why = "Postgres must know where every entity is at home before keys may move"
        else:
            continue
        raise StoresApart(declared.topic, partition, online, offline, why)


def _check_homes(
    connection: Connection, rules: SourceRules, declared: Source, topic: Topic
) -> None:
    """Check that entities stay at home: for the life of a topic they are in one partition.

    Raises `HomesElsewhere`, and `HomesUnknown` where the keys of an entity's messages are unknown.
    """
    if not moves_keys(rules, declared):
        return
    given = {"source": declared.name, "topic_id": str(UUID(bytes=topic.topic_id))}
    streaming = {"yield_per": KEYS_AT_ONCE}
    found = connection.exec_driver_sql(MESSAGE_KEYS, given, execution_options=streaming)
    hashed = HASHES[declared.partitioner]
    keys, moved, example = 0, 0, ""
    for key, home in found:
        keys += 1
        right = hashed(key.encode()) % topic.partitions
        if right != home:
            moved += 1
            example = example or f"{key[:40]!r} would move from {home} to {right}"
    if keys and declared.message_key == "any":
        if rules.newest.of_earlier_build or rules.source.partitioner != declared.partitioner:
            raise HomesUnknown(declared.name, declared.partitioner)
    elif moved:
        raise HomesElsewhere(declared.name, declared.partitioner, moved, keys, example)
