"""Rows as the product computes them, without a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.compute.batch import Batch
from pipelines.compute.window_table import WindowTable
from pipelines.ticks.decoder import Decoder
from registry.definitions import RowSchema, Source
from registry.language.program import Program
from tests.oracle.messages import Record
from tests.support.logs import runs
from tests.support.shipped import PROGRAM, SCHEMA, SOURCE


class Computed(NamedTuple):
    """A source, and what is computed of its ticks."""

    source: Source
    schema: RowSchema
    program: Program


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
        windows.restore(windows.missing(ticks), {})
        batches.append(windows.apply(ticks))
    return batches


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
