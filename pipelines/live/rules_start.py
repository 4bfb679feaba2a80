"""Where other rules of a source begin to hold: at what no store has yet.

The order, in the transaction that records the rules:

1. No worker is alive, by the heartbeats. One that comes back to life later is held off by what
   follows.
2. Each partition is taken from whoever is storing a run of it in Postgres, and kept until the
   transaction ends. From then on Postgres refuses runs that the old rules have decided
   (`tickwell.check_rules`). A worker that begins meanwhile waits (`tickwell.fence_partition`).
3. The rules begin at the greatest of the watermarks of both stores, the end of a run that Redis may
   have stored in part, and the progress of replays: the store that is behind decides what it lacks
   by the old rules. This is so of the topic that the broker has, and of the one that workers have
   read last, if that is another one: it may be the wrong broker. Where the offline worker has not
   read yet what the online worker reads, these are two; and what no worker has read, a replay may
   have.
4. When all that may be refused was checked, of every source, Redis is told, in one step with a look
   at its watermark (`lua/begin_rules.lua`), and refuses such runs as well.

Redis cannot undo what it was told when the transaction fails after that, as where the process is
killed; and where Postgres is restored from a backup, Redis knows rules that are not recorded. It
then refuses every worker. So step 4 makes Redis know exactly what is recorded, of every source and
also where no rules have changed: to run the command again is the way out. But what Redis has stored
by rules that Postgres has lost, Postgres would decide otherwise: this is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

from sqlalchemy import Connection, select

from pipelines.errors import (
    PartitionsUnknown,
    PipelineError,
    ReadTopicMissing,
    RulesLost,
    TopicElsewhere,
    WorkersAlive,
)
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import Topic, existing
from pipelines.live.heartbeats import EXPIRES_SECONDS
from pipelines.live.rules_checks import Stored, check_change, moves_keys
from pipelines.stores.postgres.offline_sink import FENCE, LOCK, PATIENCE_MS
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.known_rules import KnownRules, RulesBegin
from registry.catalog import encode
from registry.database.tables import rules_starts, topics
from registry.definitions import Catalog, RulesStart, Source
from registry.formats.redis_keys import CATALOG_KEY, incarnations_key, partitions_key
from registry.heartbeats import read_heartbeats
from registry.lifecycle.source_recording import ChangedRules
from registry.resources import sql
from registry.source_rules import RULES
from registry.wording import differences

STORED_TO, REPLAYED_LAST = sql(__package__, "stored_to"), sql(__package__, "replayed_last")
LIMIT_IDLE = "SET LOCAL idle_in_transaction_session_timeout = 30000"
"""Milliseconds: longer than heartbeats are waited for, whatever the database is set to. A command
that is stopped in the middle holds up workers for as long."""

LOOK_SECONDS = 0.25
"""Seconds between two looks whether a heartbeat is followed by another one."""

SHOWN = 16
"""Number of partitions that a message names."""


@dataclass(frozen=True, slots=True)
class RulesChange:
    """Rules that begin to hold, of a source as it was and as it is now declared.

    `starts` are those of `topic`, which the broker has, and of others that were read before.
    """

    was: Source
    now: Source
    starts: tuple[RulesStart, ...]
    topic: Topic | None

    def __str__(self) -> str:
        what = differences(self.was, self.now, RULES, "became") or "its rules are recorded"
        topic_id = None if self.topic is None else self.topic.topic_id
        read: dict[bytes, list[RulesStart]] = {}
        for start in self.starts:
            read.setdefault(start.topic_id, []).append(start)
        here = read.pop(topic_id, []) if topic_id else []
        text = f"source {self.now.name}: {what}"
        if here:
            text += f", from {self.now.topic}{_shown(here)} on"
        if read:
            where = " and at ".join(map(_shown, read.values()))
            text += (
                f"; the broker does not have the {self.now.topic} that was read before (is "
                f"TICKWELL_KAFKA right?), where they begin at {where}"
            )
        return text


def _shown(starts: Sequence[RulesStart]) -> str:
    shown = [f"[{start.partition}] offset {start.offset}" for start in starts[:SHOWN]]
    more = f" and {len(starts) - SHOWN} partitions more" * (len(starts) > SHOWN)
    return f"{', '.join(shown)}{more}"


@dataclass(frozen=True, slots=True)
class _Taken:
    """The partitions of a topic, kept from others, for rules that are recorded as `rules_id`."""

    topic: Topic
    source: str
    rules_id: int
    stored: dict[int, Stored]

    @property
    def starts(self) -> list[RulesStart]:
        """The first offset of each partition that nobody has stored."""
        topic_id = self.topic.topic_id
        return [RulesStart(topic_id, number, known.end) for number, known in self.stored.items()]


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
        self._known = KnownRules(redis)
        self._silent = silent

    def __call__(
        self, connection: Connection, changed: Sequence[ChangedRules], sources: Sequence[Source]
    ) -> Sequence[Sequence[RulesStart]]:
        """The first offset of each partition. Nothing is stored by the old rules from then on.

        None for a topic that nobody has read and that does not exist yet: it is the newest rules'
        from its beginning. Raises `WorkersAlive`, `TopicElsewhere`, `ReadTopicMissing`,
        `RulesLost`, what `check_change` raises, `BrokerUnavailable` and `StoreUnavailable`.
        """
        connection.exec_driver_sql(LIMIT_IDLE)
        self._check_alone([one.declared for one in changed])
        found = existing(self._kafka, [source.topic for source in sources])
        taken = [self._take(connection, one, found.get(one.declared.topic)) for one in changed]
        names = {one.declared.topic for one in changed}
        unchanged = [topic for topic in found.values() if topic.name not in names]
        for topic in (*unchanged, *(each.topic for each in chain.from_iterable(taken))):
            self._check_redis(connection, topic)
        copy = self._take_copy() if changed else None
        try:
            self._begin(connection, list(chain.from_iterable(taken)))
        except WorkersAlive:
            if copy is not None:
                self._put_copy(copy)
            raise
        starts = [
            tuple(chain.from_iterable(each.starts for each in of_source)) for of_source in taken
        ]
        for topic in unchanged:
            self._tell(connection, topic)
        self.changes += [
            RulesChange(one.rules.source, one.declared, of_source, found.get(one.declared.topic))
            for one, of_source in zip(changed, starts, strict=True)
        ]
        return starts

    def publish(self, catalog: Catalog) -> None:
        """Have workers that start without Postgres know what is recorded.

        Raises `StoreUnavailable`.
        """
        self._put_copy(encode(catalog))

    def _take_copy(self) -> bytes | None:
        """Have no worker start without Postgres by rules that are over, should this be killed."""
        client = self._redis.connect()
        with answers():
            copy: bytes | None = client.get(CATALOG_KEY)
            client.delete(CATALOG_KEY)
        return copy

    def _put_copy(self, copy: bytes) -> None:
        client = self._redis.connect()
        with answers():
            client.set(CATALOG_KEY, copy)

    def _check_alone(self, sources: Sequence[Source]) -> None:
        """Raises `WorkersAlive`. A heartbeat that expires was the last one of its worker."""
        read = {source.topic for source in sources}
        began = time.monotonic()
        first: dict[str, float] = {}
        while read and time.monotonic() - began < self._silent:
            client = self._redis.connect()
            with answers():
                # one that has just started does not say what it reads yet
                beats = {
                    f"{beat.sink} {beat.instance}": beat.at
                    for beat in read_heartbeats(client)
                    if not beat.partitions or not read.isdisjoint(beat.partitions)
                }
            alive = [name for name, at in beats.items() if at > first.setdefault(name, at)]
            if alive:
                raise WorkersAlive([source.name for source in sources], alive)
            if not beats:
                return
            time.sleep(LOOK_SECONDS)

    def _take(
        self, connection: Connection, changed: ChangedRules, found: Topic | None
    ) -> list[_Taken]:
        """Take the topic that the broker has, and those that were read last if they are others.

        Checks that rules may change at what is stored of each: these may be at the right broker,
        and this be the wrong one.
        """
        source = changed.declared
        before, read = self._read_before(connection, source.topic)
        taken = []
        if found is not None:
            if found.topic_id in before:
                raise TopicElsewhere(source.name, source.topic, self._kafka.servers)
            stored = self._take_partitions(connection, found)
            check_change(connection, changed.rules, source, found, stored)
            taken.append(_Taken(found, source.name, changed.rules_id, stored))
        replayed = self._replayed_last(connection, source.topic)
        known = {topic.topic_id for topic in read}
        is_read = found is not None and found.topic_id in known
        if replayed is not None and replayed.topic_id not in known and not is_read:
            read.append(replayed)
        for last in read:
            if found is not None and last.topic_id == found.topic_id:
                continue
            stored = self._take_partitions(connection, last)
            try:
                if last is replayed and moves_keys(changed.rules, source):
                    raise PartitionsUnknown
                check_change(connection, changed.rules, source, last, stored)
            except PipelineError as why:
                raise ReadTopicMissing(
                    source.name, source.topic, self._kafka.servers, why
                ) from None
            taken.append(_Taken(last, source.name, changed.rules_id, stored))
        return taken

    def _read_before(self, connection: Connection, name: str) -> tuple[set[bytes], list[Topic]]:
        """The ids that a topic's name had before its last one, and the topics that were read last.

        These are two where Redis has one that Postgres does not know: one worker has read it, and
        the other one not yet.
        """
        wanted = select(topics.c.topic_id, topics.c.partitions).where(topics.c.topic == name)
        rows = connection.execute(wanted.order_by(topics.c.incarnation)).all()
        offline = [row.topic_id.bytes for row in rows]
        read = [Topic(name, offline[-1], rows[-1].partitions)] if rows else []
        client = self._redis.connect()
        with answers():
            known = client.lrange(incarnations_key(name), 0, -1)
        online = [bytes.fromhex(topic_id.decode()) for topic_id in known]
        if online and online[-1] not in offline:
            partitions = self._redis.get(partitions_key(online[-1]))
            read.append(Topic(name, online[-1], int(partitions or 0)))
        return {*offline[:-1], *online[:-1]}, read

    def _replayed_last(self, connection: Connection, name: str) -> Topic | None:
        """The topic that only replays have read, with the partitions that they have stored of."""
        row = connection.exec_driver_sql(REPLAYED_LAST, {"topic": name}).one_or_none()
        return None if row is None else Topic(name, row.topic_id.bytes, row.partitions)

    def _take_partitions(self, connection: Connection, topic: Topic) -> dict[int, Stored]:
        """Take all partitions until the transaction ends; returns what is stored of each."""
        stored = {}
        for number in range(topic.partitions):
            given = {"topic_id": str(UUID(bytes=topic.topic_id)), "partition": number}
            connection.exec_driver_sql(FENCE, given)
            connection.exec_driver_sql(LOCK, {**given, "patience": PATIENCE_MS})
            offline, replayed = connection.exec_driver_sql(STORED_TO, given).one()
            online = self._known.stored_to(topic.topic_id, number)
            stored[number] = Stored(online, offline, replayed)
        return stored

    def _check_redis(self, connection: Connection, topic: Topic) -> None:
        """Raises `RulesLost` where Redis has stored by rules that are not recorded."""
        for number, recorded in _recorded(connection, topic).items():
            used = self._known.used_unrecorded(topic.topic_id, number, recorded)
            if used is not None:
                raise RulesLost(topic.name, number, used)

    def _begin(self, connection: Connection, taken: Sequence[_Taken]) -> None:
        """Have Redis refuse what is decided by other rules from where these begin.

        Raises `WorkersAlive` where Redis has moved since it was looked at, and has it know again
        what is recorded. What it knows of the partition that moved is left: it may have been used.
        """
        told: list[tuple[bytes, int, list[RulesBegin]]] = []
        for each in taken:
            topic, recorded = each.topic, _recorded(connection, each.topic)
            for number, stored in each.stored.items():
                rules = [*recorded[number], (each.rules_id, stored.end)]
                if not self._known.tell(topic.topic_id, number, rules, stored.end):
                    for of_topic, partition, before in told:
                        self._known.tell(of_topic, partition, before, None)
                    alive = f"online, which has just stored a run of {topic.name}[{number}]"
                    raise WorkersAlive([each.source], [alive])
                told.append((topic.topic_id, number, recorded[number]))

    def _tell(self, connection: Connection, topic: Topic) -> None:
        """Have Redis know exactly what is recorded of a topic."""
        for number, recorded in _recorded(connection, topic).items():
            self._known.tell(topic.topic_id, number, recorded, None)


def _recorded(connection: Connection, topic: Topic) -> dict[int, list[RulesBegin]]:
    """Of each partition the ids of rules that began in it, and where, the oldest first."""
    columns = (rules_starts.c.partition, rules_starts.c.rules_id, rules_starts.c.from_offset)
    wanted = select(*columns).where(rules_starts.c.topic_id == UUID(bytes=topic.topic_id))
    found: dict[int, list[RulesBegin]] = {number: [] for number in range(topic.partitions)}
    for partition, rules_id, offset in connection.execute(wanted.order_by(columns[1])):
        found.setdefault(partition, []).append((rules_id, offset))
    return found
