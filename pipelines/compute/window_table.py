"""What is remembered of each entity of a source, and the kernel over it.

The state of the entities that are at hand is a struct of arrays, one place ("slot") an entity, so
that the kernel walks plain memory. The store is the truth and this is a cache of it: bounded,
forgotten whenever a store says that it is not up to date, and at every group generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.compute import kernel
from pipelines.compute.batch import Batch
from pipelines.compute.entity_slots import EMPTY, EntitySlots, name_of
from pipelines.compute.entity_state import EntityState
from pipelines.compute.kernel import REMEMBERED, advance, fill_returns, number_slots
from pipelines.runtime.array_types import Int32s
from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.columns import Rejection, Ticks
from registry.definitions import RowSchema, Source
from registry.formats.origin import ORIGIN
from registry.language.program import Function, Program

FIRST_SLOTS = 1024

REASON = {
    kernel.WRONG_PARTITION: reasons.WRONG_PARTITION,
    kernel.DUPLICATE: reasons.DUPLICATE,
    kernel.LATE: reasons.LATE,
}


def _lookback_of(program: Program) -> int:
    """How many values of an entity are at hand: a power of two that holds the longest window."""
    return 1 << (program.lookback - 1).bit_length()


def depth_of(program: Program) -> int:
    """How many ticks of an entity must be known: those that could come again, and the windows'."""
    return max(REMEMBERED, _lookback_of(program))


