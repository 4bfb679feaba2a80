"""Compares the values of stored ticks with those that the kernel computes of their raw fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.compute.recomputation import AcceptedTicks, Recomputation
from pipelines.compute.window_table import NewestValues
from pipelines.runtime.array_types import Bytes, Floats, Int64s
from pipelines.ticks.columns import TRADE
from pipelines.verify.history_begins import Said, beyond_history
from pipelines.verify.stored_blocks import BlockValues
from pipelines.verify.stored_rows import SchemaRows, StoredTicks
from registry.comparisons import Difference, Kind, Place, Tally, bits_text
from registry.definitions import Catalog, RowSchema
from registry.formats.entity_name import key_values
from registry.formats.row import ValueStatus
from registry.language.program import compile_program, lookback

CLOSED = int(ValueStatus.CLOSED)
UNKNOWN_STATUS = "unknown"

Flags = NDArray[np.bool_]


class Counted(NamedTuple):
    """What was compared: the values of rows, and those of blocks."""

    rows: Tally
    blocks: Tally


class Recomputed:
    """Computes all versions of a source, and compares what is stored of them."""

    def __init__(self, catalog: Catalog, source: str) -> None:
        self.source = catalog.sources[source]
        self.schemas = sorted(
            (one for one in catalog.schemas.values() if one.source == source),
            key=lambda schema: schema.id,
        )
        refs = [ref for ref, version in catalog.features.items() if version.source == source]
        self._index = {ref: number for number, ref in enumerate(refs)}
        program = compile_program(catalog, RowSchema(0, source, tuple(refs)))
        self._computation = Recomputation(program)
        self.versions = len(refs)
        """Versions, each of which has a value of each tick."""
        self.before = self._computation.before
        """Ticks of an entity that are in the window of the next one."""
        self._depth = np.array(
            [lookback(catalog.features[ref].expression, self.source, ref) for ref in refs], np.int64
        )

    def compare(self, ticks: StoredTicks, blocks: Sequence[BlockValues]) -> Counted:
        """Compare the rows and the blocks of some ticks."""
        counted = Counted(Tally(), Tally())
        if len(ticks.part):
            computed = self._computed(ticks)
            said = [
                *(self._said(one.schema.features, one.tick, one.statuses) for one in ticks.rows),
                *(self._said((one.ref,), one.tick, one.status[:, None]) for one in blocks),
            ]
            beyond = beyond_history(ticks, said, self._depth)
            for rows in ticks.rows:
                self._compare_rows(ticks, rows, computed, beyond, counted.rows)
            for values in blocks:
                self._compare_blocks(ticks, values, computed, beyond, counted.blocks)
            self._find_holes(ticks, blocks, counted.blocks)
        else:
            counted.blocks.unverifiable += sum(len(one.value) for one in blocks)
        return counted

    def _said(self, refs: Sequence[str], tick: Int64s, statuses: Bytes) -> Said:
        there = tick >= 0
        return Said(tick[there], statuses[there], self._depth[[self._index[ref] for ref in refs]])

    def _computed(self, ticks: StoredTicks) -> NewestValues:
        return self._computation.compute(
            AcceptedTicks(
                entity=ticks.part.astype(np.int32),
                op=ticks.op,
                field=ticks.fields[:, self._computation.fields],
                closed=self._closed(ticks),
            )
        )

    def _closed(self, ticks: StoredTicks) -> Flags:
        """Of each part whether its first tick left it closed and does not say so by itself."""
        n = len(ticks.parts)
        first = np.flatnonzero(np.diff(ticks.part, prepend=-1))
        is_first = np.zeros(len(ticks.part), np.bool_)
        is_first[first] = True
        closed, is_open = np.zeros((2, n), np.bool_)
        for rows in ticks.rows:
            which = np.flatnonzero(is_first[rows.tick] & rows.has_shape)
            part, statuses = ticks.part[rows.tick[which]], rows.statuses[which]
            closed[part[(statuses == CLOSED).all(axis=1)]] = True
            is_open[part[(statuses != CLOSED).any(axis=1)]] = True
        part = ticks.part[first]
        closed[part] &= ~is_open[part] & (ticks.is_earlier[first] | (ticks.op[first] != TRADE))
        return closed

    def _compare_rows(
        self,
        ticks: StoredTicks,
        rows: SchemaRows,
        computed: NewestValues,
        beyond: Flags,
        tally: Tally,
    ) -> None:
        wanted = ~ticks.is_earlier[rows.tick]
        for flags, kind in ((rows.has_shape, Kind.SHAPE), (rows.has_same_fields, Kind.FIELDS)):
            wrong = np.flatnonzero(wanted & ~flags)
            shown = wrong[: tally.room].tolist()
            listed = [self._difference(ticks, rows, number, kind) for number in shown]
            tally.many_differ(kind, len(wrong), listed)
        which = np.flatnonzero(wanted & rows.has_shape)
        tick, columns = rows.tick[which], [self._index[ref] for ref in rows.schema.features]
        found = NewestValues(rows.values[which], rows.statuses[which])
        expected = NewestValues(
            computed.features[tick][:, columns], computed.status[tick][:, columns]
        )
        names = self._cells(ticks, tick, rows.schema.features)
        _compare(found, expected, beyond[tick][:, columns], names, (Place.ROWS, tally))

    def _compare_blocks(
        self,
        ticks: StoredTicks,
        values: BlockValues,
        computed: NewestValues,
        beyond: Flags,
        tally: Tally,
    ) -> None:
        lost = np.flatnonzero(values.tick < 0)
        for number in lost.tolist():
            own = np.flatnonzero(ticks.part == values.part[number])
            if not len(own) or values.event_time[number] < ticks.event_time[own[0]]:
                tally.unverifiable += 1
                continue
            part = ticks.parts[int(values.part[number])]
            tally.differs(
                Difference(
                    *(Place.BLOCKS, Kind.ABSENT, self.source.name, key_values(part.entity)),
                    *(int(values.event_time[number]), int(values.sequence[number]), values.ref),
                    *(bits_text(float(values.value[number])), "no such tick is stored"),
                )
            )
        which = np.flatnonzero(values.tick >= 0)
        tick, column = values.tick[which], self._index[values.ref]
        found = NewestValues(values.value[which, None], values.status[which, None])
        expected = NewestValues(
            computed.features[tick][:, [column]], computed.status[tick][:, [column]]
        )
        names = self._cells(ticks, tick, (values.ref,))
        _compare(found, expected, beyond[tick][:, [column]], names, (Place.BLOCKS, tally))

    def _find_holes(self, ticks: StoredTicks, blocks: Sequence[BlockValues], tally: Tally) -> None:
        """Count the ticks between those of an entity's blocks that neither row nor block has."""
        for values in (one for one in blocks if one.whole):
            has = np.zeros(len(ticks.part), np.bool_)
            has[values.tick[values.tick >= 0]] = True
            between = _between(ticks, values)
            for rows in ticks.rows:
                if values.ref in rows.schema.features:
                    has[rows.tick] = True
            for tick in np.flatnonzero(between & ~has & ~ticks.is_earlier).tolist():
                tally.differs(
                    self._cells(ticks, np.array([tick]), (values.ref,)).difference(
                        (Place.BLOCKS, Kind.ABSENT), (0, 0), ("no value", "a value")
                    )
                )

    def _cells(self, ticks: StoredTicks, tick: Int64s, refs: Sequence[str | None]) -> _Cells:
        return _Cells(self.source.name, ticks, tick, refs)

    def _difference(
        self, ticks: StoredTicks, rows: SchemaRows, number: int, kind: Kind
    ) -> Difference:
        cells = self._cells(ticks, rows.tick[number : number + 1], (None,))
        told = f"a row of the row schema {rows.schema.id}"
        expected = "that of its row schema" if kind is Kind.SHAPE else "those of its other row"
        return cells.difference((Place.ROWS, kind), (0, 0), (told, expected))


