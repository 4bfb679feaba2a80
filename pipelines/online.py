"""The online sink: rows and window states in Redis.

The order of a commit:

1. The partition's watermark must be where the run begins; a store that lost its last second, or a
   worker that lost its partition, is found out here.
2. For each entity a script compares the stored origin and count with those that its state was
   computed from, and if they are the same bytes writes header, ring and row; atomic for each
   entity. The origin alone would not do: a state that was rebuilt from Postgres has the same one,
   and its ticks in other places of the ring.
3. If any entity's was another, they are returned, and nothing more happens.
4. The watermark moves to the run's end, if it still is where the run begins.

Killed between 2 and 4, entities are ahead of the watermark. The run is then read again, and their
ticks, at or before their origin, are passed over by the kernel.

A value never steps back: a write succeeds only on top of exactly the state that it was computed
from, and the state that it leaves is of a later origin in the entity's one home partition.

The state of an entity is one string, big-endian up to the ring:

     0  32  origin of the newest accepted tick (`registry.row.ORIGIN`)
    32   8  its sequence
    40   8  how many ticks were ever accepted
    48   8  how many since the last reset
    56      ring of `history` ticks (`pipelines.state.tick_dtype`), number o at o % history
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pipelines.errors import StoreUnavailable, WatermarkMoved
from pipelines.runs import Batch
from pipelines.state import EntityState, tick_dtype
from pipelines.topics import Topic
from registry.definitions import Source
from registry.keys import (
    SEPARATOR,
    bucket,
    members_key,
    partitions_key,
    row_key,
    state_key,
    watermark_key,
)
from registry.row import HEADER, LAYOUT, ORIGIN, Origin

STATE_HEADER = struct.Struct(">32sqqq")
COUNT = struct.Struct(">q")
TIMEOUT = 5.0
"""Seconds for an answer. A script takes milliseconds; more means that the server hangs."""

ENTITIES_A_CALL = 500
"""Redis does nothing else while a script runs: this many take about a millisecond."""

STORE = files("pipelines").joinpath("lua/store.lua").read_text("utf-8")
ADVANCE = files("pipelines").joinpath("lua/advance.lua").read_text("utf-8")
LOAD = files("pipelines").joinpath("lua/load.lua").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Restored:
    """An entity as another store knows it: its state, and its newest row (`registry.row`)."""

    entity: str
    state: EntityState
    row: bytes


class OnlineSink:
    """Stores batches in the Redis at `url`, which keeps `history` ticks of each entity.

    With `cluster` it is a Redis Cluster, and no call spans two hash slots.
    """

    name = "online"

    def __init__(self, url: str, history: int = 1024, cluster: bool = False) -> None:
        options: dict[str, Any] = {
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
            "health_check_interval": 15,
        }
        self._redis: Any
        if cluster:
            self._redis = redis.RedisCluster.from_url(url, **options)
        else:
            # the caller retries the whole run; a retry below it could store it twice
            self._redis = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
        self._cluster = cluster
        self._history = history
        self._confirmed: set[str] = set()  # watermarks that this Redis was known to hold
        self._store = self._redis.register_script(STORE)
        self._advance = self._redis.register_script(ADVANCE)
        self._load = self._redis.register_script(LOAD)

    def watermarks(self, topic_id: bytes, partitions: Iterable[int]) -> Mapping[int, int]:
        """The next offset to read of those of `partitions` that were ever stored."""
        with _answers():
            stored = {p: self._redis.get(watermark_key(topic_id, p)) for p in partitions}
        known = {p: int(offset) for p, offset in stored.items() if offset is not None}
        self._confirmed.update(watermark_key(topic_id, p) for p in known)
        self._confirmed.difference_update(
            watermark_key(topic_id, p) for p in stored.keys() - known.keys()
        )
        return known

    def settle(self, topic: Topic) -> int:
        """Record a topic's number of partitions; returns the number that was recorded first."""
        with _answers():
            self._redis.setnx(partitions_key(topic.topic_id), topic.partitions)
            return int(self._redis.get(partitions_key(topic.topic_id)))

    def load(
        self, source: Source, entities: Sequence[str], depth: int, before: Origin
    ) -> Mapping[str, EntityState]:
        """The states of those of `entities` that have one; the newest, wherever `before` is."""
        dtype = tick_dtype(len(source.fields))
        sizes = [STATE_HEADER.size, dtype.itemsize, self._history, depth]
        states = {}
        for group in self._groups(entities):
            keys = [state_key(source.name, entity) for entity in group]
            with _answers():
                packed = self._load(keys=keys, args=sizes)
            for entity, state in zip(group, packed, strict=True):
                if state:
                    states[entity] = _unpack(state, dtype)
        return states

    def store(self, batch: Batch) -> Sequence[str]:
        """Store a batch; returns the entities whose state was not the expected one."""
        run = batch.run
        key = watermark_key(run.topic_id, run.partition)
        with _answers():
            stored = self._redis.get(key)
        if stored is None and key in self._confirmed:
            raise WatermarkMoved(None)
        if stored is not None and int(stored) != run.base_offset:
            raise WatermarkMoved(int(stored))
        conflicts: list[str] = []
        entities = _Writes(batch, self._history)
        places = {entity: place for place, entity in enumerate(batch.names)}
        for group in self._groups(batch.names):
            keys: list[str] = []
            arguments: list[Any] = []
            for entity in group:
                entities.add(places[entity], keys, arguments)
            with _answers():
                refused = self._store(keys=keys, args=arguments)
            conflicts += [group[place - 1] for place in refused]
        if not conflicts:
            with _answers():
                moved = self._advance(keys=[key], args=[stored or b"", run.next_offset])
            if moved is not None:
                raise WatermarkMoved(int(moved) if moved else None)
            self._confirmed.add(key)
        return conflicts

    def put(
        self, source: Source, restored: Sequence[Restored], stored: Mapping[str, EntityState]
    ) -> set[str]:
        """Put states on top of exactly what is `stored`, as `load` gave it.

        Returns the entities that hold something else by now; nothing of theirs was written.
        """
        by_entity = {r.entity: r for r in restored}
        refused: set[str] = set()
        for group in self._groups(list(by_entity)):
            keys: list[str] = []
            arguments: list[Any] = []
            for entity in group:
                below, state = stored.get(entity), by_entity[entity].state
                expected = b"" if below is None else _identity(below.origin.pack(), below.count)
                header = STATE_HEADER.pack(
                    state.origin.pack(), state.sequence, state.count, state.fill
                )
                ticks, size = state.ticks.tobytes(), state.ticks.itemsize
                parts = _ring(state.count - len(state.ticks), len(state.ticks), self._history)
                pieces = [
                    (STATE_HEADER.size + at * size, ticks[begin * size : stop * size])
                    for begin, stop, at in parts
                ]
                row = by_entity[entity].row
                _append(keys, arguments, source.name, entity, expected, header, row, pieces)
            with _answers():
                places = self._store(keys=keys, args=arguments)
            refused.update(group[place - 1] for place in places)
        return refused

    def add_members(self, source: Source, entities: Sequence[str]) -> None:
        """Make entities known to what is summed up over them (the positions of a portfolio)."""
        for group in self._groups(entities):
            with _answers(), self._redis.pipeline(transaction=False) as pipeline:
                for entity in group:
                    message_key, _, member = entity.partition(SEPARATOR)
                    pipeline.sadd(members_key(source.name, message_key), member)
                pipeline.execute()

    def get(self, key: str) -> bytes | None:
        """What is stored under a key."""
        with _answers():
            stored: bytes | None = self._redis.get(key)
            return stored

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What a Lua script answers; on a cluster all its keys are of one hash slot."""
        with _answers():
            return self._redis.eval(script, len(keys), *keys, *arguments)

    def close(self) -> None:
        self._redis.close()

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


class _Writes:
    """What to write of each entity of a batch, as bytes cut from whole columns."""

    def __init__(self, batch: Batch, history: int) -> None:
        self._batch = batch
        self._history = history
        self._ticks, self._tick_bytes = _ticks(batch)
        self._order = np.argsort(batch.name, kind="stable")
        self._ends = np.searchsorted(batch.name[self._order], np.arange(len(batch.names)), "right")
        newest = self._order[self._ends - 1] if len(batch.names) else self._order
        self._newest = newest.tolist()
        self._rows, self._row_bytes = _rows(batch, newest)
        self._sorted_ticks = self._ticks[self._order].tobytes()
        self._ordinals = batch.ordinal[self._order]

    def add(self, place: int, keys: list[str], arguments: list[Any]) -> None:
        """Append the keys and arguments of the entity at `place` in the batch's names."""
        batch, source = self._batch, self._batch.source.name
        entity = batch.names[place]
        newest = self._newest[place]
        row = self._rows[place * self._row_bytes : (place + 1) * self._row_bytes]
        header = STATE_HEADER.pack(
            ORIGIN.pack(
                batch.run.topic_id,
                batch.run.partition,
                int(batch.offset[newest]),
                int(batch.index[newest]),
            ),
            int(batch.sequence[newest]),
            int(batch.ordinal[newest]) + 1,
            int(batch.fill[place]),
        )
        expected = batch.expected[place]
        if expected:
            expected = _identity(expected, int(self._ordinals[self._start(place)]))
        pieces = list(self._pieces(place))
        _append(keys, arguments, source, entity, expected, header, row, pieces)

    def _start(self, place: int) -> int:
        """Where the entity's ticks begin among the sorted ones."""
        return int(self._ends[place - 1]) if place else 0

    def _pieces(self, place: int) -> Iterator[tuple[int, bytes]]:
        """The entity's ticks as (offset in the state, bytes); two pieces where the ring wraps."""
        end = int(self._ends[place])
        start = max(self._start(place), end - self._history)
        for begin, stop, at in _ring(int(self._ordinals[start]), end - start, self._history):
            size = self._tick_bytes
            ticks = self._sorted_ticks[(start + begin) * size : (start + stop) * size]
            yield STATE_HEADER.size + at * size, ticks


