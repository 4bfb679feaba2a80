"""The online sink: rows and window states in Redis.

The order of a commit:

1. The run's incarnation must be the current one of its topic's name, and the partition's watermark
   must be where the run begins; a store that lost its last second, or a worker that lost its
   partition or was paused while its topic was made anew, is found out here.
2. For each entity a script compares the stored origin and count with those that its state was
   computed from, and if they are the same bytes writes header, ring and row; atomic for each
   entity.
3. If any entity's was another, they are returned, and nothing more happens. If it was an *earlier*
   one, Redis has lost what it had confirmed: the partition is to be filled anew from Postgres.
4. The watermark moves to the run's end, if it still is where the run begins.

A single server does all of it in one script, for as many entities as one call may hold: three
calls are most of what a small run costs. On a cluster, where nothing may span hash slots, and for
more entities, these are calls of their own. Killed between 2 and 4, entities are ahead of the
watermark. The run is then read again, and their ticks, at or before their origin, are passed over
by the kernel.

A value never steps back: a write succeeds only on top of exactly the state that it was computed
from, and the state that it leaves is of a later origin in the entity's one home partition.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from redis.commands.core import Script

from pipelines.compute.batch import Batch
from pipelines.compute.entity_state import EntityState, tick_dtype
from pipelines.errors import (
    SchemaBehind,
    StatesLost,
    StoreUnavailable,
    TopicRecreated,
    WatermarkMoved,
)
from pipelines.kafka.topics import Topic
from pipelines.stores.redis import scripts
from pipelines.stores.redis.client import answers, open_warm
from pipelines.stores.redis.state_bytes import Restored, Writes, append_restored, unpack_state
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    FILLED_MARK,
    SEPARATOR,
    bucket,
    filled_key,
    incarnations_key,
    members_key,
    partitions_key,
    state_key,
    watermark_key,
)

ENTITIES_A_CALL = 500
"""Redis does nothing else while a script runs: this many take about a millisecond."""


def _is_earlier(stored: Origin, known: Origin) -> bool:
    """Whether an entity's stored origin is one that it had before `known`, in the same home."""
    home = (known.topic_id, known.partition)
    return (stored.topic_id, stored.partition) == home and stored < known


def _conflicts(batch: Batch, entities: Sequence[str], refused: Sequence[int]) -> list[str]:
    """Those of `entities` that a script refused because their state was not the expected one.

    Raises `SchemaBehind`.
    """
    if min(refused, default=1) < 0:
        raise SchemaBehind(batch.source.name, batch.schema.id)
    return [entities[place - 1] for place in refused]


