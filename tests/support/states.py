"""Window states that a store gives, entity by entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.compute.entity_names import EntityNames
from pipelines.compute.entity_state import EntityState, LoadedStates, StateColumns, tick_dtype
from pipelines.stores.sink import Sink
from registry.definitions import Source
from registry.formats.origin import Origin


class Tick(NamedTuple):
    """A tick that a state remembers."""

    time: int
    seq: int
    fields: bytes
    """Doubles: two that are no number are the same only by their bits."""


class State(NamedTuple):
    """The state of one entity; see `pipelines.compute.entity_state.EntityState`."""

    origin: Origin
    sequence: int
    event_time: int
    count: int
    fill: int
    ticks: list[Tick]


def loaded(
    sink: Sink, source: Source, entities: Sequence[str], depth: int, before: Origin
) -> dict[str, State]:
    """The states that a sink loads."""
    return by_name(entities, sink.load(source, EntityNames.of(entities), depth, before))


def known(entities: Sequence[str], states: Mapping[str, EntityState], fields: int) -> LoadedStates:
    """What a store gives that has these states; a tick has so many `fields`."""
    which = [i for i, name in enumerate(entities) if name in states]
    found = [states[entities[i]] for i in which]
    ticks = np.concatenate([np.empty(0, tick_dtype(fields)), *(s.ticks for s in found)])

    def column(values: Sequence[Any], dtype: Any = np.int64) -> Any:
        return np.array(values, dtype)

    return LoadedStates(
        column(which),
        column([state.origin.topic_id for state in found], "V16"),
        StateColumns(
            partition=column([state.origin.partition for state in found], np.int32),
            offset=column([state.origin.offset for state in found]),
            message_index=column([state.origin.index for state in found], np.int32),
            sequence=column([state.sequence for state in found]),
            event_time=column([state.event_time for state in found]),
            accepted=column([state.count for state in found]),
            fill=column([state.fill for state in found]),
            ends=np.cumsum([0, *(len(state.ticks) for state in found)], dtype=np.int64),
            tick_time=np.ascontiguousarray(ticks["tick_time"]),
            seq=np.ascontiguousarray(ticks["seq"]),
            fields=np.ascontiguousarray(ticks["fields"]),
        ),
    )


def by_name(entities: Sequence[str], loaded: LoadedStates) -> dict[str, State]:
    """The states of those of `entities` that have one."""
    return {entities[which]: _state(loaded, k) for k, which in enumerate(loaded.which.tolist())}


def _state(loaded: LoadedStates, k: int) -> State:
    states = loaded.states
    origin = (column[k] for column in (states.partition, states.offset, states.message_index))
    ticks = slice(states.ends[k], states.ends[k + 1])
    return State(
        Origin(loaded.topic_id[k].tobytes(), *map(int, origin)),
        *(int(column[k]) for column in (states.sequence, states.event_time)),
        *(int(column[k]) for column in (states.accepted, states.fill)),
        [
            Tick(time, seq, fields.tobytes())
            for time, seq, fields in zip(
                states.tick_time[ticks].tolist(),
                states.seq[ticks].tolist(),
                states.fields[ticks],
                strict=True,
            )
        ],
    )