def _append(
    keys: list[str],
    arguments: list[Any],
    source: str,
    entity: str,
    expected: bytes,
    header: bytes,
    row: bytes,
    pieces: Sequence[tuple[int, bytes]],
) -> None:
    """Append what the script takes of one entity."""
    message_key, _, member = entity.partition(SEPARATOR)
    keys += (state_key(source, entity), row_key(source, entity), members_key(source, message_key))
    arguments += (expected, header, row, member, len(pieces))
    for piece in pieces:
        arguments += piece


def _identity(origin: bytes, count: int) -> bytes:
    """What the script knows a state by."""
    return origin + COUNT.pack(count)


def _ring(first: int, n: int, history: int) -> Iterator[tuple[int, int, int]]:
    """Where `n` ticks from number `first` on go: (begin, stop) of them to a place of the ring."""
    at = first % history
    wrap = min(n, history - at)
    for begin, stop, place in ((0, wrap, at), (wrap, n, 0)):
        if stop > begin:
            yield begin, stop, place


def _ticks(batch: Batch) -> tuple[Any, int]:
    """The accepted ticks as a column of `tick_dtype`, and the size of one."""
    dtype = tick_dtype(len(batch.source.fields))
    ticks = np.empty(len(batch), dtype)
    ticks["event_time"] = batch.event_time
    ticks["tick_time"] = batch.tick_time
    ticks["seq"] = batch.seq
    ticks["fields"] = batch.fields
    return ticks, dtype.itemsize


