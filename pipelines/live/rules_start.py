"""Where other rules of a source begin to hold: at what no store has yet.

The order, in the transaction that records the rules:

1. No worker is alive, by the heartbeats. One that comes back to life later is held off by what
   follows.
2. Each partition is taken from whoever is storing a run of it in Postgres, and kept until the
   transaction ends. From then on Postgres refuses runs that the old rules have decided
   (`tickwell.check_rules`). A worker that begins meanwhile waits (`tickwell.fence_partition`).
3. The rules begin at the greatest of the watermarks of both stores, the end of a run that Redis may
   have stored in part, and the progress of replays: the store that is behind decides what it lacks
   by the old rules.
4. When all that may be refused was checked, of every source, Redis is told, in one step with a look
   at its watermark (`lua/begin_rules.lua`), and refuses such runs as well.

Redis cannot undo what it was told when the transaction fails after that, as where the process is
killed; and where Postgres is restored from a backup, Redis knows rules that are not recorded. It
then refuses every worker. So step 4 makes Redis know exactly what is recorded, of every source and
also where no rules have changed: to run the command again is the way out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, select

from pipelines.errors import (
    HomesElsewhere,
    HomesUnknown,
    PartitionsChanged,
    StoresApart,
    TopicElsewhere,
    WorkersAlive,
)
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import Topic, existing
from pipelines.live.heartbeats import EXPIRES_SECONDS
from pipelines.stores.postgres.offline_sink import FENCE, LOCK, PATIENCE_MS
from pipelines.stores.redis import scripts
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.ticks.partitioners import HASHES
from registry.catalog import encode
from registry.database.tables import rules_starts, topics
from registry.definitions import Catalog, RulesStart, Source
from registry.formats.redis_keys import (
    CATALOG_KEY,
    FILLED_MARK,
    begun_key,
    filled_key,
    incarnations_key,
    rules_key,
    rules_value,
    watermark_key,
)
from registry.heartbeats import read_heartbeats
from registry.lifecycle.source_recording import ChangedRules
from registry.resources import sql
from registry.source_rules import RULES, SourceRules
from registry.wording import differences

STORED_TO, MESSAGE_KEYS = sql(__package__, "stored_to"), sql(__package__, "message_keys")
LIMIT_IDLE = "SET LOCAL idle_in_transaction_session_timeout = 30000"
"""Milliseconds: longer than heartbeats are waited for, whatever the database is set to. A command
that is stopped in the middle holds up workers for as long."""

LOOK_SECONDS = 0.25
"""Seconds between two looks whether a heartbeat is followed by another one."""

KEYS_AT_ONCE = 10_000
SHOWN = 16
"""Number of partitions that a message names."""


@dataclass(frozen=True, slots=True)
class RulesChange:
    """Rules that begin to hold, of a source as it was and as it is now declared."""

    was: Source
    now: Source
    starts: tuple[RulesStart, ...]

    def __str__(self) -> str:
        what = differences(self.was, self.now, RULES, "became") or "its rules are recorded"
        shown = [f"[{start.partition}] offset {start.offset}" for start in self.starts[:SHOWN]]
        more = f" and {len(self.starts) - SHOWN} partitions more" * (len(self.starts) > SHOWN)
        where = f", from {self.now.topic}{', '.join(shown)}{more} on" if shown else ""
        return f"source {self.now.name}: {what}{where}"


@dataclass(frozen=True, slots=True)
class _Stored:
    """The offsets before which a partition is stored, or may be; None for nothing.

    `online` has the run that was begun in Redis, whose entities are ahead of the watermark.
    """

    online: int | None
    offline: int | None
    replayed: int | None

    @property
    def end(self) -> int:
        return max(self.online or 0, self.offline or 0, self.replayed or 0)


@dataclass(frozen=True, slots=True)
class _Taken:
    """The partitions of a topic, kept from others, for rules that are recorded as `rules_id`."""

    topic: Topic
    rules_id: int
    stored: dict[int, _Stored]


class RulesBeginning:
    """Begins other rules of sources; `registry.lifecycle.recording.record` calls it.

    A worker whose heartbeat is not followed by another one for `silent` seconds is not alive.
    """

    def __init__(
        self, kafka: KafkaConnection, redis: WarmRedis, silent: float = EXPIRES_SECONDS + 1
    ) -> None:
        self.changes: list[RulesChange] = []
        self._kafka = kafka
        self._redis = redis
        self._silent = silent

    def __call__(
        self, connection: Connection, changed: Sequence[ChangedRules], sources: Sequence[Source]
    ) -> Sequence[Sequence[RulesStart]]:
        """The first offset of each partition. Nothing is stored by the old rules from then on.

        None for a topic that does not exist yet: it is the newest rules' from its beginning. Raises
        `WorkersAlive`, `TopicElsewhere`, `PartitionsChanged`, `StoresApart`, `HomesElsewhere`,
        `HomesUnknown`, `BrokerUnavailable` and `StoreUnavailable`.
        """
        connection.exec_driver_sql(LIMIT_IDLE)
        for one in changed:
            self._check_alone(one.declared)
        found = existing(self._kafka, [source.topic for source in sources])
        for one in changed:
            if one.declared.topic not in found:
                self._check_never_read(connection, one.declared)
        taken = [
            self._take(connection, one, found.get(one.declared.topic, _none(one.declared)))
            for one in changed
        ]
        starts = [self._begin(connection, each) for each in taken]
        begun = {each.topic.name for each in taken}
        for topic in found.values():
            if topic.name not in begun:
                self._tell(connection, topic)
        for one, of_partitions in zip(changed, starts, strict=True):
            self.changes.append(RulesChange(one.rules.source, one.declared, of_partitions))
        return starts

    def publish(self, catalog: Catalog) -> None:
        """Have workers that start without Postgres know what is recorded.

        Raises `StoreUnavailable`.
        """
        client = self._redis.connect()
        with answers():
            client.set(CATALOG_KEY, encode(catalog))

    def _check_alone(self, source: Source) -> None:
        """Raises `WorkersAlive`. A heartbeat that expires was the last one of its worker."""
        began = time.monotonic()
        first: dict[str, float] = {}
        while time.monotonic() - began < self._silent:
            client = self._redis.connect()
            with answers():
                # one that has just started does not say what it reads yet
                beats = {
                    f"{beat.sink} {beat.instance}": beat.at
                    for beat in read_heartbeats(client)
                    if source.topic in beat.partitions or not beat.partitions
                }
            alive = [name for name, at in beats.items() if at > first.setdefault(name, at)]
            if alive:
                raise WorkersAlive(source.name, alive)
            if not beats:
                return
            time.sleep(LOOK_SECONDS)

    def _check_never_read(self, connection: Connection, source: Source) -> None:
        """Raises `TopicElsewhere` where a topic that the broker does not have was read before."""
        wanted = select(topics.c.topic_id).where(topics.c.topic == source.topic)
        read = connection.execute(wanted).first() is not None
        if not read:
            client = self._redis.connect()
            with answers():
                read = bool(client.exists(incarnations_key(source.topic)))
        if read:
            raise TopicElsewhere(source.name, source.topic, self._kafka.servers)

    def _take(self, connection: Connection, changed: ChangedRules, topic: Topic) -> _Taken:
        """Take all partitions, and check that rules may change at what is stored of them."""
        _check_partitions(connection, topic)
        stored = {
            number: self._take_partition(connection, topic, number)
            for number in range(topic.partitions)
        }
        _check_stores(changed.rules, changed.declared, stored)
        _check_homes(connection, changed.rules, changed.declared, topic)
        return _Taken(topic, changed.rules_id, stored)

    def _take_partition(self, connection: Connection, topic: Topic, partition: int) -> _Stored:
        """Take a partition until the transaction ends; returns what is stored of it."""
        given = {"topic_id": str(UUID(bytes=topic.topic_id)), "partition": partition}
        connection.exec_driver_sql(FENCE, given)
        connection.exec_driver_sql(LOCK, {**given, "patience": PATIENCE_MS})
        offline, replayed = connection.exec_driver_sql(STORED_TO, given).one()
        return _Stored(self._online(topic.topic_id, partition), offline, replayed)

    def _online(self, topic_id: bytes, partition: int) -> int | None:
        """The offset before which Redis may have stored; None for a Redis that is to be filled."""
        found = [self._redis.get(key(topic_id, partition)) for key in (watermark_key, begun_key)]
        offsets = [int(offset) for offset in found if offset is not None]
        if not offsets and self._redis.get(filled_key(topic_id, partition)) == FILLED_MARK:
            return 0  # a worker has found the partition empty, and reads it from its beginning
        return max(offsets, default=None)

    def _begin(self, connection: Connection, taken: _Taken) -> tuple[RulesStart, ...]:
        """Have Redis refuse what is decided by other rules; returns the offsets from which on."""
        recorded, topic_id = _recorded(connection, taken.topic), taken.topic.topic_id
        starts = []
        for number, known in taken.stored.items():
            begins, before = known.end, recorded[number]
            while (
                moved := self._tell_partition(
                    topic_id, number, [*before, (taken.rules_id, begins)], begins
                )
            ) is not None:
                begins = moved
            starts.append(RulesStart(topic_id, number, begins))
        return tuple(starts)

    def _tell(self, connection: Connection, topic: Topic) -> None:
        """Have Redis know exactly what is recorded of a topic."""
        recorded = _recorded(connection, topic)
        for number in range(topic.partitions):
            self._tell_partition(topic.topic_id, number, recorded[number], None)

    def _tell_partition(
        self, topic_id: bytes, partition: int, pairs: Sequence[tuple[int, int]], begins: int | None
    ) -> int | None:
        """Tell Redis ids of rules and their first offsets, of which the last one may be new.

        Returns where Redis is, with nothing told, if that is past `begins`, where the new one does.
        """
        moved = self._redis.run(
            scripts.BEGIN_RULES,
            [key(topic_id, partition) for key in (watermark_key, begun_key, rules_key)],
            [rules_value(pairs), "" if begins is None else begins],
        )
        return None if moved is None else int(moved)


def _none(source: Source) -> Topic:
    """A topic that does not exist yet."""
    return Topic(source.topic, bytes(16), 0)


def _recorded(connection: Connection, topic: Topic) -> dict[int, list[tuple[int, int]]]:
    """Of each partition the ids of rules that began in it, and where, the oldest first."""
    columns = (rules_starts.c.partition, rules_starts.c.rules_id, rules_starts.c.from_offset)
    wanted = select(*columns).where(rules_starts.c.topic_id == UUID(bytes=topic.topic_id))
    found: dict[int, list[tuple[int, int]]] = {n: [] for n in range(topic.partitions)}
    for partition, rules_id, offset in connection.execute(wanted.order_by(columns[1])):
        found.setdefault(partition, []).append((rules_id, offset))
    return found


def _check_partitions(connection: Connection, topic: Topic) -> None:
    """Raises `PartitionsChanged` where keys have moved since live first read the topic."""
    wanted = select(topics.c.partitions).where(topics.c.topic_id == UUID(bytes=topic.topic_id))
    settled = connection.execute(wanted).scalar_one_or_none()
    if settled not in (None, topic.partitions):
        raise PartitionsChanged(topic.name, settled, topic.partitions)


def _moves_keys(rules: SourceRules, declared: Source) -> bool:
    """Whether the partitions of message keys may be others than before."""
    was = rules.source
    return declared.partitioner != "any" and (
        rules.newest.of_earlier_build
        or (was.partitioner, was.message_key) != (declared.partitioner, declared.message_key)
    )


def _check_stores(rules: SourceRules, declared: Source, stored: dict[int, _Stored]) -> None:
    """Raises `StoresApart` where a store has to store more before the rules can change."""
    for partition, known in stored.items():
        # an empty Redis is filled from Postgres, and is then where that is
        online = known.offline if known.online is None else known.online
        if rules.newest.of_earlier_build and (known.offline or 0) != (online or 0):
            why = "only the earlier build knows how to decide what is between"
        elif _moves_keys(rules, declared) and (known.offline or 0) < (online or 0):
            why = "Postgres must know where every entity is at home before keys may move"
        else:
            continue
        raise StoresApart(declared.topic, partition, online or 0, known.offline or 0, why)


def _check_homes(
    connection: Connection, rules: SourceRules, declared: Source, topic: Topic
) -> None:
    """Check that entities stay at home: for the life of a topic they are in one partition.

    Raises `HomesElsewhere`, and `HomesUnknown` where the keys of an entity's messages are unknown.
    """
    if not topic.partitions or not _moves_keys(rules, declared):
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
