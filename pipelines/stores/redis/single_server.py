"""How a run is stored where one server has every key.

The order of a commit:

1. Before states of a partition are loaded the sink makes itself its writer: it writes a token that
   it made up, beside the watermark (`lua/begin_writing.lua`). What a sink before still sends is
   refused from then on.
2. A run is stored in parts of so many entities that no reader waits long, each by one script, whole
   (`lua/commit.lua`). Beside the token stands how many scripts its sink has sent; a script names
   its own number, and raises it. So it is stored only if all before it were, and nobody else wrote
   the partition since: the states that the sink has loaded or written since it began *are* the
   stored ones, and are not compared. A server that was emptied, that was started again and has lost
   its last second, or whose replica took over, has another number, or none. Each load reads the
   token with the states: what another writer stored may be lost again, and the known number return.
3. What else must hold: the run's incarnation is the current one of its topic's name; no newer rules
   than those that decided the run hold at its offsets; the watermark is where the run begins; the
   row schema is not older than one that was stored.
4. Entities whose home is not known to be the run's partition are compared one by one: another
   partition's sink may be the first to write them.
5. The last part moves the watermark to the run's end.

After any refusal, and any call of which the answer is not known, the sink begins anew, and
everything that it has loaded is forgotten. A rebuild, which writes entities and moves no watermark,
removes the token with them.

Killed between two parts, entities are ahead of the watermark. The run is then read again, and their
ticks, at or before their origin, are passed over by the kernel. Where that can happen, the end of
the run is noted with the first part (`lua/begun.lua`): other rules begin no earlier, as entities
may have what was decided up to there.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from redis.exceptions import NoScriptError, ResponseError

from pipelines.compute.batch import Batch
from pipelines.errors import (
    OtherRules,
    SchemaBehind,
    StoreUnavailable,
    TopicRecreated,
    WatermarkMoved,
)
from pipelines.runtime.array_types import Int64s
from pipelines.stores.redis import scripts
from pipelines.stores.redis.batch_writes import BatchWrites
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.entity_write import member_keys
from pipelines.stores.redis.load_guard import AnotherWriter, LoadGuard
from pipelines.stores.redis.resp import Arguments, Command, bulk, no_texts
from pipelines.stores.sink import Store
from registry.formats.redis_keys import (
    begun_key,
    chunks_key,
    filled_key,
    incarnations_key,
    rows_key,
    rules_key,
    schema_key,
    states_key,
    watermark_key,
    writer_key,
)


class _Writing(NamedTuple):
    """The token under which this sink writes a partition, and the number of its next script."""

    token: str
    number: int


class SingleServerWriter:
    """Stores runs in one server. `confirmed` are keys that it is known to hold.

    `begin` is called by one thread, and a batch is stored by the same or another one.
    """

    def __init__(self, redis: WarmRedis, confirmed: Collection[str]) -> None:
        self._redis = redis
        self._confirmed = confirmed
        self._writing: dict[str, _Writing] = {}
        self._script = ""
        """The name of `scripts.COMMIT`, once the server was told it."""

    def begin(self, topic_id: bytes, partition: int) -> bool:
        """Become the writer of a partition; returns whether that was needed."""
        key = writer_key(topic_id, partition)
        if key in self._writing:
            return False
        token = secrets.token_hex(8)
        self._redis.run(scripts.BEGIN_WRITING, [key], [token])
        self._writing[key] = _Writing(token, 0)
        return True

    def guard(self, topic_id: bytes, partition: int) -> LoadGuard | None:
        """What is asked with states that are loaded for a partition: who the writers are.

        Of all partitions, since an entity may be at home in another one than the run that needs it.
        None where this sink has not begun to write the partition.
        """
        own, writing = writer_key(topic_id, partition), dict(self._writing)
        if own not in writing:
            return None

        def check(stored: Sequence[bytes | None]) -> None:
            for (key, known), value in zip(writing.items(), stored, strict=True):
                if (value or b"").partition(b":")[0] != known.token.encode():
                    self._end(key, known)
            if own not in self._writing:
                raise AnotherWriter

        return LoadGuard(list(writing), check)

    def prepare(self, batch: Batch, writes: BatchWrites) -> Store:
        """Pack a batch; returns what stores it. Any thread may call this."""
        parts = list(_parts(batch, writes, self._redis.entities_a_call))
        return partial(self._store, batch, parts)

    def _store(self, batch: Batch, parts: Sequence[_Part]) -> Sequence[str]:
        key = writer_key(batch.run.topic_id, batch.run.partition)
        writing = self._writing.get(key)
        if writing is None:
            raise AnotherWriter
        try:
            for answer in self._answers(batch, writing, parts):
                conflicts = _stored(batch, answer)
                if conflicts:
                    self._end(key, writing)
                    return conflicts
        except BaseException:
            self._end(key, writing)
            raise
        if self._writing.get(key) == writing:
            self._writing[key] = _Writing(writing.token, writing.number + len(parts))
        return ()

    def _end(self, key: str, writing: _Writing) -> None:
        """Begin anew before the next run; unless that was done already."""
        now = self._writing.get(key)
        if now is not None and now.token == writing.token:
            self._writing.pop(key, None)

    def _answers(self, batch: Batch, writing: _Writing, parts: Sequence[_Part]) -> list[Any]:
        """The answer to each part; a script that is unknown is told, and sent again."""
        if not self._script:
            self._script = self._redis.register(scripts.COMMIT)
        found = self._redis.exchange(self._commands(batch, writing, parts))
        if isinstance(found[0], NoScriptError):  # the parts after it were refused at least
            self._script = self._redis.register(scripts.COMMIT)
            found = self._redis.exchange(self._commands(batch, writing, parts))
        return found

    def _commands(
        self, batch: Batch, writing: _Writing, parts: Sequence[_Part]
    ) -> Iterator[Command]:
        """The calls of `lua/commit.lua`."""
        run = batch.run
        ids = run.topic_id, run.partition
        keys = _keys(run.topic, *ids, batch.source.name)
        confirmed = (of(*ids) in self._confirmed for of in (watermark_key, filled_key))
        must_exist = ["1" if one else "" for one in confirmed]
        for index, part in enumerate(parts):
            head = Arguments("EVALSHA", self._script, KEYS + len(part.keys))
            head.put(keys, KEYS)
            head.add(*part.keys, writing.token, writing.number + index)
            head.add(run.topic_id.hex(), run.base_offset, run.next_offset)
            head.add(_name(index, len(parts)), *must_exist, batch.rules, batch.schema.id)
            yield head, part.lists


KEYS = 10
"""Keys that every call of `lua/commit.lua` has."""


@lru_cache(maxsize=4096)
def _keys(topic: str, topic_id: bytes, partition: int, source: str) -> bytes:
    """The keys that `lua/commit.lua` takes of a run, as arguments."""
    marks = (writer_key, watermark_key, filled_key, rules_key, begun_key)
    writer, *others = (of(topic_id, partition) for of in marks)
    hashes = (of(source, 0) for of in (rows_key, states_key, chunks_key))
    return bulk(writer, incarnations_key(topic), *others, schema_key(source), *hashes)


class _Part(NamedTuple):
    """What `lua/commit.lua` takes of a part of a batch beside what it takes of the run."""

    keys: Sequence[str]
    lists: Arguments


def _parts(batch: Batch, writes: BatchWrites, most: int) -> Iterator[_Part]:
    """A batch in parts of at most so many entities; one that is empty where there are none."""
    entities = len(batch.names)
    compared = np.flatnonzero(~batch.expected.at_home(batch.run.topic_id, batch.run.partition))
    if entities <= most:
        yield _part(batch, writes, compared)
        return
    for begin in range(0, entities, most):
        end = min(begin + most, entities)
        own = compared[slice(*np.searchsorted(compared, [begin, end]).tolist())]
        yield _part(batch, writes.part(slice(begin, end)), own)


def _part(batch: Batch, writes: BatchWrites, compared: Int64s) -> _Part:
    """A part of a batch; `compared` are indexes in the batch of entities that are in the part."""
    keys: list[str] = []
    memberships: list[str | bytes] = []
    for entity, closed in writes.memberships():
        own, member = member_keys(batch.source.name, entity)
        keys += own
        memberships += (member, closed)
    n, tails, lists = len(writes.names), writes.tails, Arguments()
    for texts in (writes.some_names(compared), writes.identities(compared)):
        lists.add(len(texts))
        lists.texts(texts)
    lists.add(2 * n)
    lists.pairs(writes.names, writes.rows, no_texts(n))
    lists.add(2 * n)
    lists.pairs(writes.names, writes.headers, writes.ticks)
    lists.add(2 * len(tails.chunk_of))
    lists.chunks(writes.names, tails.chunk_of, tails.chunk_block, writes.chunks)
    lists.add(len(tails.dropped_of))
    lists.chunk_names(writes.names, tails.dropped_of, tails.dropped_block)
    lists.add(*memberships)
    return _Part(keys, lists)


def _name(index: int, parts: int) -> str:
    """How `lua/commit.lua` calls a part of a run."""
    if parts == 1:
        return "only"
    return "first" if index == 0 else "last" if index == parts - 1 else "middle"


def _stored(batch: Batch, answer: Any) -> Sequence[str]:
    """What an answer of `lua/commit.lua` means; returns the entities in conflict."""
    match answer:
        case None:
            return ()
        case [b"conflict", *entities]:
            return [entity.decode() for entity in entities]
        case [b"another writer"]:
            raise AnotherWriter
        case [b"recreated"]:
            raise TopicRecreated(batch.run.topic)
        case [b"other rules"]:
            raise OtherRules(batch.source.name)
        case [b"schema"]:
            raise SchemaBehind(batch.source.name, batch.schema.id)
        case [b"moved", moved]:
            raise WatermarkMoved(int(moved) if moved else None)
    assert isinstance(answer, ResponseError), answer
    raise StoreUnavailable(f"Redis: {answer}") from answer
