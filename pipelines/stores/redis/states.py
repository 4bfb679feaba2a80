"""The window states in Redis, read: columns of all entities that are asked for, at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numba
import numpy as np
from redis.exceptions import ResponseError

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import EntityState, LoadedStates, StateColumns, tick_dtype
from pipelines.errors import StateDamaged, StateOfOtherFields, StoreUnavailable
from pipelines.runtime.array_types import Int64s
from pipelines.runtime.machine_code import compiled
from pipelines.stores.redis.client import answers
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.load_guard import LoadGuard
from pipelines.stores.redis.resp import Arguments, Command, Texts
from registry.definitions import Source
from registry.formats.origin import Origin
from registry.formats.redis_keys import bucket, chunk_field, chunks_key, states_key
from registry.formats.state import BLOCK, LAYOUT_VERSION, STATE_HEADER, tail_of

ATTEMPTS = 3
"""Reads of a state whose chunks do not fit it: another worker may have written it in between."""


def load_columns(
    redis: WarmRedis,
    source: Source,
    entities: Sequence[str],
    depth: int,
    guard: LoadGuard | None = None,
) -> LoadedStates:
    """The states of those of `entities` that have one, with their `depth` newest ticks.

    Raises `StoreUnavailable`, `StateOfOtherFields`, `StateDamaged`, and what `guard` raises, which
    a single server is asked for.
    """
    names = entities if isinstance(entities, EntityNames) else EntityNames.of(entities)
    read = _Reads(redis, source, names, guard)
    for attempt in range(ATTEMPTS):
        found = _read_states(read)
        try:
            return _with_chunks(read, found, depth)
        except StateDamaged:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def load_states(
    redis: WarmRedis, source: Source, entities: Sequence[str], depth: int
) -> dict[str, EntityState]:
    """The same, entity by entity."""
    loaded = load_columns(redis, source, entities, depth)
    first_block = loaded.first_block
    assert first_block is not None
    states, dtype = loaded.states, tick_dtype(len(source.fields))
    found = {}
    for k, index in enumerate(loaded.which.tolist()):
        which = slice(int(states.ends[k]), int(states.ends[k + 1]))
        ticks = np.empty(which.stop - which.start, dtype)
        ticks["tick_time"], ticks["seq"] = states.tick_time[which], states.seq[which]
        ticks["fields"] = states.fields[which]
        found[entities[index]] = EntityState(
            origin=Origin(
                loaded.topic_id[k].tobytes(),
                int(states.partition[k]),
                int(states.offset[k]),
                int(states.message_index[k]),
            ),
            sequence=int(states.sequence[k]),
            event_time=int(states.event_time[k]),
            count=int(states.accepted[k]),
            fill=int(states.fill[k]),
            ticks=ticks,
            first_block=int(first_block[k]),
        )
    return found


class _Found(NamedTuple):
    """The states of n of the entities that were asked for, without their chunks."""

    which: Int64s
    """Their indexes."""
    headers: Any
    """(n,) of `STATE_HEADER`."""
    accepted: Int64s
    data: Any
    """The states, one behind the other, as 8-byte words."""
    begins: Int64s
    """Where the ticks of each begin, in words."""


class _Reads(NamedTuple):
    """What is read: states of entities by their names."""

    redis: WarmRedis
    source: Source
    names: EntityNames
    guard: LoadGuard | None


def _read_states(read: _Reads) -> _Found:
    source, names = read.source, read.names
    packed = _hash_values(read)
    which = np.array([i for i, state in enumerate(packed) if state is not None], np.int64)
    stored = [state for state in packed if state is not None]
    sizes, header = _sizes(stored), STATE_HEADER.size
    short = np.flatnonzero((sizes < header) | (sizes % 8 != 0))
    if len(short):
        raise StateDamaged(names[int(which[short[0]])], f"has {sizes[short[0]]} bytes")
    headers = np.frombuffer(b"".join([state[:header] for state in stored]), STATE_HEADER.dtype)
    words, begins = np.frombuffer(b"".join(stored), np.int64), np.cumsum(sizes) - sizes
    count = headers["count"].astype(np.int64)
    tick_bytes = tick_dtype(len(source.fields)).itemsize
    others = np.flatnonzero(
        (headers["layout_version"] != LAYOUT_VERSION) | (headers["fields"] != len(source.fields))
    )
    if len(others):
        name, kept = names[int(which[others[0]])], int(headers["fields"][others[0]])
        raise StateOfOtherFields(
            source.name,
            f"the state of {name!r} in Redis has {kept} fields a tick (layout "
            f"{headers['layout_version'][others[0]]}), and {source.name} has {len(source.fields)}",
        )
    declared = header + tail_of(count) * tick_bytes
    damaged = np.flatnonzero((sizes != declared) | (count < 1))
    if len(damaged):
        what = f"has {sizes[damaged[0]]} bytes, and its header declares {declared[damaged[0]]}"
        raise StateDamaged(names[int(which[damaged[0]])], what)
    first, blocks = headers["first_block"].astype(np.int64), (count - tail_of(count)) // BLOCK
    damaged = np.flatnonzero(first > blocks)
    if len(damaged):
        what = f"has {blocks[damaged[0]]} blocks, and keeps them from {first[damaged[0]]} on"
        raise StateDamaged(names[int(which[damaged[0]])], what)
    return _Found(which, headers, count, words, (begins + header) // 8)


def _with_chunks(read: _Reads, found: _Found, depth: int) -> LoadedStates:
    """The states with as many ticks of their chunks as make `depth`.

    Raises `StateDamaged` where a chunk is missing, or is none.
    """
    names, fields, headers = read.names, len(read.source.fields), found.headers
    tick_words = 2 + fields
    tail = tail_of(found.accepted)
    blocks = (found.accepted - tail) // BLOCK
    wanted = np.maximum(-((tail - depth) // BLOCK), 0)
    oldest = np.maximum(headers["first_block"].astype(np.int64), blocks - wanted)
    of, block = _candidates(blocks, np.maximum(blocks - oldest, 0))
    chunks = _chunk_values(read, found.which[of], block)
    chunks = [chunk or b"" for chunk in chunks]
    sizes = _sizes(chunks)
    block_bytes = BLOCK * tick_words * 8
    if (sizes % block_bytes).any():
        wrong = int(np.flatnonzero(sizes % block_bytes)[0])
        what = f"has a chunk {block[wrong]} of {sizes[wrong]} bytes, no multiple of {block_bytes}"
        raise StateDamaged(names[int(found.which[of[wrong]])], what)
    starts = _ends(np.bincount(of, minlength=len(blocks)))
    reached = np.empty(len(blocks), np.int64)
    broken = _walk(starts, sizes // block_bytes, blocks, oldest, reached)
    if broken >= 0:
        what = f"lacks a chunk of ticks between blocks {oldest[broken]} and {blocks[broken]}"
        raise StateDamaged(names[int(found.which[broken])], what)
    held = np.minimum(tail + (blocks - reached) * BLOCK, depth)
    ends = _ends(held)
    states = StateColumns(
        partition=headers["partition"].astype(np.int32),
        offset=headers["offset"].astype(np.int64),
        message_index=headers["index"].astype(np.int32),
        sequence=headers["sequence"].astype(np.int64),
        event_time=headers["event_time"].astype(np.int64),
        accepted=found.accepted,
        fill=_seen(headers["fill"].astype(np.int64), held, depth),
        ends=ends,
        tick_time=np.empty(ends[-1], np.int64),
        seq=np.empty(ends[-1], np.int64),
        fields=np.empty((ends[-1], fields)),
    )
    chunk_words = np.frombuffer(b"".join(chunks), np.int64)
    chunk_begins = (np.cumsum(sizes) - sizes) // 8
    _copy_ticks(
        (states.ends, states.tick_time, states.seq, states.fields),
        (found.data, found.data.view(np.float64), found.begins, tail),
        (chunk_words, chunk_words.view(np.float64), chunk_begins, sizes // 8, starts),
    )
    first_block = headers["first_block"].astype(np.int64)
    return LoadedStates(found.which, headers["topic_id"].copy(), states, first_block)


def _candidates(blocks: Int64s, many: Int64s) -> tuple[Int64s, Int64s]:
    """The names that the chunks of entities may have, newest first: `many` up to `blocks` of each.

    Returns the index of each one's entity, and its block.
    """
    of = np.repeat(np.arange(len(blocks)), many)
    within = np.arange(len(of)) - np.repeat(_ends(many)[:-1], many)
    return of, blocks[of] - within


def _sizes(values: Sequence[bytes]) -> Int64s:
    """How many bytes each has."""
    return np.fromiter(map(len, values), np.int64, len(values))


def _ends(sizes: Int64s) -> Int64s:
    ends = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    return ends


def _hash_values(read: _Reads) -> list[Any]:
    """The states of entities as they are stored."""
    redis, source, names, _ = read
    if not redis.cluster:
        key = states_key(source.name, 0)
        texts = Texts.of(names.data, names.ends)
        return _exchanged(read, _state_reads(key, texts, redis.entities_a_call))
    keys = [states_key(source.name, bucket(name, cluster=True)) for name in names]
    return _from_cluster(redis, list(names), keys)


def _chunk_values(read: _Reads, of: Int64s, block: Int64s) -> list[Any]:
    """Chunks as they are stored; `of` are the indexes of their entities among the names."""
    redis, source, names, _ = read
    if not len(of):
        return []
    if not redis.cluster:
        key = chunks_key(source.name, 0)
        texts = Texts.of(names.data, names.ends)
        step = redis.entities_a_call
        return _exchanged(read, _chunk_reads(key, texts, of, block, step))
    entities = [names[index] for index in of.tolist()]
    fields = [chunk_field(*pair) for pair in zip(entities, block.tolist(), strict=True)]
    keys = [chunks_key(source.name, bucket(name, cluster=True)) for name in entities]
    return _from_cluster(redis, fields, keys)


def _state_reads(key: str, names: Texts, step: int) -> Iterator[Command]:
    for begin in range(0, len(names), step):
        part = names.part(slice(begin, min(begin + step, len(names))))
        arguments = Arguments("HMGET", key)
        arguments.texts(part)
        yield (arguments,)


def _chunk_reads(key: str, names: Texts, of: Int64s, block: Int64s, step: int) -> Iterator[Command]:
    for begin in range(0, len(of), step):
        which = slice(begin, begin + step)
        arguments = Arguments("HMGET", key)
        arguments.chunk_names(names, of[which], block[which])
        yield (arguments,)


def _exchanged(read: _Reads, commands: Iterator[Command]) -> list[Any]:
    """The answers of several `HMGET`, one behind the other.

    What the guard wants is asked on the same connection: a server that was started again meanwhile,
    or another one that took over, would tell what was before.
    """
    asked = [] if read.guard is None else [(Arguments("MGET", *read.guard.keys),)]
    found = read.redis.exchange(chain(commands, asked))
    for answer in found:
        if isinstance(answer, ResponseError):
            raise StoreUnavailable(f"Redis: {answer}") from answer
    if read.guard is not None:
        read.guard.check(found.pop())
    return list(chain.from_iterable(found))


def _from_cluster(redis: WarmRedis, fields: Sequence[str], keys: Sequence[str]) -> list[Any]:
    """The values of fields of hashes, by one `HMGET` for each hash."""
    by_key: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        by_key.setdefault(key, []).append(index)
    client, values = redis.connect(), [None] * len(fields)
    for key, indexes in by_key.items():
        with answers():
            found = client.hmget(key, [fields[index] for index in indexes])
        for index, value in zip(indexes, found, strict=True):
            values[index] = value
    return values


def _seen(fill: Any, held: Any, depth: int) -> Any:
    """How many ticks windows may see, of states of which so many ticks were read.

    They see no further back than what is kept: when less was kept until now, those that need more
    than that fill up first.
    """
    return np.where(held == depth, fill, np.minimum(fill, held))


INT64S, FLOATS = numba.int64[::1], numba.float64[::1]
TUPLE: Any = numba.types.Tuple
READ_ONLY_INTS = numba.types.Array(numba.int64, 1, "C", readonly=True)
READ_ONLY_FLOATS = numba.types.Array(numba.float64, 1, "C", readonly=True)


@compiled(numba.int64(INT64S, INT64S, INT64S, INT64S, INT64S))
def _walk(starts, sizes, blocks, oldest, reached):  # type: ignore[no-untyped-def]
    """Walk back from the tail of each entity, chunk by chunk, until the block `oldest` is reached.

    `sizes` are those of candidates in blocks, 0 for none; those of entity k begin at `starts[k]`,
    newest first. `reached` becomes the block that the last chunk begins with. Returns the entity
    whose next chunk is not there, else -1.
    """
    for k in range(blocks.shape[0]):
        block, candidate = blocks[k], starts[k]
        while block > oldest[k]:
            size = sizes[candidate]
            if size == 0:
                return k
            candidate += size
            block -= size
        reached[k] = max(block, 0)
    return -1


@compiled(
    numba.void(
        TUPLE((INT64S, INT64S, INT64S, numba.float64[:, ::1])),
        TUPLE((READ_ONLY_INTS, READ_ONLY_FLOATS, INT64S, INT64S)),
        TUPLE((READ_ONLY_INTS, READ_ONLY_FLOATS, INT64S, INT64S, INT64S)),
    )
)
def _copy_ticks(states, tails, chunks):  # type: ignore[no-untyped-def]
    """Copy the newest ticks of tails and chunks to those of the states, oldest first.

    Both are words, the same as floats, where those of each begin, and how many: of tails in ticks,
    of chunks in words. The candidates for chunks of entity k begin at `chunks[4][k]`.
    """
    ends, tick_time, seq, fields = states
    size = 2 + fields.shape[1]
    for k in range(ends.shape[0] - 1):
        begin, out = ends[k], ends[k + 1]
        words, floats, word = tails[0], tails[1], tails[2][k] + tails[3][k] * size
        first = tails[2][k]
        candidate = chunks[4][k]
        while out > begin:
            if word == first:
                words, floats, first = chunks[0], chunks[1], chunks[2][candidate]
                word = first + chunks[3][candidate]
                candidate += chunks[3][candidate] // (BLOCK * size)  # the next one of the chain
            word -= size
            out -= 1
            tick_time[out] = words[word]
            seq[out] = words[word + 1]
            for field in range(fields.shape[1]):
                fields[out, field] = floats[word + 2 + field]