class OnlineSink:
    """Stores batches in the Redis at `url`, which keeps `history` ticks of each entity.

    With `cluster` it is a Redis Cluster, and no call spans two hash slots.
    """

    name = "online"
    pace = 0.02

    def __init__(self, url: str, history: int = 1024, cluster: bool = False) -> None:
        self._url = url
        self._cluster = cluster
        self._history = history
        self._client: Any = None
        # watermarks, and marks of filled partitions, that this Redis was known to hold
        self._confirmed: set[str] = set()
        # of the server, which what was read since belongs to
        self._life = b""

    def _connect(self) -> Any:
        """The client, made at its first use: a cluster must answer for that."""
        if self._client is None:
            client = open_warm(self._url, self._cluster)
            self._store = Script(client, scripts.STORE)
            self._commit = Script(client, scripts.COMMIT)
            self._advance = Script(client, scripts.ADVANCE)
            self._load = Script(client, scripts.LOAD)
            self._settle = Script(client, scripts.SETTLE)
            if not self._cluster:
                with answers():
                    self._life = Script(client, scripts.ASK_LIFE)()
            self._client = client
        return self._client

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of those of `partitions` that were ever stored."""
        client = self._connect()
        known = {}
        for partition in partitions:
            keys = [watermark_key(topic_id, partition), filled_key(topic_id, partition)]
            known_before = self._confirmed.intersection(keys)  # a store may add to it meanwhile
            with answers():
                offset, filled = client.mget(keys)
            self._confirmed -= known_before
            if filled == FILLED_MARK:
                self._confirmed.add(keys[1])
            if offset is not None:
                self._confirmed.add(keys[0])
                known[partition] = int(offset)
        return known

    def settle(self, topic: Topic) -> int:
        """Make a topic's incarnation the current one, and record its number of partitions.

        Returns the number that was recorded first. Raises `TopicRecreated` when a newer incarnation
        is known.
        """
        client = self._connect()
        with answers():
            if not self._settle(keys=[incarnations_key(topic.name)], args=[topic.topic_id.hex()]):
                raise TopicRecreated(topic.name)
            client.setnx(partitions_key(topic.topic_id), topic.partitions)
            return int(client.get(partitions_key(topic.topic_id)))

    def load(
        self, source: Source, entities: Sequence[str], depth: int, before: Origin
    ) -> Mapping[str, EntityState]:
        """The states of those of `entities` that have one; the newest, wherever `before` is."""
        tick_bytes = tick_dtype(len(source.fields)).itemsize
        self._connect()
        states = {}
        for group in self._groups(entities):
            keys = [state_key(source.name, entity) for entity in group]
            with answers():
                packed = self._load(keys=keys, args=[tick_bytes, depth])
            for entity, state in zip(group, packed, strict=True):
                if state:
                    states[entity] = unpack_state(state, source, entity, depth)
        return states

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns the entities whose state was not the expected one.

        Raises `WatermarkMoved`, `TopicRecreated`, `SchemaBehind`, `StatesLost` and
        `StoreUnavailable`; the latter also where the server was started again since states were
        read: those that the run leaves as they are, and so nothing compares, may be lost.
        """
        writes = Writes(batch, self._history)
        watermark = watermark_key(batch.run.topic_id, batch.run.partition)
        try:
            if self._cluster or len(batch.names) > ENTITIES_A_CALL:
                conflicts = self._store_in_steps(batch, writes)
            else:
                conflicts = self._store_at_once(batch, writes)
        except WatermarkMoved as moved:
            if moved.watermark is not None:
                self._confirmed.add(watermark)
            raise
        if conflicts:
            expected = dict(zip(batch.names, batch.expected, strict=True))
            self._check_states(batch, {name: expected[name] for name in conflicts})
        else:
            self._confirmed.add(watermark)
        return conflicts

    def _store_at_once(self, batch: Batch, writes: Writes) -> Sequence[str]:
        """In one call; returns the entities in conflict."""
        run = batch.run
        self._connect()
        watermark = watermark_key(run.topic_id, run.partition)
        filled = filled_key(run.topic_id, run.partition)
        keys = [incarnations_key(run.topic), watermark, filled]
        arguments: list[Any] = [self._life, run.topic_id.hex(), run.base_offset, run.next_offset]
        arguments += ("1" if key in self._confirmed else "" for key in (watermark, filled))
        for place in range(len(batch.names)):
            writes.add(place, keys, arguments)
        with answers():
            answer = self._commit(keys=keys, args=arguments)
        match answer:
            case [b"another life", life]:
                self._begin_life(life)
            case [b"recreated"]:
                raise TopicRecreated(run.topic)
            case [b"moved", moved]:
                raise WatermarkMoved(int(moved) if moved else None)
        return _conflicts(batch, batch.names, answer)

    def _store_in_steps(self, batch: Batch, writes: Writes) -> Sequence[str]:
        """In calls of entities that may go together; returns the entities in conflict."""
        run = batch.run
        key = watermark_key(run.topic_id, run.partition)
        stored, filled = self._begin(batch, key)
        conflicts: list[str] = []
        places = {entity: place for place, entity in enumerate(batch.names)}
        for group in self._groups(batch.names):
            keys: list[str] = []
            arguments: list[Any] = []
            for entity in group:
                writes.add(places[entity], keys, arguments)
            with answers():
                refused = self._store(keys=keys, args=arguments)
            conflicts += _conflicts(batch, group, refused)
        if conflicts:
            return conflicts
        with answers():
            keys = [key, filled_key(run.topic_id, run.partition)]
            arguments = [stored, run.next_offset, filled, self._life]
            answer = self._advance(keys=keys, args=arguments)
        match answer:
            case [b"another life", life]:
                self._begin_life(life)
            case bytes():
                raise WatermarkMoved(int(answer) if answer else None)
        return conflicts

    def _begin_life(self, life: bytes) -> NoReturn:
        """Raises `StoreUnavailable`: what was read before is to be read again."""
        self._life = life
        raise StoreUnavailable("Redis: it was started again, or another one has taken its place")

    def _check_states(self, batch: Batch, expected: Mapping[str, bytes]) -> None:
        """Raises `StatesLost` where an entity has an earlier state than it is known to have had.

        `expected` are packed origins. The partition then counts as one that is not filled.
        """
        run = batch.run
        at = Origin(run.topic_id, run.partition, run.base_offset, 0)
        stored = self.load(batch.source, list(expected), 1, at)
        for entity, packed in expected.items():
            known, state = Origin.unpack(packed) if packed else None, stored.get(entity)
            if known is None or (state is not None and not _is_earlier(state.origin, known)):
                continue
            with answers():
                self._connect().delete(
                    filled_key(run.topic_id, run.partition),
                    watermark_key(run.topic_id, run.partition),
                )
            raise StatesLost(run.topic, run.partition, entity)

    def put(
        self, source: Source, restored: Sequence[Restored], stored: Mapping[str, EntityState]
    ) -> set[str]:
        """Put states on top of exactly what is `stored`, as `load` gave it.

        Returns the entities that hold something else by now; nothing of theirs was written.
        """
        self._connect()
        by_entity = {r.entity: r for r in restored}
        refused: set[str] = set()
        for group in self._groups(list(by_entity)):
            keys: list[str] = []
            arguments: list[Any] = []
            for entity in group:
                below = stored.get(entity)
                append_restored(keys, arguments, source, by_entity[entity], below, self._history)
            with answers():
                places = self._store(keys=keys, args=arguments)
            refused.update(group[place - 1] for place in places)
        return refused

    def add_members(self, source: Source, entities: Sequence[str]) -> None:
        """Make entities known to what is summed up over them (the positions of a portfolio)."""
        client = self._connect()
        for group in self._groups(entities):
            with answers(), client.pipeline(transaction=False) as pipeline:
                for entity in group:
                    message_key, _, member = entity.partition(SEPARATOR)
                    pipeline.sadd(members_key(source.name, message_key), member)
                pipeline.execute()

    def get(self, key: str) -> bytes | None:
        """What is stored under a key."""
        client = self._connect()
        with answers():
            stored: bytes | None = client.get(key)
            return stored

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What a Lua script answers; on a cluster all its keys are of one hash slot."""
        client = self._connect()
        with answers():
            return client.eval(script, len(keys), *keys, *arguments)

    def _begin(self, batch: Batch, key: str) -> tuple[bytes, bytes]:
        """The partition's watermark, if it is where the batch's run begins, and its filled mark.

        b"" for no watermark, and for a mark that need not be there.

        Raises `WatermarkMoved` where it is not. Raises `TopicRecreated` where the run is of an
        incarnation that is over: its ticks would pass for the newest ones of their entities.
        """
        run = batch.run
        client = self._connect()
        with answers(), client.pipeline(transaction=False) as pipeline:
            pipeline.lindex(incarnations_key(run.topic), -1)
            pipeline.get(key)
            pipeline.get(filled_key(run.topic_id, run.partition))
            current, stored, filled = pipeline.execute()
        # a Redis that lost its last second may not know of it; the watermark then tells
        if current is not None and current.decode() != run.topic_id.hex():
            raise TopicRecreated(run.topic)
        marked = filled_key(run.topic_id, run.partition) in self._confirmed
        if (stored is None and key in self._confirmed) or (filled != FILLED_MARK and marked):
            raise WatermarkMoved(None)
        if stored is not None and int(stored) != run.base_offset:
            raise WatermarkMoved(int(stored))
        return stored or b"", (filled if marked else b"")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _groups(self, entities: Sequence[str]) -> Iterator[Sequence[str]]:
        """Entities that one call may hold."""
        groups: Iterable[list[str]] = [list(entities)]
        if self._cluster:
            by_bucket: dict[int, list[str]] = defaultdict(list)
            for entity in entities:
                by_bucket[bucket(entity)].append(entity)
            groups = by_bucket.values()
        for group in groups:
            for start in range(0, len(group), ENTITIES_A_CALL):
                yield group[start : start + ENTITIES_A_CALL]
