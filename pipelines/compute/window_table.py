"""The windows of the entities of a source: a bounded cache of what a store knows, and the kernel.

The store is the truth. An entity is forgotten whenever the store says that its state is not up to
date, at every new generation of the consumer group, and when it was not used for the longest time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.compute.batch import Batch
from pipelines.compute.distinct_slots import distinct_slots
from pipelines.compute.entity_columns import REMEMBERED, UNKNOWN, EntityColumns, SeqRings
from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_slots import EntitySlots, Touched
from pipelines.compute.entity_state import LoadedStates, StateColumns
from pipelines.compute.instructions import (
    fields_of,
    instructions_of,
    longest_returns_of,
    returns_of,
)
from pipelines.compute.kernel import (
    ACCEPTED,
    RowColumns,
    RunContext,
    TickColumns,
    advance,
    compute_newest,
    restore_states,
)
from pipelines.compute.rejections import rejections
from pipelines.compute.state_tails import TickValues, begin_tails, by_entity, seal
from pipelines.errors import HistoryTooShort
from pipelines.runtime.array_types import Bytes, Floats, Int32s
from pipelines.runtime.named_columns import allocate, grown, sliced
from pipelines.ticks.columns import NO_SEQ, Ticks
from registry.definitions import RowSchema, Source
from registry.formats.state import BLOCK
from registry.language.program import Program

FIRST_RINGS = 64


class NewestValues(NamedTuple):
    """The features of the newest ticks of n entities, (n, features of the schema) each."""

    features: Floats
    status: Bytes


def depth_of(program: Program) -> int:
    """How many ticks of an entity must be known: those that could come again, and the windows'."""
    return max(REMEMBERED, program.lookback)


def check_history(program: Program) -> None:
    """Raises `HistoryTooShort` where the source keeps fewer ticks than must be known."""
    source, depth = program.source, depth_of(program)
    if depth > source.history:
        raise HistoryTooShort(source.name, source.history, depth)


