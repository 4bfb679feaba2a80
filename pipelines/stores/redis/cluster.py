"""How a run is stored in a Redis Cluster, where nothing may span hash slots.

The order of a commit:

1. The run's incarnation must be the current one of its topic's name, no newer rules than those that
   decided the run may hold at its offsets, and the partition's watermark must be where the run
   begins. This finds a store that lost its last second, and a worker that lost its partition or was
   paused while its topic was recreated or other rules were recorded. The end of the run is noted
   (`lua/begun.lua`): other rules begin no earlier, as entities may have what was decided up to
   there.
2. For each hash tag a script compares the stored state of each entity with the one that its state
   was computed from, and if it is the same writes row, state and chunks; atomically for each
   entity.
3. If any entity's was another, the entity is returned, and nothing more happens. If it was an
   *earlier* one, a node has lost what it had confirmed: the partition must be filled again from
   Postgres.
4. The watermark moves to the run's end, if it still is where the run begins.

Killed between 2 and 4, or after 3, entities are ahead of the watermark. The run is then read again,
and their ticks, at or before their origin, are passed over by the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from pipelines.compute.batch import Batch
from pipelines.errors import OtherRules, SchemaBehind, TopicRecreated, WatermarkMoved
from pipelines.stores.redis import scripts
from pipelines.stores.redis.batch_writes import BatchWrites
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.entity_write import EntityWrite, WriteCall
from pipelines.stores.sink import Store
from registry.formats.redis_keys import (
    FILLED_MARK,
    begun_key,
    filled_key,
    incarnations_key,
    rules_key,
    watermark_key,
)


class ClusterWriter:
    """Stores runs in a cluster. `confirmed` are keys that it is known to hold."""

    def __init__(self, redis: WarmRedis, confirmed: Collection[str]) -> None:
        self._redis = redis
        self._confirmed = confirmed

    def begin(self, topic_id: bytes, partition: int) -> bool:
        """Nothing needs to be done: the state of every entity is compared."""
        return False

    def guard(self, topic_id: bytes, partition: int) -> None:
        """Nothing needs to be asked with states that are loaded for a partition."""

    def prepare(self, batch: Batch, writes: BatchWrites) -> Store:
        """Pack a batch; returns what stores it. Any thread may call this."""
        return partial(self._store, batch, {write.entity: write for write in writes.writes()})

    def _store(self, batch: Batch, writes: Mapping[str, EntityWrite]) -> Sequence[str]:
        run = batch.run
        key, filled_mark = (of(run.topic_id, run.partition) for of in (watermark_key, filled_key))
        filled = FILLED_MARK if filled_mark in self._confirmed else b""
        stored = self._begin_steps(batch, [key, filled_mark], bool(filled))
        conflicts: list[str] = []
        for number, group in self._redis.groups(writes):
            call = WriteCall(batch.source.name, number)
            for entity in group:
                call.add(writes[entity])
            refused = self._redis.run(scripts.STORE, call.keys, call.arguments)
            conflicts += _conflicts(batch, group, refused)
        if conflicts:
            return conflicts
        answer = self._redis.run(
            scripts.ADVANCE,
            [key, filled_mark, rules_key(run.topic_id, run.partition)],
            [stored, run.next_offset, filled, batch.rules],
        )
        match answer:
            case [b"other rules"]:
                raise OtherRules(batch.source.name)
            case bytes():
                raise WatermarkMoved(int(answer) if answer else None)
        return conflicts

    def _begin_steps(self, batch: Batch, keys: Sequence[str], filled: bool) -> bytes:
        """The partition's watermark, if it is where the batch's run begins; b"" for none.

        `keys` are those of the watermark and of the filled mark, which must exist with `filled`.

        Raises `WatermarkMoved` where the watermark is another one, and `OtherRules` where newer
        rules hold. Raises `TopicRecreated` where the run is of an incarnation that is over: its
        ticks would pass for the newest ones of their entities.
        """
        run, ids = batch.run, (batch.run.topic_id, batch.run.partition)
        client = self._redis.connect()
        with answers():
            current = client.lindex(incarnations_key(run.topic), -1)
        # A node that lost its last second may not know the incarnation; the watermark shows that.
        if current is not None and current.decode() != run.topic_id.hex():
            raise TopicRecreated(run.topic)
        must_exist = ["1" if one else "" for one in (keys[0] in self._confirmed, filled)]
        answer = self._redis.run(
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


def _conflicts(batch: Batch, entities: Sequence[str], refused: Sequence[int]) -> list[str]:
    """Those of `entities` that a script refused because their state was not the expected one.

    Raises `SchemaBehind`.
    """
    if min(refused, default=1) < 0:
        raise SchemaBehind(batch.source.name, batch.schema.id)
    return [entities[index - 1] for index in refused]
