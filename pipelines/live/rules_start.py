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
also where no rules have changed: to run the command again is the way out. But what Redis has stored
by rules that Postgres has lost, Postgres would decide otherwise: this is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, select

from pipelines.errors import RulesLost, TopicElsewhere, WorkersAlive
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.topics import Topic, existing
from pipelines.live.heartbeats import EXPIRES_SECONDS
from pipelines.live.rules_checks import Stored, check_change
from pipelines.stores.postgres.offline_sink import FENCE, LOCK, PATIENCE_MS
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.known_rules import KnownRules, RulesBegin
from registry.catalog import encode
from registry.database.tables import rules_starts, topics
from registry.definitions import Catalog, RulesStart, Source
from registry.formats.redis_keys import CATALOG_KEY, incarnations_key
from registry.heartbeats import read_heartbeats
from registry.lifecycle.source_recording import ChangedRules
from registry.resources import sql
from registry.source_rules import RULES
from registry.wording import differences

STORED_TO = sql(__package__, "stored_to")
LIMIT_IDLE = "SET LOCAL idle_in_transaction_session_timeout = 30000"
"""Milliseconds: longer than heartbeats are waited for, whatever the database is set to. A command
that is stopped in the middle holds up workers for as long."""

LOOK_SECONDS = 0.25
"""Seconds between two looks whether a heartbeat is followed by another one."""

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
class _Taken:
    """The partitions of a topic, kept from others, for rules that are recorded as `rules_id`."""

    topic: Topic
    source: str
    rules_id: int
    stored: dict[int, Stored]


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

        None for a topic that does not exist yet: it is the newest rules' from its beginning.
        Raises `WorkersAlive`, `TopicElsewhere`, `RulesLost`, what
        `check_change` raises, `BrokerUnavailable` and `StoreUnavailable`.
        """
        connection.exec_driver_sql(LIMIT_IDLE)
        self._check_alone([one.declared for one in changed])
        found = existing(self._kafka, [source.topic for source in sources])
        for one in changed:
            if one.declared.topic not in found:
                self._check_never_read(connection, one.declared)
        taken = [
            self._take(connection, one, found.get(one.declared.topic, _none(one.declared)))
            for one in changed
        ]
        names = {one.declared.topic for one in changed}
        unchanged = [topic for topic in found.values() if topic.name not in names]
        for topic in (*unchanged, *(each.topic for each in taken)):
            self._check_redis(connection, topic)
        if changed:
            self._delete_copy()
        starts = [tuple(self._begin(connection, each)) for each in taken]
        for topic in unchanged:
            self._tell(connection, topic)
        self.changes += [
            RulesChange(one.rules.source, one.declared, of_source)
            for one, of_source in zip(changed, starts, strict=True)
        ]
        return starts

    def publish(self, catalog: Catalog) -> None:
        """Have workers that start without Postgres know what is recorded.

        Raises `StoreUnavailable`.
        """
        client = self._redis.connect()
        with answers():
            client.set(CATALOG_KEY, encode(catalog))

    def _delete_copy(self) -> None:
        """Have no worker start without Postgres by rules that are over, should this be killed."""
        client = self._redis.connect()
        with answers():
            client.delete(CATALOG_KEY)

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

    def _take(self, connection: Connection, changed: ChangedRules, topic: Topic) -> _Taken:
        """Take all partitions, and check that rules may change at what is stored of them."""
        stored = self._take_partitions(connection, topic)
        check_change(connection, changed.rules, changed.declared, topic, stored)
        return _Taken(topic, changed.declared.name, changed.rules_id, stored)

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

    def _begin(self, connection: Connection, taken: _Taken) -> list[RulesStart]:
        """Have Redis refuse what is decided by other rules; returns the offsets from which on.

        Raises `WorkersAlive` where Redis has moved since it was looked at.
        """
        recorded, topic = _recorded(connection, taken.topic), taken.topic
        starts = []
        for number, stored in taken.stored.items():
            rules = [*recorded[number], (taken.rules_id, stored.end)]
            if not self._known.tell(topic.topic_id, number, rules, stored.end):
                alive = f"online, which has just stored a run of {topic.name}[{number}]"
                raise WorkersAlive([taken.source], [alive])
            starts.append(RulesStart(topic.topic_id, number, stored.end))
        return starts

    def _tell(self, connection: Connection, topic: Topic) -> None:
        """Have Redis know exactly what is recorded of a topic."""
        for number, recorded in _recorded(connection, topic).items():
            self._known.tell(topic.topic_id, number, recorded, None)


def _none(source: Source) -> Topic:
    """A topic that does not exist yet."""
    return Topic(source.topic, bytes(16), 0)


def _recorded(connection: Connection, topic: Topic) -> dict[int, list[RulesBegin]]:
    """Of each partition the ids of rules that began in it, and where, the oldest first."""
    columns = (rules_starts.c.partition, rules_starts.c.rules_id, rules_starts.c.from_offset)
    wanted = select(*columns).where(rules_starts.c.topic_id == UUID(bytes=topic.topic_id))
    found: dict[int, list[RulesBegin]] = {number: [] for number in range(topic.partitions)}
    for partition, rules_id, offset in connection.execute(wanted.order_by(columns[1])):
        found.setdefault(partition, []).append((rules_id, offset))
    return found
