"""The newest ticks of entities as a store keeps them with the rows: a tail each, and chunks.

`registry.formats.state` says what these are. A store that is given the tail of an entity with each
row can continue its windows from there; a tail is rewritten with every run that has a tick of its
entity, a chunk is written once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from pipelines.compute.entity_columns import EntityColumns, SeqRings
from pipelines.compute.entity_state import StateColumns
from pipelines.runtime.array_types import Floats, Int32s, Int64s
from pipelines.runtime.machine_code import compiled, inlined
from pipelines.runtime.named_columns import column, type_of
from pipelines.ticks.columns import NO_SEQ
from registry.formats.state import BLOCK, CHUNK_BLOCKS, tail_of

LEFT_OVER = 64
"""Blocks of old chunks that are dropped with one run of an entity, beside as many as were added.

There are more of them when less history is kept than before.
"""


class StateTails(NamedTuple):
    """The tails of n entities after a run, and what becomes of their chunks.

    Ticks are 8-byte words: `tick_time`, `seq` and the fields, as `registry.formats.state` has them.
    """

    accepted: Int64s
    """(n,) How many ticks the entities have accepted."""
    first_block: Int64s
    """(n,) The block before which ticks need not be kept: chunks that end there are dropped."""
    words: Int64s
    ends: Int64s
    """(n + 1) The tail of entity i is in `words` from `ends[i]` up to `ends[i + 1]`."""
    chunk_of: Int64s
    """(m,) The index of the entity of each new chunk."""
    chunk_block: Int64s
    """(m,) The block before which the chunk ends, which is its name."""
    chunk_words: Int64s
    chunk_ends: Int64s
    """(m + 1) As `ends`, in `chunk_words`."""
    dropped_of: Int64s
    """(d,) The index of an entity."""
    dropped_block: Int64s
    """(d,) The name of a chunk of it that is too old to be kept, if there is one of that name."""

    def part(self, which: slice) -> StateTails:
        """Those of some entities that follow each other, which are numbered from 0 then."""
        ends = self.ends[which.start : which.stop + 1]
        chunks = slice(*np.searchsorted(self.chunk_of, [which.start, which.stop]).tolist())
        chunk_ends = self.chunk_ends[chunks.start : chunks.stop + 1]
        dropped = slice(*np.searchsorted(self.dropped_of, [which.start, which.stop]).tolist())
        return StateTails(
            accepted=self.accepted[which],
            first_block=self.first_block[which],
            words=self.words[ends[0] : ends[-1]],
            ends=ends - ends[0],
            chunk_of=self.chunk_of[chunks] - which.start,
            chunk_block=self.chunk_block[chunks],
            chunk_words=self.chunk_words[chunk_ends[0] : chunk_ends[-1]],
            chunk_ends=chunk_ends - chunk_ends[0],
            dropped_of=self.dropped_of[dropped] - which.start,
            dropped_block=self.dropped_block[dropped],
        )


class TickValues(NamedTuple):
    """Accepted ticks, as they came."""

    time: Int64s = column(np.int64)
    seq: Int64s = column(np.int64)
    fields: Floats = column(np.float64, "fields")


class TickOrder(NamedTuple):
    """Which ticks are of which of n entities.

    Those of entity i are `order[starts[i] : starts[i + 1]]`.
    """

    starts: Int64s
    order: Int64s


def by_entity(entity: Int32s, entities: int) -> TickOrder:
    """The ticks of each of so many entities in their order; `entity` is by tick."""
    starts, order = np.zeros(entities + 1, np.int64), np.empty(len(entity), np.int64)
    _sort(entity, starts, order)
    return TickOrder(starts, order)


def begin_tails(
    slots: Int32s,
    states: StateColumns,
    first_block: Int64s,
    entities: EntityColumns,
    rings: SeqRings,
) -> None:
    """Take over the tails of stored states of the entities in `slots`."""
    entities.first_block[slots] = first_block
    _begin(states, slots, entities, rings)


def seal(
    slots: Int32s,
    ticks: TickValues,
    order: TickOrder,
    history: int,
    entities: EntityColumns,
    rings: SeqRings,
) -> StateTails:
    """The tails of the entities in `slots` after a run that the kernel has walked; they move on.

    Each of the entities has a tick among the accepted `ticks`. At least `history` ticks of an
    entity are kept.
    """
    after, added = entities.accepted[slots], np.diff(order.starts)
    had, has = _blocks(after - added), _blocks(after)
    kept = -(-history // BLOCK)
    first, oldest = entities.first_block[slots], has - kept
    # in a run of more ticks than are kept, some are never written: there is a gap after `had`
    most = np.where(oldest > had, oldest, first + (has - had) + LEFT_OVER)
    new_first = np.maximum(first, np.minimum(oldest, most))
    new_from = np.maximum(had, new_first)
    chunks = -(-(has - new_from) // CHUNK_BLOCKS)
    dropped = np.maximum(np.minimum(new_first, had) - first, 0)
    tick_words = 2 + ticks.fields.shape[1]
    block_words = BLOCK * tick_words
    ends = _ends(tail_of(after) * tick_words)
    chunk_of = np.repeat(np.arange(len(slots)), chunks)
    nth = _within(chunks)
    begin = new_from[chunk_of] + nth * CHUNK_BLOCKS
    chunk_block = np.minimum(begin + CHUNK_BLOCKS, has[chunk_of])
    chunk_ends = _ends((chunk_block - begin) * block_words)
    dropped_of = np.repeat(np.arange(len(slots)), dropped)
    tails = StateTails(
        accepted=after,
        first_block=new_first,
        words=np.empty(ends[-1], np.int64),
        ends=ends,
        chunk_of=chunk_of,
        chunk_block=chunk_block,
        chunk_words=np.empty(chunk_ends[-1], np.int64),
        chunk_ends=chunk_ends,
        dropped_of=dropped_of,
        dropped_block=first[dropped_of] + 1 + _within(dropped),
    )
    moves = Moves(slots, had, has, new_from, chunk_ends[_ends(chunks)[:-1]])
    _seal(
        moves,
        ticks,
        (order.starts, order.order),
        entities,
        rings,
        (tails.words, tails.words.view(np.float64), tails.ends),
        (tails.chunk_words, tails.chunk_words.view(np.float64)),
    )
    entities.first_block[slots] = new_first
    return tails


def _blocks(count: Int64s) -> Int64s:
    """How many blocks are before the tail, of so many ticks."""
    blocks: Int64s = np.maximum(count - 1, 0) // BLOCK
    return blocks


def _ends(sizes: Int64s) -> Int64s:
    ends = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    return ends


def _within(counts: Int64s) -> Int64s:
    """0, 1, … for as many as each count says, one behind the other."""
    ends = _ends(counts)
    numbers: Int64s = np.arange(ends[-1]) - np.repeat(ends[:-1], counts)
    return numbers


class Moves(NamedTuple):
    """How the tails of entities move."""

    slot: Int32s = column(np.int32)
    had: Int64s = column(np.int64)
    """Blocks before the tail until now."""
    has: Int64s = column(np.int64)
    """Blocks before the tail from now on."""
    new_from: Int64s = column(np.int64)
    """The first of the blocks that become chunks."""
    chunk_begin: Int64s = column(np.int64)
    """Where they begin in `StateTails.chunk_words`."""


STATES, ENTITIES, RINGS = type_of(StateColumns), type_of(EntityColumns), type_of(SeqRings)
MOVES, VALUES = type_of(Moves), type_of(TickValues)
TUPLE: Any = numba.types.Tuple
INT64S, FLOATS = numba.int64[::1], numba.float64[::1]


@compiled(numba.void(numba.int32[::1], INT64S, INT64S))
def _sort(entity, starts, order):  # type: ignore[no-untyped-def]
    """Sort the indexes of ticks by entity, and within one by themselves."""
    for i in range(entity.shape[0]):
        starts[entity[i] + 1] += 1
    for k in range(1, starts.shape[0]):
        starts[k] += starts[k - 1]
    for i in range(entity.shape[0]):
        order[starts[entity[i]]] = i
        starts[entity[i]] += 1
    for k in range(starts.shape[0] - 1, 0, -1):
        starts[k] = starts[k - 1]
    starts[0] = 0


@compiled(numba.void(STATES, numba.int32[::1], ENTITIES, RINGS))
def _begin(states, slots, entities, rings):  # type: ignore[no-untyped-def]
    """Copy the ticks of the tails of stored states."""
    for k in range(slots.shape[0]):
        slot, end = slots[k], states.ends[k + 1]
        tail = (states.accepted[k] - 1) % BLOCK + 1
        ring = entities.seq_ring[slot]
        for index in range(tail):
            tick = end - tail + index
            entities.tail_time[slot, index] = states.tick_time[tick]
            if ring > 0:
                rings.tail_seq[ring, index] = states.seq[tick]
            for field in range(states.fields.shape[1]):
                entities.tail_fields[slot, index, field] = states.fields[tick, field]


@inlined
def _put_kept(slot, index, entities, rings, out, word):  # type: ignore[no-untyped-def]
    """Write number `index` of the tail of a slot from `word` on; `out` are words, and as floats."""
    ring = entities.seq_ring[slot]
    out[0][word] = entities.tail_time[slot, index]
    out[0][word + 1] = rings.tail_seq[ring, index] if ring > 0 else NO_SEQ
    for field in range(entities.tail_fields.shape[2]):
        out[1][word + 2 + field] = entities.tail_fields[slot, index, field]


@inlined
def _put_new(ticks, i, out, word):  # type: ignore[no-untyped-def]
    """Write tick `i` as `_put_kept` does."""
    out[0][word] = ticks.time[i]
    out[0][word + 1] = ticks.seq[i]
    for field in range(ticks.fields.shape[1]):
        out[1][word + 2 + field] = ticks.fields[i, field]


@compiled(
    numba.void(
        *(MOVES, VALUES, TUPLE((INT64S, INT64S)), ENTITIES, RINGS),
        TUPLE((INT64S, FLOATS, INT64S)),
        TUPLE((INT64S, FLOATS)),
    )
)
def _seal(moves, ticks, ticks_of, entities, rings, tails, chunks):  # type: ignore[no-untyped-def]
    """Write the chunks and tails of entities, and make the tails those of the columns."""
    tick_words = 2 + ticks.fields.shape[1]
    starts, order = ticks_of
    for k in range(moves.slot.shape[0]):
        slot, first = moves.slot[k], moves.had[k] * BLOCK
        ring, after = entities.seq_ring[slot], entities.accepted[slot]
        before = after - (starts[k + 1] - starts[k])
        word = moves.chunk_begin[k]
        for ordinal in range(moves.new_from[k] * BLOCK, moves.has[k] * BLOCK):
            if ordinal < before:
                _put_kept(slot, ordinal - first, entities, rings, chunks, word)
            else:
                _put_new(ticks, order[starts[k] + ordinal - before], chunks, word)
            word += tick_words
        word, begin = tails[2][k], moves.has[k] * BLOCK
        for ordinal in range(begin, after):
            if ordinal < before:
                _put_kept(slot, ordinal - first, entities, rings, tails, word)
            else:
                _put_new(ticks, order[starts[k] + ordinal - before], tails, word)
            word += tick_words
        for ordinal in range(max(begin, before), after):
            index, i = ordinal - begin, order[starts[k] + ordinal - before]
            entities.tail_time[slot, index] = ticks.time[i]
            if ring > 0:
                rings.tail_seq[ring, index] = ticks.seq[i]
            for field in range(ticks.fields.shape[1]):
                entities.tail_fields[slot, index, field] = ticks.fields[i, field]
