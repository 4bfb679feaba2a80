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
from registry.formats.state import BLOCK, CHUNK_BLOCKS

LEFT_OVER = 64
"""Blocks of old chunks that are dropped with one run of an entity, beside as many as were added.

There are more of them when less history is kept than before.
"""


class StateTails(NamedTuple):
    """The tails of n entities after a run, and what becomes of their chunks.

    Ticks are 8-byte words: `tick_time`, `seq` and the fields, as `registry.formats.state` has them.
    """

    newest: Int64s = column(np.int64)
    """(n,) The index of the newest tick of each entity among the accepted ones of the run."""
    accepted: Int64s = column(np.int64)
    """(n,) How many ticks the entities have accepted."""
    first_block: Int64s = column(np.int64)
    """(n,) The block before which ticks need not be kept: chunks that end there are dropped."""
    words: Int64s = column(np.int64)
    ends: Int64s = column(np.int64)
    """(n + 1) The tail of entity i is in `words` from `ends[i]` up to `ends[i + 1]`."""
    chunk_of: Int64s = column(np.int64)
    """(m,) The index of the entity of each new chunk."""
    chunk_block: Int64s = column(np.int64)
    """(m,) The block before which the chunk ends, which is its name."""
    chunk_words: Int64s = column(np.int64)
    chunk_ends: Int64s = column(np.int64)
    """(m + 1) As `ends`, in `chunk_words`."""
    dropped_of: Int64s = column(np.int64)
    """(d,) The index of an entity."""
    dropped_block: Int64s = column(np.int64)
    """(d,) The name of a chunk of it that is too old to be kept, if there is one of that name."""

    def part(self, which: slice) -> StateTails:
        """Those of some entities that follow each other, which are numbered from 0 then."""
        ends = self.ends[which.start : which.stop + 1]
        chunks = slice(*np.searchsorted(self.chunk_of, [which.start, which.stop]).tolist())
        chunk_ends = self.chunk_ends[chunks.start : chunks.stop + 1]
        dropped = slice(*np.searchsorted(self.dropped_of, [which.start, which.stop]).tolist())
        return StateTails(
            newest=self.newest[which],
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

    starts: Int64s = column(np.int64)
    order: Int64s = column(np.int64)


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
    n, kept, tick_words = len(slots), -(-history // BLOCK), 2 + ticks.fields.shape[1]
    kept_ticks, chunks, chunk_ticks, dropped = _sizes(slots, order, kept, entities)
    tails = StateTails(
        newest=np.empty(n, np.int64),
        accepted=np.empty(n, np.int64),
        first_block=np.empty(n, np.int64),
        words=np.empty(kept_ticks * tick_words, np.int64),
        ends=np.zeros(n + 1, np.int64),
        chunk_of=np.empty(chunks, np.int64),
        chunk_block=np.empty(chunks, np.int64),
        chunk_words=np.empty(chunk_ticks * tick_words, np.int64),
        chunk_ends=np.zeros(chunks + 1, np.int64),
        dropped_of=np.empty(dropped, np.int64),
        dropped_block=np.empty(dropped, np.int64),
    )
    _seal(slots, ticks, order, kept, entities, rings, tails)
    return tails


STATES, ENTITIES, RINGS = type_of(StateColumns), type_of(EntityColumns), type_of(SeqRings)
VALUES, ORDER, TAILS = type_of(TickValues), type_of(TickOrder), type_of(StateTails)
SLOTS, INT64S = numba.int32[::1], numba.int64[::1]
TUPLE: Any = numba.types.UniTuple


@compiled(numba.void(SLOTS, INT64S, INT64S))
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


@compiled(numba.void(STATES, SLOTS, ENTITIES, RINGS))
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
def _move(slot, added, kept, entities):  # type: ignore[no-untyped-def]
    """How the tail of an entity moves that has `added` new ticks.

    Returns how many blocks were before it, and are from now on; the block before which ticks need
    not be kept; and the first of the blocks that become chunks.
    """
    after, first = entities.accepted[slot], entities.first_block[slot]
    had, has = max(after - added - 1, 0) // BLOCK, (after - 1) // BLOCK
    oldest = has - kept
    # in a run of more ticks than are kept, some are never written: there is a gap after `had`
    most = oldest if oldest > had else first + (has - had) + LEFT_OVER
    first_block = max(first, min(oldest, most))
    return had, has, first_block, max(had, first_block)


@compiled(TUPLE(numba.int64, 4)(SLOTS, ORDER, numba.int64, ENTITIES))
def _sizes(slots, ticks_of, kept, entities):  # type: ignore[no-untyped-def]
    """How many ticks tails have, how many chunks and ticks in them there are, and dropped names."""
    ticks = chunks = chunk_ticks = dropped = 0
    for k in range(slots.shape[0]):
        added = ticks_of.starts[k + 1] - ticks_of.starts[k]
        had, has, first_block, new_from = _move(slots[k], added, kept, entities)
        ticks += (entities.accepted[slots[k]] - 1) % BLOCK + 1
        chunks += -(-(has - new_from) // CHUNK_BLOCKS)
        chunk_ticks += (has - new_from) * BLOCK
        dropped += max(min(first_block, had) - entities.first_block[slots[k]], 0)
    return ticks, chunks, chunk_ticks, dropped


@inlined
def _put_kept(slot, index, entities, rings, words, word):  # type: ignore[no-untyped-def]
    """Write number `index` of the tail of a slot into `words`, from `word` on."""
    ring = entities.seq_ring[slot]
    words[word] = entities.tail_time[slot, index]
    words[word + 1] = rings.tail_seq[ring, index] if ring > 0 else NO_SEQ
    for field in range(entities.tail_fields.shape[2]):
        value = np.float64(entities.tail_fields[slot, index, field])
        words[word + 2 + field] = value.view(np.int64)


@inlined
def _put_new(ticks, i, words, word):  # type: ignore[no-untyped-def]
    """Write tick `i` as `_put_kept` does."""
    words[word] = ticks.time[i]
    words[word + 1] = ticks.seq[i]
    for field in range(ticks.fields.shape[1]):
        words[word + 2 + field] = np.float64(ticks.fields[i, field]).view(np.int64)


@compiled(numba.void(SLOTS, VALUES, ORDER, numba.int64, ENTITIES, RINGS, TAILS))
def _seal(slots, ticks, ticks_of, kept, entities, rings, tails):  # type: ignore[no-untyped-def]
    """Fill `tails`, and make the tails those of the columns."""
    tick_words = 2 + ticks.fields.shape[1]
    starts, order = ticks_of.starts, ticks_of.order
    chunk = chunk_word = dropped = word = 0
    for k in range(slots.shape[0]):
        slot, added = slots[k], starts[k + 1] - starts[k]
        had, has, first_block, new_from = _move(slot, added, kept, entities)
        ring, after = entities.seq_ring[slot], entities.accepted[slot]
        before = after - added
        tails.newest[k] = order[starts[k + 1] - 1]
        tails.accepted[k], tails.first_block[k] = after, first_block

        for ordinal in range(new_from * BLOCK, has * BLOCK):
            if ordinal < before:
                index = ordinal - had * BLOCK
                _put_kept(slot, index, entities, rings, tails.chunk_words, chunk_word)
            else:
                _put_new(ticks, order[starts[k] + ordinal - before], tails.chunk_words, chunk_word)
            chunk_word += tick_words
        for begin in range(new_from, has, CHUNK_BLOCKS):
            end = min(begin + CHUNK_BLOCKS, has)
            tails.chunk_of[chunk], tails.chunk_block[chunk] = k, end
            tails.chunk_ends[chunk + 1] = chunk_word - (has - end) * BLOCK * tick_words
            chunk += 1
        for block in range(entities.first_block[slot] + 1, min(first_block, had) + 1):
            tails.dropped_of[dropped], tails.dropped_block[dropped] = k, block
            dropped += 1
        entities.first_block[slot] = first_block

        begin = has * BLOCK
        for ordinal in range(begin, after):
            if ordinal < before:
                index = ordinal - had * BLOCK
                _put_kept(slot, index, entities, rings, tails.words, word)
            else:
                _put_new(ticks, order[starts[k] + ordinal - before], tails.words, word)
            word += tick_words
        tails.ends[k + 1] = word
        for ordinal in range(max(begin, before), after):
            index, i = ordinal - begin, order[starts[k] + ordinal - before]
            entities.tail_time[slot, index] = ticks.time[i]
            if ring > 0:
                rings.tail_seq[ring, index] = ticks.seq[i]
            for field in range(ticks.fields.shape[1]):
                entities.tail_fields[slot, index, field] = ticks.fields[i, field]
