"""Rows as the product computes them, without a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from pipelines.compute.batch import Batch
from pipelines.compute.entity_state import EntityState
from pipelines.compute.window_table import WindowTable
from pipelines.ticks.columns import Ticks
from pipelines.ticks.decoder import Decoder
from registry.definitions import RowSchema, Source
from registry.language.program import Program
from tests.oracle.messages import Record
from tests.support.logs import runs
from tests.support.shipped import PROGRAM, SCHEMA, SOURCE
from tests.support.states import known


class Computed(NamedTuple):
    """A source, and what is computed of its ticks."""

    source: Source
    schema: RowSchema
    program: Program


NOTHING: Mapping[str, EntityState] = MappingProxyType({})
"""The states of a store that knows no entity."""

PRICES = Computed(SOURCE, SCHEMA, PROGRAM)


def table(of: Computed = PRICES) -> WindowTable:
    return WindowTable(*of)


def materialize(
    records: Sequence[Record], cuts: Sequence[int] = (), of: Computed = PRICES
) -> list[Batch]:
    """The batches of the runs that `records` are cut into."""
    decoder, windows, batches = Decoder(of.source), table(of), []
    for run in runs(records, cuts):
        ticks = decoder.decode(run)
        batches.append(apply_new(windows, ticks))
    return batches


def apply_new(
    windows: WindowTable, ticks: Ticks, states: Mapping[str, EntityState] = NOTHING
) -> Batch:
    """The batch of a run, over a store that has `states`."""
    touched = windows.touch(ticks)
    missing = windows.missing(touched)
    names = windows.names(missing)
    windows.restore(missing, known(names, states, len(windows.source.fields)))
    return windows.apply(ticks, touched)


def row_bytes(batches: Sequence[Batch]) -> list[tuple[object, ...]]:
    """Every row with the bits of its doubles, in order."""
    return [
        (
            batch.names[batch.name[i]],
            *(int(column[i]) for column in (batch.event_time, batch.sequence, batch.tick_time)),
            *(int(column[i]) for column in (batch.seq, batch.op, batch.offset, batch.index)),
            *(column[i].tobytes() for column in (batch.fields, batch.features, batch.status)),
        )
        for batch in batches
        for i in range(len(batch))
    ]
