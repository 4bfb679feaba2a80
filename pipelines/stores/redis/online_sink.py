"""The online sink: rows and window states in Redis.

On a single server a batch is one script, whole (`lua/commit.lua`). It first compares what all of it
hangs on, and writes nothing where that is not as the worker believes:

1. The life of the server, as of which states were read.
2. The run's incarnation must be the current one of its topic's name, and no newer rules than those
   that decided the run may hold at its offsets.
3. The partition's watermark must be where the run begins. This finds a store that lost its last
   second, and a worker that lost its partition or was paused while its topic was recreated or other
   rules were recorded.
4. The fill epoch: a rebuild, which writes entities and moves no watermark, changes it.
5. The row schema must not be older than one that was stored.
6. Entities whose home is not known to be the run's partition are compared one by one.

Then it writes all rows, states and chunks, and the watermark. So states are always those of the log
up to the watermark, but for what a rebuild wrote, and under the right watermark, life and epoch a
state that a worker has cached *is* the stored one: *if* it believes what it cached only in a run
that begins where its own last one ended (`live.materializer`). The entities that the worker knows
are therefore not compared.

On a cluster, where nothing may span hash slots, these are several calls: for each tag a script
compares the stored state of each entity with the one that its state was computed from, and writes
those that are the same; then the watermark moves, if no entity was another. Killed in between,
entities are ahead of the watermark. The run is then read again, and their ticks, at or before their
origin, are passed over by the kernel. The end of the run is noted before the first entity
(`lua/begun.lua`): other rules begin no earlier, as entities may have what was decided up to there.

A value never steps back: a write succeeds only on top of exactly the state that it was computed
from, and the state that it leaves is of a later origin in the entity's one home partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from redis.exceptions import NoScriptError, ResponseError

from pipelines.compute.batch import Batch
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import LoadedStates
from pipelines.compute.state_tails import KeptStates
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
from pipelines.stores.redis.entity_write import WriteCall, member_keys
from pipelines.stores.redis.resp import Command, no_texts
from pipelines.stores.redis.states import load_columns, load_states
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    FILLED_MARK,
    begun_key,
    chunks_key,
    epoch_key,
    filled_key,
    incarnations_key,
    partitions_key,
    rows_key,
    rules_key,
    schema_key,
    states_key,
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
        self.kept = KeptStates(history, entities_a_call)
        self._confirmed: set[str] = set()
        """Keys of the watermarks and of the filled marks that this Redis is known to hold."""
        self._epochs: dict[str, bytes] = {}
        """The fill epochs as of which states were read, by their keys."""
        self._commit = ""
        """The name of the script, once the server was told it."""

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of those of `partitions` that were ever stored."""
        client = self.redis.connect()
        known = {}
        for partition in partitions:
            keys = [of(topic_id, partition) for of in (watermark_key, filled_key, epoch_key)]
            known_before = self._confirmed.intersection(keys)  # a store may add to it meanwhile
            with answers():
                offset, filled, epoch = client.mget(keys)
            self._confirmed -= known_before
            # one that is known changes only when a run is refused, and everything is forgotten
            self._epochs.setdefault(keys[2], epoch or b"")
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

    def store(self, *batches: Batch) -> Sequence[str]:
        """Store batches in turn; returns the entities whose state was not the expected one.

        Those before the first that is refused are stored, and none after it. Raises
        `WatermarkMoved`, `TopicRecreated`, `OtherRules`, `SchemaBehind` and `StatesLost`. Raises
        `StoreUnavailable` also where the server was started again, or entities were restored, since
        states were read: the states that the run does not change, and that nothing compares, may be
        others now.
        """
        conflicts: Sequence[str] = ()
        watermark = watermark_key(batches[0].run.topic_id, batches[0].run.partition)
        batch = batches[0]
        try:
            if self.redis.cluster:
                for batch in batches:
                    conflicts = self._store_in_steps(batch)
                    if conflicts:
                        break
            else:
                answers_of = self._commit_all(batches)
                for batch, answer in zip(batches, answers_of, strict=True):
                    conflicts = self._stored(batch, answer)
                    if conflicts:
                        break
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

    def _commit_all(self, batches: Sequence[Batch]) -> list[Any]:
        """The answers of `lua/commit.lua` to each batch; a script that is unknown is told first."""
        if not self._commit:
            self._commit = self.redis.register(scripts.COMMIT)
        found = self.redis.exchange(self._commits(batches))
        if isinstance(found[0], NoScriptError):
            # nothing of it was stored; the server was started again, which the script finds out
            self._commit = self.redis.register(scripts.COMMIT)
            found = self.redis.exchange(self._commits(batches))
        return found

    def _commits(self, batches: Sequence[Batch]) -> Iterator[Command]:
        """The calls of `lua/commit.lua`, each made while the server works on the one before."""
        watermark_is_known = False
        for batch in batches:
            yield self._commit_of(batch, watermark_is_known)
            watermark_is_known = True

    def _commit_of(self, batch: Batch, watermark_is_known: bool) -> Command:
        run, source, writes = batch.run, batch.source.name, BatchWrites(batch)
        ids = run.topic_id, run.partition
        watermark, filled, epoch = (of(*ids) for of in (watermark_key, filled_key, epoch_key))
        compared = np.flatnonzero(~batch.expected.at_home(*ids))
        keys = [
            *(incarnations_key(run.topic), watermark, filled, rules_key(*ids), epoch),
            schema_key(source),
            *(of(source, 0) for of in (rows_key, states_key, chunks_key)),
        ]
        memberships: list[Any] = []
        for entity, closed in map(writes.member, writes.memberships()):
            own, member = member_keys(source, entity)
            keys += own
            memberships += (member, closed)
        n, tails = len(batch.names), writes.tails
        chunks, dropped = len(tails.chunk_of), len(tails.dropped_of)
        expected = [watermark_is_known or watermark in self._confirmed, filled in self._confirmed]
        arguments = [
            *(self.redis.life, run.topic_id.hex(), run.base_offset, run.next_offset),
            *("1" if must_exist else "" for must_exist in expected),
            *(batch.rules, self._epochs.get(epoch, b""), batch.schema.id),
        ]
        lists = 6 + 2 * len(compared) + 4 * n + 2 * chunks + dropped + len(memberships)
        command = Command(
            3 + len(keys) + len(arguments) + lists,
            *("EVALSHA", self._commit, len(keys), *keys, *arguments),
        )
        command.add(len(compared))
        command.texts(writes.only_names(compared))
        command.add(len(compared))
        command.texts(writes.identities(compared))
        command.add(2 * n)
        command.pairs(writes.names, writes.rows, no_texts(n))
        command.add(2 * n)
        command.pairs(writes.names, writes.headers, writes.ticks)
        command.add(2 * chunks)
        command.chunks(writes.names, tails.chunk_of, tails.chunk_block, writes.chunks)
        command.add(dropped)
        command.chunk_names(writes.names, tails.dropped_of, tails.dropped_block)
        command.add(*memberships)
        return command

    def _stored(self, batch: Batch, answer: Any) -> Sequence[str]:
        """What an answer of `lua/commit.lua` means; returns the entities in conflict."""
        run = batch.run
        match answer:
            case None:
                return ()
            case [b"conflict", *entities]:
                return [entity.decode() for entity in entities]
            case [b"another life", life]:
                self._begin_life(life)
            case [b"refilled", epoch]:
                self._epochs[epoch_key(run.topic_id, run.partition)] = epoch
                raise StoreUnavailable(f"Redis: entities of {run.topic} were restored meanwhile")
            case [b"recreated"]:
                raise TopicRecreated(run.topic)
            case [b"other rules"]:
                raise OtherRules(batch.source.name)
            case [b"schema"]:
                raise SchemaBehind(batch.source.name, batch.schema.id)
            case [b"moved", moved]:
                raise WatermarkMoved(int(moved) if moved else None)
        assert isinstance(answer, ResponseError), answer
        raise StoreUnavailable(f"Redis: {answer}") from answer

    def _store_in_steps(self, batch: Batch) -> Sequence[str]:
        """Store in calls of entities that may go together; returns the entities in conflict."""
        run = batch.run
        key, filled_mark = (of(run.topic_id, run.partition) for of in (watermark_key, filled_key))
        filled = FILLED_MARK if filled_mark in self._confirmed else b""
        stored = self._begin(batch, [key, filled_mark], bool(filled))
        conflicts: list[str] = []
        writes = {write.entity: write for write in BatchWrites(batch).writes()}
        for number, group in self.redis.groups(writes):
            call = WriteCall(batch.source.name, number)
            for entity in group:
                call.add(writes[entity])
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
