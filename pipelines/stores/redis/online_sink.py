"""The online sink: rows and window states in Redis.

How a run is stored is up to what Redis is: `single_server` stores it in scripts that follow each
other, `cluster` in one for each hash tag, and then the watermark.

A value never steps back: a write succeeds only on top of exactly the state that it was computed
from, and the state that it leaves is of a later origin in the entity's one home partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.errors import StatesLost, TopicRecreated, WatermarkMoved
from pipelines.kafka.topics import Topic
from pipelines.stores.redis import scripts
from pipelines.stores.redis.batch_writes import BatchWrites
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.cluster import ClusterWriter
from pipelines.stores.redis.connection import ENTITIES_A_CALL, WarmRedis
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.stores.redis.hot_redis import Rows
from pipelines.stores.redis.single_server import SingleServerWriter
from pipelines.stores.redis.states import load_columns, load_states
from pipelines.stores.sink import Store
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    FILLED_MARK,
    begun_key,
    filled_key,
    incarnations_key,
    partitions_key,
    watermark_key,
)

MARKS = (watermark_key, filled_key, begun_key)
"""Keys of what is known of a partition, in the order of `lua/lose.lua`."""


class OnlineSink:
    """Stores batches in the Redis at `url`, with as many ticks of each entity as batches give it.

    With `cluster` it is a Redis Cluster, and no call spans two hash slots. `hot` is told of each
    run before it is stored, and after. Methods raise `StoreUnavailable`.
    """

    name = "online"
    pace = 0.02
    keeps_states = True

    def __init__(
        self,
        url: str,
        cluster: bool = False,
        entities_a_call: int = ENTITIES_A_CALL,
        hot: HotFeed | None = None,
    ) -> None:
        self._hot = hot
        self.redis = WarmRedis(url, cluster, entities_a_call)
        self._confirmed: set[str] = set()
        """Keys of the watermarks and of the filled marks that this Redis is known to hold."""
        self._lost: dict[tuple[bytes, int], StatesLost] = {}
        """Of each partition of which something is lost, while Redis does not know it, the error."""
        writer = ClusterWriter if cluster else SingleServerWriter
        self._writer: ClusterWriter | SingleServerWriter = writer(self.redis, self._confirmed)

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

    def begin(self, topic_id: bytes, partition: int) -> bool:
        """Make sure that this sink may write a partition; returns whether another one might have.

        States of the partition that were loaded before must be forgotten then. Raises `StatesLost`
        where that was found out before, and Redis could not be told.
        """
        self._tell_lost(topic_id, partition)
        is_new = self._writer.begin(topic_id, partition)
        if is_new and self._hot is not None:
            self._hot.begun(topic_id, partition)
        return is_new

    def load(
        self, source: Source, entities: EntityNames, depth: int, before: Origin
    ) -> LoadedStates:
        """The states of those of `entities` that have one; the newest, whatever `before` is.

        Raises `AnotherWriter` where the partition of `before` was taken over before they were read.
        """
        guard = self._writer.guard(before.topic_id, before.partition)
        return load_columns(self.redis, source, entities, depth, guard)

    def prepare(self, batch: Batch) -> Store:
        """Pack a batch; returns what stores it as `store` does."""
        writes = BatchWrites(batch)
        store = partial(self._store, batch, self._writer.prepare(batch, writes))
        if self._hot is None:
            return store
        rows = Rows(batch.source.name, writes.names, writes.rows)
        return partial(_store_and_feed, self._hot, batch, store, rows)

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns the entities whose state was not the expected one.

        Raises `WatermarkMoved`, `TopicRecreated`, `OtherRules`, `SchemaBehind` and `StatesLost`.
        """
        return self.prepare(batch)()

    def _store(self, batch: Batch, store: Store) -> Sequence[str]:
        watermark = watermark_key(batch.run.topic_id, batch.run.partition)
        try:
            conflicts = store()
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
            self._lost[run.topic_id, run.partition] = StatesLost(run.topic, run.partition, entity)
            self._tell_lost(run.topic_id, run.partition)

    def _tell_lost(self, topic_id: bytes, partition: int) -> None:
        """Note in Redis that a partition of which something is lost must be filled again.

        Raises `StatesLost` then. Until Redis has it, nothing more of the partition is stored: the
        worker would compute on what is left, and nobody would notice any more.
        """
        lost = self._lost.get((topic_id, partition))
        if lost is None:
            return
        self.redis.run(scripts.LOSE, [key(topic_id, partition) for key in MARKS], [])
        self._lost.pop((topic_id, partition), None)  # another thread may have been faster
        raise lost


def _store_and_feed(hot: HotFeed, batch: Batch, store: Store, rows: Rows) -> Sequence[str]:
    """Store a batch, and tell hot what came of it."""
    hot.storing(batch.run)
    try:
        conflicts = store()
    except BaseException:
        hot.failed(batch.run)
        raise
    if conflicts:
        hot.failed(batch.run)
    else:
        hot.stored(batch.run, rows)
    return conflicts


def _is_earlier(stored: Origin, known: Origin) -> bool:
    """Whether an entity's stored origin is one that it had before `known`, in the same home."""
    home = (known.topic_id, known.partition)
    return (stored.topic_id, stored.partition) == home and stored < known