class WindowTable:
    """The windows of at most about `capacity` entities of one source.

    A run is touched, and then applied. An entity is unknown until `restore` says what the store has
    of it, even if that is nothing.
    """

    def __init__(
        self, source: Source, schema: RowSchema, program: Program, capacity: int = 100_000
    ) -> None:
        self.source = source
        self.schema = schema
        self.depth = depth_of(program)
        self.capacity = capacity
        self._code = instructions_of(program)
        self._fields = fields_of(program)
        self._topics: list[bytes] = []
        self._slots = EntitySlots()
        self._run = 0
        self._sizes = {
            "lookback": program.lookback,
            "longest_returns": longest_returns_of(program),
            "fields": len(self._fields),
            "returns": returns_of(program),
            "block": BLOCK,
            "tick_fields": len(source.fields),
        }
        self._columns = allocate(EntityColumns, self._slots.size, **self._sizes)
        self._rings = allocate(SeqRings, FIRST_RINGS, remembered=REMEMBERED, block=BLOCK)
        self._rings.seq[:] = self._rings.tail_seq[:] = NO_SEQ
        self._used_rings = 1
        self._scratch = np.empty(self._slots.size, np.int32)

    def __len__(self) -> int:
        return len(self._slots)

    def touch(self, ticks: Ticks) -> Touched:
        """Find the entities of the ticks, and begin to use them; others may lose their place."""
        self._run += 1
        touched = self._slots.touch(ticks.data, ticks.keys, self._run, self.capacity)
        size = len(self._columns.accepted)
        if self._slots.size > size:
            columns = list(self._columns)
            del self._columns  # so that each array is freed as soon as it is copied
            self._columns = grown(EntityColumns, columns, self._slots.size)
            self._scratch = np.empty(self._slots.size, np.int32)
        if len(touched.taken):
            self._columns.accepted[touched.taken] = UNKNOWN
            # the ring of the entity that had the slot before
            self._rings.seq[self._columns.seq_ring[touched.taken]] = NO_SEQ
        return touched

    def missing(self, touched: Touched) -> Int32s:
        """The slots of the entities that must be restored before they are applied."""
        slots: Int32s = touched.distinct[self._columns.accepted[touched.distinct] == UNKNOWN]
        return slots

    def names(self, slots: Int32s) -> EntityNames:
        """The names of the entities in some slots."""
        return self._slots.names(slots)

    def restore(self, slots: Int32s, loaded: LoadedStates) -> None:
        """Take over what the store knows of the entities in `slots`, which it was asked for.

        One without a state begins empty.
        """
        self._columns.accepted[slots] = 0
        self._columns.fill[slots] = 0
        self._columns.first_block[slots] = 0
        known, states = slots[loaded.which], loaded.states
        of_tick = np.repeat(known, np.diff(states.ends))
        self._need_rings(of_tick[states.seq != NO_SEQ])
        restore_states(
            states._replace(fields=self._remembered(states.fields)),
            self._topics_of(loaded.topic_id),
            known,
            self._code,
            self._columns,
            self._rings,
        )
        if loaded.first_block is not None:
            begin_tails(known, states, loaded.first_block, self._columns, self._rings)

    def newest(self, states: StateColumns) -> NewestValues:
        """What the newest tick of each of some states has for values, as when it was applied.

        The entities of the table are not looked at, so another thread may call this.
        """
        n = len(states.accepted)
        columns = allocate(EntityColumns, n, **self._sizes)
        rings = allocate(SeqRings, 1, remembered=REMEMBERED, block=BLOCK)  # nobody's
        rows = allocate(RowColumns, n, features=len(self._code.function))
        remembered = states._replace(fields=self._remembered(states.fields))
        slots = np.arange(n, dtype=np.int32)
        restore_states(remembered, np.zeros(n, np.int32), slots, self._code, columns, rings)
        compute_newest(self._code, columns, rows)
        return NewestValues(rows.features, rows.status)

    def forget_all(self) -> None:
        """Forget every entity; they must be restored before they are applied again."""
        self._slots.give_up_all()

    def apply(self, ticks: Ticks, touched: Touched, history: int | None = None) -> Batch:
        """Decide and compute every tick of a run; the windows move on.

        With `history` the batch has the tails of its entities, for a store that keeps so many ticks
        of each. Raises KeyError where an entity of the ticks was not restored.
        """
        slot, name, distinct = touched.slot, touched.place, touched.distinct
        unknown = self.missing(touched)
        if len(unknown):
            raise KeyError(self.names(unknown)[0])
        before = self._columns.origins(distinct, self._topics)
        fill_before = self._columns.fill[distinct]
        rows = self._advance(ticks, slot)
        rejected = rejections(ticks, slot, rows.verdict, self._columns)
        accepted = rows.verdict == ACCEPTED
        which: Any = slice(None)
        if not accepted.all():
            which = np.flatnonzero(accepted)
            distinct, index = distinct_slots(slot[which], self._scratch)
            among_all = np.empty(len(distinct), np.int32)
            among_all[index] = name[which]
            before, fill_before, name = before.only(among_all), fill_before[among_all], index
            rows = sliced(rows, which)
        tails = None
        if history is not None:
            accepted_ticks = TickValues(
                ticks.tick_time[which], ticks.seq[which], ticks.fields[which]
            )
            order = by_entity(name, len(distinct))
            tails = seal(distinct, accepted_ticks, order, history, self._columns, self._rings)
        return Batch(
            run=ticks.run,
            source=self.source,
            schema=self.schema,
            names=self.names(distinct),
            expected=before,
            fill=self._columns.fill[distinct],
            fill_before=fill_before,
            tails=tails,
            name=name,
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
        self._need_rings(slot[ticks.seq != NO_SEQ])
        rows = allocate(RowColumns, len(ticks), features=len(self._code.function))
        advance(
            TickColumns(
                slot=slot,
                offset=ticks.offset,
                message_index=ticks.index,
                time=ticks.tick_time,
                seq=ticks.seq,
                op=ticks.op,
                fields=self._remembered(ticks.fields),
            ),
            RunContext(
                topic=self._topic(ticks.run.topic_id),
                partition=ticks.run.partition,
                skew=ticks.source.skew_ns,
            ),
            self._code,
            self._columns,
            self._rings,
            rows,
        )
        return rows

    def _remembered(self, fields: Floats) -> Floats:
        """Those fields of ticks that windows are of."""
        return np.ascontiguousarray(fields[:, self._fields])

    def _need_rings(self, slots: Int32s) -> None:
        """Give each of the entities in `slots`, of which one has a tick with a `seq`, a ring."""
        without = slots[self._columns.seq_ring[slots] == 0]
        if not len(without):
            return
        new = np.unique(without)
        needed = self._used_rings + len(new)
        if needed > len(self._rings.seq):
            length = max(needed, 2 * len(self._rings.seq))
            columns = list(self._rings)
            del self._rings  # so that each array is freed as soon as it is copied
            self._rings = grown(SeqRings, columns, length)
            self._rings.seq[self._used_rings :] = NO_SEQ
            self._rings.tail_seq[self._used_rings :] = NO_SEQ
        self._columns.seq_ring[new] = np.arange(self._used_rings, needed)
        self._used_rings = needed

    def _topic(self, topic_id: bytes) -> int:
        """The small number that stands for a topic incarnation here."""
        if topic_id not in self._topics:
            self._topics.append(topic_id)
        return self._topics.index(topic_id)

    def _topics_of(self, topic_ids: NDArray[np.void]) -> Int32s:
        """The number of each of many incarnations, nearly all of which are the same."""
        numbers = np.empty(len(topic_ids), np.int32)
        for topic_id in set(topic_ids.tolist()):
            numbers[topic_ids == np.void(topic_id)] = self._topic(topic_id)
        return numbers