def _rows(batch: Batch, places: Any) -> tuple[bytes, int]:
    """The rows at `places` as `registry.row.pack` makes them, end to end, and the size of one."""
    features = len(batch.schema.features)
    dtype = np.dtype(
        [
            ("layout", "u1"),
            ("schema_id", ">u4"),
            ("event_time", ">i8"),
            ("sequence", ">i8"),
            ("known_at", ">i8"),
            ("topic_id", "V16"),
            ("partition", ">i4"),
            ("offset", ">i8"),
            ("index", ">i4"),
            ("status", "u1", (features,)),
            ("values", ">f8", (features,)),
        ]
    )
    assert dtype.itemsize == HEADER.size + 9 * features
    rows = np.empty(len(places), dtype)
    rows["layout"] = LAYOUT
    rows["schema_id"] = batch.schema.id
    rows["event_time"] = batch.event_time[places]
    rows["sequence"] = batch.sequence[places]
    rows["known_at"] = batch.known_at[places]
    rows["topic_id"] = np.void(batch.run.topic_id)
    rows["partition"] = batch.run.partition
    rows["offset"] = batch.offset[places]
    rows["index"] = batch.index[places]
    rows["status"] = batch.status[places]
    rows["values"] = batch.features[places]
    return rows.tobytes(), dtype.itemsize


def _unpack(state: bytes, dtype: np.dtype[np.void]) -> EntityState:
    origin, sequence, count, fill = STATE_HEADER.unpack_from(state)
    return EntityState(
        origin=Origin.unpack(origin),
        sequence=sequence,
        count=count,
        fill=fill,
        ticks=np.frombuffer(state, dtype, offset=STATE_HEADER.size),
    )


@contextmanager
def _answers() -> Iterator[None]:
    """What Redis raises while it is away, loading, full or a replica passes: wait and try again."""
    try:
        yield
    except RedisError as error:
        raise StoreUnavailable(f"Redis: {error}") from error