class _Cells(NamedTuple):
    """Names the values of some ticks, one of each feature."""

    source: str
    ticks: StoredTicks
    tick: Int64s
    refs: Sequence[str | None]

    def difference(
        self, what: tuple[Place, Kind], cell: tuple[int, int], told: tuple[str, str]
    ) -> Difference:
        place, kind = what
        tick = int(self.tick[cell[0]])
        part = self.ticks.parts[int(self.ticks.part[tick])]
        return Difference(
            *(place, kind, self.source, key_values(part.entity)),
            *(int(self.ticks.event_time[tick]), int(self.ticks.sequence[tick])),
            self.refs[cell[1]],
            *told,
        )


def _compare(
    found: NewestValues,
    expected: NewestValues,
    beyond: Flags,
    cells: _Cells,
    into: tuple[Place, Tally],
) -> None:
    """Compare bits and statuses; all NaN are equal.

    What differs where it is `beyond` is unknown.
    """
    place, tally = into
    statuses = found.status != expected.status
    bits = _bits(found.features) != _bits(expected.features)
    unknown = beyond & (statuses | bits)
    tally.values += found.status.size - int(unknown.sum())
    tally.unverifiable += int(unknown.sum())
    for kind, differs in (
        (Kind.STATUS, statuses & ~unknown),
        (Kind.VALUE, bits & ~statuses & ~unknown),
    ):
        number = int(differs.sum())
        if number:
            first = np.argwhere(differs)[: tally.room].tolist()
            listed = [
                cells.difference((place, kind), (i, j), (_text(found, i, j), _text(expected, i, j)))
                for i, j in first
            ]
            tally.many_differ(kind, number, listed)


def _bits(values: Floats) -> NDArray[np.int64]:
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def _text(values: NewestValues, row: int, column: int) -> str:
    status = int(values.status[row, column])
    known = status in ValueStatus.__members__.values()
    name = ValueStatus(status).name.lower() if known else f"{UNKNOWN_STATUS} {status}"
    return f"{bits_text(float(values.features[row, column]))}, {name}"


def _between(ticks: StoredTicks, values: BlockValues) -> Flags:
    """The ticks that lie between the first and the last one that blocks have of their entity."""
    n = len(ticks.parts)
    tick, part = values.tick[values.tick >= 0], values.part[values.tick >= 0]
    first, last = np.full(n, len(ticks.part)), np.full(n, -1)
    np.minimum.at(first, part, tick)
    np.maximum.at(last, part, tick)
    index = np.arange(len(ticks.part))
    found: Flags = (index > first[ticks.part]) & (index < last[ticks.part])
    return found
