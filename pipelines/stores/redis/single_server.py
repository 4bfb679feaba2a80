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
   its last second, or whose replica took over, has another number, or none.
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
from pipelines.stores.redis.resp import Command, no_texts
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

    `begin` is called by one thread, and `store` by the same or another one.
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

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns the entities whose state was not the expected one."""
        key = writer_key(batch.run.topic_id, batch.run.partition)
        writing = self._writing.get(key)
        if writing is None:
            raise StoreUnavailable(ANOTHER_WRITER)
        parts = _parts(len(batch.names), self._redis.entities_a_call)
        try:
            for answer in self._answers(batch, writing, parts):
                conflicts = _stored(batch, answer)
                if conflicts:
                    self._end(key, writing)
                    return conflicts
        except BaseException:
            self._end(key, writing)
            raise
        self._writing[key] = _Writing(writing.token, writing.number + len(parts))
        return ()

    def _end(self, key: str, writing: _Writing) -> None:
        """Begin anew before the next run; unless that was done already."""
        if self._writing.get(key) == writing:
            del self._writing[key]

    def _answers(self, batch: Batch, writing: _Writing, parts: Sequence[slice]) -> list[Any]:
        """The answer to each part; a script that is unknown is told, and sent again."""
        if not self._script:
            self._script = self._redis.register(scripts.COMMIT)
        found = self._redis.exchange(self._commands(batch, writing, parts))
        if isinstance(found[0], NoScriptError):  # the parts after it were refused at least
            self._script = self._redis.register(scripts.COMMIT)
            found = self._redis.exchange(self._commands(batch, writing, parts))
        return found

    def _commands(
        self, batch: Batch, writing: _Writing, parts: Sequence[slice]
    ) -> Iterator[Command]:
        """The calls of the script, each made while the server works on the one before."""
        writes = BatchWrites(batch)
        compared = np.flatnonzero(~batch.expected.at_home(batch.run.topic_id, batch.run.partition))
        for index, part in enumerate(parts):
            own = compared[(compared >= part.start) & (compared < part.stop)]
            arguments = [
                *(writing.token, writing.number + index),
                *self._run_arguments(batch, _name(index, len(parts))),
            ]
            yield self._call(batch, writes.part(part), own, arguments)

    def _run_arguments(self, batch: Batch, part: str) -> list[Any]:
        """What `lua/commit.lua` takes of a run; `part` is how it calls this part of it."""
        run = batch.run
        marks = [of(run.topic_id, run.partition) for of in (watermark_key, filled_key)]
        return [
            *(run.topic_id.hex(), run.base_offset, run.next_offset, part),
            *("1" if mark in self._confirmed else "" for mark in marks),
            *(batch.rules, batch.schema.id),
        ]

    def _call(
        self, batch: Batch, writes: BatchWrites, compared: Int64s, arguments: Sequence[Any]
    ) -> Command:
        """The call of `lua/commit.lua` for a part of a batch; `compared` are indexes of its own."""
        run, source = batch.run, batch.source.name
        ids = run.topic_id, run.partition
        keys = [
            *(writer_key(*ids), incarnations_key(run.topic)),
            *(of(*ids) for of in (watermark_key, filled_key, rules_key, begun_key)),
            *(schema_key(source), *(of(source, 0) for of in (rows_key, states_key, chunks_key))),
        ]
        memberships: list[Any] = []
        for entity, closed in writes.memberships():
            own, member = member_keys(source, entity)
            keys += own
            memberships += (member, closed)
        n, tails = len(writes.names), writes.tails
        chunks, dropped = len(tails.chunk_of), len(tails.dropped_of)
        lists = 6 + 2 * len(compared) + 4 * n + 2 * chunks + dropped + len(memberships)
        command = Command(
            3 + len(keys) + len(arguments) + lists,
            *("EVALSHA", self._script, len(keys), *keys, *arguments),
        )
        command.add(len(compared))
        command.texts(writes.some_names(compared))
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


ANOTHER_WRITER = "Redis: another worker has written the partition, or what was sent before is lost"


def _parts(entities: int, most: int) -> list[slice]:
    """All of so many entities in parts; one that is empty where there are none."""
    begins = range(0, max(entities, 1), most)
    return [slice(begin, min(begin + most, entities)) for begin in begins]


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
            raise StoreUnavailable(ANOTHER_WRITER)
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
