"""The windows of the entities of a source: a bounded cache of what a store knows, and the kernel.

The store is the truth. An entity is forgotten whenever the store says that its state is not up to
date, at every new generation of the consumer group, and when it was not used for the longest time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.compute.batch import Batch
from pipelines.compute.distinct_slots import distinct_slots
from pipelines.compute.entity_columns import REMEMBERED, EntityColumns
from pipelines.compute.entity_slots import EMPTY, EntitySlots, name_of
from pipelines.compute.entity_state import EntityState
from pipelines.compute.instructions import instructions_of, lookback_of, returns_of
from pipelines.compute.kernel import (
    ACCEPTED,
    RowColumns,
    RunContext,
    TickColumns,
    advance,
    fill_restored_returns,
)
from pipelines.compute.rejections import rejections
from pipelines.runtime.array_types import Int32s, Int64s
from pipelines.runtime.named_columns import allocate, column, grown, sliced
from pipelines.ticks.columns import Ticks
from registry.definitions import RowSchema, Source
from registry.language.program import Program

FIRST_SLOTS = 1024
"""Slots of a new table; they double when they are full."""


def depth_of(program: Program) -> int:
    """How many ticks of an entity must be known: those that could come again, and the windows'."""
    return max(REMEMBERED, lookback_of(program))


class SlotUse(NamedTuple):
    """What the table notes of each slot for itself."""

    last_run: Int64s = column(np.int64)
    """The run that last needed the slot's entity."""
    scratch: Int32s = column(np.int32)
    """For `distinct_slots`."""


class WindowTable:
    """The windows of at most about `capacity` entities of one source.

    An entity is unknown until `restore` says what the store has of it, even if that is nothing.
    """

    def __init__(
        self, source: Source, schema: RowSchema, program: Program, capacity: int = 100_000
    ) -> None:
        self.source = source
        self.schema = schema
        self.depth = depth_of(program)
        self.capacity = capacity
        self._code = instructions_of(program)
        self._topics: list[bytes] = []
        self._entities = EntitySlots()
        self._run = 0
        self._columns = allocate(
            EntityColumns,
            FIRST_SLOTS,
            remembered=REMEMBERED,
            lookback=lookback_of(program),
            fields=len(source.fields),
            returns=returns_of(program),
        )
        self._use = allocate(SlotUse, FIRST_SLOTS)

    def __len__(self) -> int:
        return len(self._entities)

    def missing(self, ticks: Ticks) -> list[str]:
        """The entities, once each, that must be restored before these ticks can be applied."""
        slot = self._entities.find(ticks.data, ticks.keys)
        unknown = np.flatnonzero(slot == EMPTY)
        self._use.last_run[slot[slot != EMPTY]] = self._run + 1  # not to be evicted by `restore`
        return list(dict.fromkeys(name_of(ticks.data, ticks.keys[i]) for i in unknown.tolist()))

    def restore(self, entities: Sequence[str], states: Mapping[str, EntityState]) -> None:
        """Take over what the store knows of `entities`; one without a state begins empty."""
        if len(self._entities) + len(entities) > self.capacity:
            self._make_room(len(entities))
        slots, first = [], []
        for entity in entities:
            slot = self._entities.take(entity)
            if slot >= len(self._use.last_run):
                self._grow(2 * len(self._use.last_run))
            self._use.last_run[slot] = self._run + 1
            self._columns.clear(slot)
            state = states.get(entity)
            if state is not None:
                topic = self._topic(state.origin.topic_id)
                oldest = self._columns.restore(slot, state, topic)
                slots.append(slot)
                first.append(oldest + 1)  # the oldest value has no previous one to return from
        if slots:
            fill_restored_returns(
                self._columns, np.array(slots, np.int32), np.array(first, np.int64), self._code
            )

    def _grow(self, slots: int) -> None:
        columns, use = list(self._columns), list(self._use)
        del self._columns, self._use  # so that each array is freed as soon as it is copied
        self._columns = grown(EntityColumns, columns, slots)
        self._use = grown(SlotUse, use, slots)

    def forget(self, entities: Iterable[str] | None = None) -> None:
        """Forget some entities, or all; they must be restored before they are applied again."""
        if entities is None:
            self._entities.give_up_all()
        else:
            self._entities.give_up(entities)

    def apply(self, ticks: Ticks) -> Batch:
        """Decide and compute every tick of a run; the windows move on.

        Every entity of the ticks must have been restored. Raises KeyError where one was not.
        """
        self._run += 1
        slot = self._entities.find(ticks.data, ticks.keys)
        if (slot == EMPTY).any():
            raise KeyError(name_of(ticks.data, ticks.keys[int(np.argmin(slot))]))
        touched, name = distinct_slots(slot, self._use.scratch)
        self._use.last_run[touched] = self._run
        before = self._columns.origins(touched, self._topics)
        rows = self._advance(ticks, slot)
        rejected = rejections(ticks, slot, rows.verdict, self._columns)
        accepted = rows.verdict == ACCEPTED
        which: Any = slice(None)
        if not accepted.all():
            which = np.flatnonzero(accepted)
            touched, index = distinct_slots(slot[which], self._use.scratch)
            among_all = np.empty(len(touched), np.int32)
            among_all[index] = name[which]
            before, name = [before[i] for i in among_all.tolist()], index
            rows = sliced(rows, which)
        return Batch(
            run=ticks.run,
            source=self.source,
            schema=self.schema,
            names=[self._entities.names[s] for s in touched.tolist()],
            expected=before,
            fill=self._columns.fill[touched],
            name=name,
            ordinal=rows.ordinal,
            offset=ticks.offset[which],
            index=ticks.index[which],
            event_time=rows.event_time,
            sequence=rows.sequence,
            tick_time=ticks.tick_time[which],
            seq=ticks.seq[which],
            op=ticks.op[which],
            fields=ticks.fields[which],
            known_at=ticks.known_at[which],
            features=rows.features,
            status=rows.status,
            rejected=[*ticks.rejected, *rejected],
            texts=ticks.data,
            seq_text=ticks.seq_text[which],
            passed_over=ticks.passed_over,
            rules=ticks.rules,
        )

    def _advance(self, ticks: Ticks, slot: Int32s) -> RowColumns:
        """Run the kernel over ticks whose entities are in the slots `slot`."""
        rows = allocate(RowColumns, len(ticks), features=len(self._code.function))
        advance(
            TickColumns(
                slot=slot,
                offset=ticks.offset,
                message_index=ticks.index,
                time=ticks.tick_time,
                seq=ticks.seq,
                op=ticks.op,
                fields=ticks.fields,
            ),
            RunContext(
                topic=self._topic(ticks.run.topic_id),
                partition=ticks.run.partition,
                skew=ticks.source.skew_ns,
            ),
            self._code,
            self._columns,
            rows,
        )
        return rows

    def _topic(self, topic_id: bytes) -> int:
        """The small number that stands for a topic incarnation here."""
        if topic_id not in self._topics:
            self._topics.append(topic_id)
        return self._topics.index(topic_id)

    def _make_room(self, coming: int) -> None:
        """Forget the entities that were not used for the longest time, an eighth at the least."""
        excess = len(self._entities) + coming - self.capacity
        slots = self._entities.slots()
        many = min(len(slots), max(excess, self.capacity // 8))
        last_run = self._use.last_run
        oldest = slots[np.argsort(last_run[slots], kind="stable")[:many]]
        # what this run needs and what was restored for it must stay
        unused = oldest[last_run[oldest] <= self._run].tolist()
        self.forget([self._entities.names[slot] for slot in unused])