def _with_returns(program: Program) -> tuple[Any, int]:
    """The program with the place of each feature's returns among those remembered, and how many.

    Returns are remembered by field: features of the same field share them.
    """
    fields = [
        int(field) for function, field, _ in program.code if function == Function.STDDEV_LOG_RETURN
    ]
    places = {field: place for place, field in enumerate(dict.fromkeys(fields))}
    column = [[places.get(int(field), 0)] for _, field, _ in program.code]
    code = np.hstack([program.code, np.array(column, np.int64).reshape(-1, 1)])
    return np.ascontiguousarray(code), max(1, len(places))


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
        self._code, returns = _with_returns(program)
        self._topics: list[bytes] = []
        self._entities = EntitySlots()
        self._run = 0
        # by slot: the origin of the newest tick (whose partition is home), its sequence, how many
        # ticks were ever accepted and how many since the last reset, its event time
        self._home_topic = np.zeros(FIRST_SLOTS, np.int32)
        self._home_partition = np.zeros(FIRST_SLOTS, np.int32)
        self._offset = np.zeros(FIRST_SLOTS, np.int64)
        self._index = np.zeros(FIRST_SLOTS, np.int32)
        self._sequence = np.zeros(FIRST_SLOTS, np.int64)
        self._count = np.zeros(FIRST_SLOTS, np.int64)
        self._fill = np.zeros(FIRST_SLOTS, np.int64)
        self._event = np.zeros(FIRST_SLOTS, np.int64)
        # by slot and tick: number o of an entity is at o % the length, a power of two
        self._ring_time = np.zeros((FIRST_SLOTS, REMEMBERED), np.int64)
        self._ring_seq = np.zeros((FIRST_SLOTS, REMEMBERED), np.int64)
        lookback = _lookback_of(program)
        self._ring_fields = np.zeros((FIRST_SLOTS, lookback, len(source.fields)))
        self._ring_returns = np.zeros((FIRST_SLOTS, lookback, returns))
        # by slot: the run that last needed it, and its number among the entities of a run
        self._used = np.zeros(FIRST_SLOTS, np.int64)
        self._number = np.zeros(FIRST_SLOTS, np.int32)

    def __len__(self) -> int:
        return len(self._entities)

    def missing(self, ticks: Ticks) -> list[str]:
        """The entities, once each, that must be restored before these ticks can be applied."""
        slot = self._entities.find(ticks.data, ticks.keys)
        unknown = np.flatnonzero(slot == EMPTY)
        self._used[slot[slot != EMPTY]] = self._run + 1  # restoring must not push them out
        return list(dict.fromkeys(name_of(ticks.data, ticks.keys[i]) for i in unknown.tolist()))

    def restore(self, entities: Sequence[str], states: Mapping[str, EntityState]) -> None:
        """Take over what the store knows of `entities`; one without a state begins empty."""
        if len(self._entities) + len(entities) > self.capacity:
            self._make_room(len(entities))
        for entity in entities:
            slot = self._entities.take(entity)
            while slot >= len(self._count):
                self._grow()
            self._used[slot] = self._run + 1
            self._count[slot] = 0
            self._fill[slot] = 0
            state = states.get(entity)
            if state is not None:
                self._restore_one(slot, state)

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
        n, features = len(ticks), len(self._code)
        touched, name = self._numbered(slot)
        self._used[touched] = self._run
        before = self._origins(touched)
        verdict = np.zeros(n, np.uint8)
        event_time, sequence, ordinal = (np.zeros(n, np.int64) for _ in range(3))
        values = np.empty((n, features))
        status = np.zeros((n, features), np.uint8)
        advance(
            slot,
            ticks.offset,
            ticks.index,
            ticks.tick_time,
            ticks.seq,
            ticks.op,
            ticks.fields,
            self._topic(ticks.run.topic_id),
            ticks.run.partition,
            ticks.source.skew_ns,
            self._code,
            self._home_topic,
            self._home_partition,
            self._offset,
            self._index,
            self._sequence,
            self._count,
            self._fill,
            self._event,
            self._ring_time,
            self._ring_seq,
            self._ring_fields,
            self._ring_returns,
            verdict,
            event_time,
            sequence,
            ordinal,
            values,
            status,
        )
        accepted = verdict == kernel.ACCEPTED
        rows: Any = slice(None)
        if not accepted.all():
            rows = np.flatnonzero(accepted)
            place = self._number[slot[rows]]
            touched, name = self._numbered(slot[rows])
            earlier = np.empty(len(touched), np.int32)
            earlier[name] = place
            before = [before[i] for i in earlier.tolist()]
        return Batch(
            run=ticks.run,
            source=self.source,
            schema=self.schema,
            names=[self._entities.names[s] for s in touched.tolist()],
            expected=before,
            fill=self._fill[touched],
            name=name,
            ordinal=ordinal[rows],
            offset=ticks.offset[rows],
            index=ticks.index[rows],
            event_time=event_time[rows],
            sequence=sequence[rows],
            tick_time=ticks.tick_time[rows],
            seq=ticks.seq[rows],
            op=ticks.op[rows],
            fields=ticks.fields[rows],
            known_at=ticks.known_at[rows],
            features=values[rows],
            status=status[rows],
            rejected=[*ticks.rejected, *self._rejections(ticks, slot, verdict)],
        )

    def _numbered(self, slot: Int32s) -> tuple[Int32s, Int32s]:
        """The distinct slots in order of appearance, and the place in them of each of `slot`."""
        self._number[slot] = -1
        distinct, place = np.empty(len(slot), np.int32), np.empty(len(slot), np.int32)
        many = number_slots(slot, self._number, distinct, place)
        return distinct[:many], place

    def _origins(self, slots: Any) -> list[bytes]:
        """The packed origins of slots, b"" for an entity without one."""
        origins = np.zeros(len(slots), ORIGIN.dtype)
        ids = np.frombuffer(b"".join(self._topics) or bytes(16), "V16")
        origins["topic_id"] = ids[self._home_topic[slots]]
        origins["partition"] = self._home_partition[slots]
        origins["offset"] = self._offset[slots]
        origins["index"] = self._index[slots]
        packed, size = origins.tobytes(), ORIGIN.size
        known = (self._count[slots] > 0).tolist()
        return [packed[i * size : (i + 1) * size] if k else b"" for i, k in enumerate(known)]

    def _rejections(self, ticks: Ticks, slot: Any, verdict: Any) -> list[Rejection]:
        return [
            Rejection(
                offset=int(ticks.offset[i]),
                index=int(ticks.index[i]),
                reason=REASON[int(verdict[i])],
                detail=self._detail(int(verdict[i]), int(slot[i]), ticks, i),
                key=ticks.run.key(int(ticks.record[i])),
                value=ticks.original(i),
                known_at=int(ticks.known_at[i]),
            )
            for i in np.flatnonzero(verdict > kernel.APPLIED).tolist()
        ]

    def _detail(self, verdict: int, slot: int, ticks: Ticks, i: int) -> str:
        if verdict == kernel.WRONG_PARTITION:
            return (
                f"came from partition {ticks.run.partition}, its entity is at home in "
                f"{int(self._home_partition[slot])}: do all producers use the same partitioner? "
                "(librdkafka needs partitioner=murmur2_random)"
            )
        if verdict == kernel.DUPLICATE:
            return f"ts and seq {int(ticks.seq[i])} are those of an earlier tick"
        return f"more than {ticks.source.skew_ns / 1e9:g} s behind the newest tick of its entity"

    def _restore_one(self, slot: int, state: EntityState) -> None:
        self._home_topic[slot] = self._topic(state.origin.topic_id)
        self._home_partition[slot] = state.origin.partition
        self._offset[slot] = state.origin.offset
        self._index[slot] = state.origin.index
        self._sequence[slot] = state.sequence
        self._count[slot] = state.count
        self._fill[slot] = state.fill
        self._event[slot] = state.ticks["event_time"][-1]

        def put(ring: Any, name: str) -> int:
            newest = state.ticks[name][-ring.shape[1] :]
            oldest: int = state.count - len(newest)
            ring[slot, np.arange(oldest, state.count) & (ring.shape[1] - 1)] = newest
            return oldest

        put(self._ring_time, "tick_time")
        put(self._ring_seq, "seq")
        first = put(self._ring_fields, "fields") + 1  # the oldest value at hand has none before it
        fill_returns(slot, first, state.count, self._code, self._ring_fields, self._ring_returns)

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
        oldest = slots[np.argsort(self._used[slots], kind="stable")[:many]]
        # what this run has restored already must stay
        unused = oldest[self._used[oldest] <= self._run].tolist()
        self.forget([self._entities.names[slot] for slot in unused])

    def _grow(self) -> None:
        """Make the columns twice as long."""

        def longer(column: Any) -> Any:
            # new zeros take no memory before they are written
            grown = np.zeros((2 * len(column), *column.shape[1:]), column.dtype)
            grown[: len(column)] = column
            return grown

        self._home_topic = longer(self._home_topic)
        self._home_partition = longer(self._home_partition)
        self._offset = longer(self._offset)
        self._index = longer(self._index)
        self._sequence = longer(self._sequence)
        self._count = longer(self._count)
        self._fill = longer(self._fill)
        self._event = longer(self._event)
        self._ring_time = longer(self._ring_time)
        self._ring_seq = longer(self._ring_seq)
        self._ring_fields = longer(self._ring_fields)
        self._ring_returns = longer(self._ring_returns)
        self._used = longer(self._used)
        self._number = longer(self._number)
