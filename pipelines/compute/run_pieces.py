"""A run in pieces that touch a bounded number of entities, cut between records.

Each piece covers offsets of its own and is stored as a run would be: whole, with its watermark. So
a store that does nothing else meanwhile is soon free again.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from pipelines.compute.entity_slots import Touched
from pipelines.runtime.machine_code import compiled
from pipelines.ticks.columns import Ticks


def cut_ticks(ticks: Ticks, touched: Touched, entities: int) -> list[tuple[Ticks, int]]:
    """The pieces of a run, each with the index of its first tick.

    Each has ticks of at most so many entities, or of one record.
    """
    if len(touched.distinct) <= entities:
        return [(ticks, 0)]
    begins = np.empty(len(ticks), np.int64)
    piece_of = np.zeros(len(touched.distinct), np.int64)
    cuts = _cut(touched.place, ticks.offset, entities, piece_of, begins)
    bounds = [0, *begins[:cuts].tolist(), len(ticks)]
    return [(_piece(ticks, begin, end), begin) for begin, end in pairwise(bounds)]


def _piece(ticks: Ticks, begin: int, end: int) -> Ticks:
    """The ticks from `begin` up to, not at, `end`, and the records before the next piece."""
    run = ticks.run
    if end < len(ticks):
        run = run.before(int(ticks.offset[end]))
    if begin > 0:
        run = run.since(int(ticks.offset[begin]))
    first_record = int(np.searchsorted(ticks.run.offsets, run.base_offset))
    which = slice(begin, end)
    return replace(
        ticks,
        run=run,
        keys=ticks.keys[which],
        raw=ticks.raw[which],
        record=ticks.record[which] - first_record,
        offset=ticks.offset[which],
        index=ticks.index[which],
        tick_time=ticks.tick_time[which],
        seq=ticks.seq[which],
        op=ticks.op[which],
        fields=ticks.fields[which],
        known_at=ticks.known_at[which],
        seq_text=ticks.seq_text[which],
        rejected=[one for one in ticks.rejected if run.base_offset <= one.offset < run.next_offset],
        passed_over=ticks.passed_over if begin == 0 else 0,
    )


@compiled("int64(int32[::1], int64[::1], int64, int64[::1], int64[::1])")
def _cut(entity, offset, most, piece_of, begins):  # type: ignore[no-untyped-def]
    """Find where pieces but the first begin; returns how many there are.

    `entity` is the index of each tick's entity, `piece_of` is 0 for each entity.
    """
    cuts, piece, count, begin, record = 0, 1, 0, 0, 0
    for i in range(entity.shape[0]):
        if i > 0 and offset[i] != offset[i - 1]:
            record = i
        if piece_of[entity[i]] != piece and count >= most and record > begin:
            begins[cuts] = record
            cuts += 1
            piece, count, begin = piece + 1, 0, record
            for earlier in range(record, i):
                if piece_of[entity[earlier]] != piece:
                    piece_of[entity[earlier]] = piece
                    count += 1
        if piece_of[entity[i]] != piece:
            piece_of[entity[i]] = piece
            count += 1
    return cuts
