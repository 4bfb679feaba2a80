"""The online sink: rows and window states in Redis.

The order of a commit:

1. The run's incarnation must be the current one of its topic's name, no newer rules than those that
   decided the run may hold at its offsets, and the partition's watermark must be where the run
   begins. This finds a store that lost its last second, and a worker that lost its partition or was
   paused while its topic was recreated or other rules were recorded.
2. For each entity a script compares the stored origin and count with those that its state was
   computed from, and if they are the same bytes writes header, ring and row; atomically for each
   entity.
3. If any entity's were others, the entity is returned, and nothing more happens. If they were
   *earlier* ones, Redis has lost what it had confirmed: the partition must be filled again from
   Postgres.
4. The watermark moves to the run's end, if it still is where the run begins.

A single server does all of it in one script, for as many entities as one call may hold: three
calls are most of the cost of a small run. On a cluster, where nothing may span hash slots, and for
more entities, these are calls of their own. Killed between 2 and 4, or after 3, entities are ahead
of the watermark. The run is then read again, and their ticks, at or before their origin, are passed
over by the kernel. Where that can happen, the end of the run is noted before or with the
first entity (`lua/begun.lua`): other rules begin no earlier, as entities may have what was decided
up to there.

A value never steps back: a write succeeds only on top of exactly the state that it was computed
from, and the state that it leaves is of a later origin in the entity's one home partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.errors import (
    OtherRules,
    SchemaBehind,
    StatesLost,
    StoreUnavailable,
    TopicRecreated,
    WatermarkMoved,
)
from pipelines.kafka.topics import Topic
from pipelines.stores.redis import scripts
from pipelines.stores.redis.batch_writes import BatchWrites
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import ENTITIES_A_CALL, WarmRedis
from pipelines.stores.redis.entity_write import WriteCall
from pipelines.stores.redis.states import load_columns, load_states
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    FILLED_MARK,
    begun_key,
    filled_key,
    incarnations_key,
    partitions_key,
    rules_key,
    watermark_key,
)


class OnlineSink:
    """Stores batches in the Redis at `url`, which keeps `history` ticks of each entity.

    With `cluster` it is a Redis Cluster, and no call spans two hash slots. Methods raise
    `StoreUnavailable`.
    """

    name = "online"
    pace = 0.02

    def __init__(
        self,
        url: str,
        history: int = 1024,
        cluster: bool = False,
        entities_a_call: int = ENTITIES_A_CALL,
    ) -> None:
        self.redis = WarmRedis(url, cluster, entities_a_call)
        self._history = history
        self._confirmed: set[str] = set()
        """Keys of the watermarks and of the filled marks that this Redis is known to hold."""

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of those of `partitions` that were ever stored."""
        client = self.redis.connect()
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
        incarnation, key = topic.topic_id.hex(), partitions_key(topic.topic_id)
        if not self.redis.run(scripts.SETTLE, [incarnations_key(topic.name)], [incarnation]):
            raise TopicRecreated(topic.name)
        client = self.redis.connect()
        with answers():
            client.setnx(key, topic.partitions)
            return int(client.get(key))

    def load(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        """The states of those of `entities` that have one; the newest, whatever `before` is."""
        return load_columns(self.redis, source, list(entities), depth)

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns the entities whose state was not the expected one.

        Raises `WatermarkMoved`, `TopicRecreated`, `OtherRules`, `SchemaBehind` and `StatesLost`.
        Raises `StoreUnavailable` also where the server was started again since states were read:
        the states that the run does not change, and that nothing compares, may be lost.
        """
        writes = BatchWrites(batch, self._history)
        watermark = watermark_key(batch.run.topic_id, batch.run.partition)
        try:
            if self.redis.cluster or len(batch.names) > self.redis.entities_a_call:
                conflicts = self._store_in_steps(batch, writes)
            else:
                conflicts = self._store_at_once(batch, writes)
        except WatermarkMoved as moved:
            if moved.watermark is not None:
                self._confirmed.add(watermark)
            raise
        if conflicts:
            expected = dict(zip(batch.names, batch.expected.to_list(), strict=True))
            self._check_states(batch, {name: expected[name] for name in conflicts})
        else:
            self._confirmed.add(watermark)
        return conflicts

    def close(self) -> None:
        self.redis.close()

    def _store_at_once(self, batch: Batch, writes: BatchWrites) -> Sequence[str]:
        """Store in one call; returns the entities in conflict."""
        run, redis = batch.run, self.redis
        watermark, filled, rules, begun = (
            key(run.topic_id, run.partition)
            for key in (watermark_key, filled_key, rules_key, begun_key)
        )
        call = WriteCall(
            [incarnations_key(run.topic), watermark, filled, rules, begun],
            [
                *(redis.life, run.topic_id.hex(), run.base_offset, run.next_offset),
                *("1" if key in self._confirmed else "" for key in (watermark, filled)),
                batch.rules,
            ],
        )
        for index in range(len(batch.names)):
            call.add(batch.source.name, writes.write(index))
        answer = redis.run(scripts.COMMIT, call.keys, call.arguments)
        match answer:
            case [b"another life", life]:
                self._begin_life(life)
            case [b"recreated"]:
                raise TopicRecreated(run.topic)
            case [b"other rules"]:
                raise OtherRules(batch.source.name)
            case [b"moved", moved]:
                raise WatermarkMoved(int(moved) if moved else None)
        return _conflicts(batch, batch.names, answer)

    def _store_in_steps(self, batch: Batch, writes: BatchWrites) -> Sequence[str]:
        """Store in calls of entities that may go together; returns the entities in conflict."""
        run = batch.run
        key, filled_mark = (of(run.topic_id, run.partition) for of in (watermark_key, filled_key))
        filled = FILLED_MARK if filled_mark in self._confirmed else b""
        stored = self._begin(batch, [key, filled_mark], bool(filled))
        conflicts: list[str] = []
        indexes = {entity: index for index, entity in enumerate(batch.names)}
        for group in self.redis.groups(batch.names):
            call = WriteCall()
            for entity in group:
                call.add(batch.source.name, writes.write(indexes[entity]))
            refused = self.redis.run(scripts.STORE, call.keys, call.arguments)
            conflicts += _conflicts(batch, group, refused)
        if conflicts:
            return conflicts
        answer = self.redis.run(
            scripts.ADVANCE,
            [key, filled_mark, rules_key(run.topic_id, run.partition)],
            [stored, run.next_offset, filled, self.redis.life, batch.rules],
        )
        match answer:
            case [b"another life", life]:
                self._begin_life(life)
            case [b"other rules"]:
                raise OtherRules(batch.source.name)
            case bytes():
                raise WatermarkMoved(int(answer) if answer else None)
        return conflicts

    def _begin(self, batch: Batch, keys: Sequence[str], filled: bool) -> bytes:
        """The partition's watermark, if it is where the batch's run begins; b"" for none.

        `keys` are those of the watermark and of the filled mark, which must exist with `filled`.

        Raises `WatermarkMoved` where the watermark is another one, and `OtherRules` where newer
        rules hold. Raises `TopicRecreated` where the run is of an incarnation that is over: its
        ticks would pass for the newest ones of their entities.
        """
        run, ids = batch.run, (batch.run.topic_id, batch.run.partition)
        client = self.redis.connect()
        with answers():
            current = client.lindex(incarnations_key(run.topic), -1)
        # A Redis that lost its last second may not know the incarnation; the watermark shows that.
        if current is not None and current.decode() != run.topic_id.hex():
            raise TopicRecreated(run.topic)
        must_exist = ["1" if one else "" for one in (keys[0] in self._confirmed, filled)]
        answer = self.redis.run(
            scripts.BEGIN_STEPS,
            [*keys, rules_key(*ids), begun_key(*ids)],
            [batch.rules, run.base_offset, run.next_offset, *must_exist],
        )
        match answer:
            case [b"other rules"]:
                raise OtherRules(batch.source.name)
            case [b"moved", moved]:
                raise WatermarkMoved(int(moved) if moved else None)
        stored: bytes = answer
        return stored

    def _begin_life(self, life: bytes) -> NoReturn:
        """Raises `StoreUnavailable`: what was read before must be read again."""
        self.redis.begin_life(life)
        raise StoreUnavailable("Redis: the server was started again, or a replica took over")

    def _check_states(self, batch: Batch, expected: Mapping[str, bytes]) -> None:
        """Raises `StatesLost` where an entity has an earlier state than it is known to have had.

        `expected` are packed origins. The partition then counts as one that is not filled.
        """
        run = batch.run
        stored = load_states(self.redis, batch.source, list(expected), 1)
        for entity, packed in expected.items():
            known, state = Origin.unpack(packed) if packed else None, stored.get(entity)
            if known is None or (state is not None and not _is_earlier(state.origin, known)):
                continue
            client = self.redis.connect()
            with answers():
                client.delete(
                    filled_key(run.topic_id, run.partition),
                    watermark_key(run.topic_id, run.partition),
                )
            raise StatesLost(run.topic, run.partition, entity)


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
    return [entities[index - 1] for index in refused]
