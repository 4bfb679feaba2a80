"""Rows of some entities as Postgres has them, in all row schemas, as ticks in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.backfill.ticks import IN_KEY_ORDER
from pipelines.runtime.array_types import Bytes, Floats, Int64s
from pipelines.stores.postgres.row_copy import CHUNK_BYTES, HEADER, TRAILER, array_of, sized
from pipelines.verify.parts import Part
from registry.definitions import RowSchema, Source
from registry.resources import sql

ROWS, EARLIER_ROWS = sql(__package__, "rows"), sql(__package__, "earlier_rows")
COPY = "COPY ({}) TO STDOUT (FORMAT binary)"
ARRAY_BYTES, ELEMENT_BYTES = 20, 12
"""Bytes of an array of doubles as Postgres sends it: its header, and each element."""

Flags = NDArray[np.bool_]


class SchemaRows(NamedTuple):
    """The rows of r ticks in a row schema."""

    schema: RowSchema
    tick: Int64s
    """(r,) Which tick each is of."""
    values: Floats
    """(r, features)"""
    statuses: Bytes
    """(r, features)"""
    has_shape: Flags
    """(r,) Whether it has as many fields, features and statuses as it should."""
    has_same_fields: Flags
    """(r,) Whether its raw fields are those of the tick's first row."""


class StoredTicks(NamedTuple):
    """n ticks of parts, those of each in the order of its log, and their rows."""

    parts: Sequence[Part]
    part: Int64s
    """(n,) The index of each tick's part."""
    event_time: Int64s
    sequence: Int64s
    op: Bytes
    fields: Floats
    """(n, fields of the source) NaN where a tick has none."""
    is_earlier: Flags
    """(n,) Those that are only there to be in windows."""
    begins: Flags
    """(parts,) Whether the first tick of a part is the first one that is stored of its entity."""
    rows: Sequence[SchemaRows]
    left: Sequence[Part]
    """What was not read, of the parts that were asked for."""
    longest: int
    """Rows of the part that has the most."""


class _Rows(NamedTuple):
    """Rows as they were copied, all of the row schema of a number, and all earlier ones or none."""

    copied: Any
    schema: int
    is_earlier: bool

    @property
    def part(self) -> Int64s:
        found: Int64s = self.copied["number"].astype(np.int64) - 1
        return found


def read_ticks(
    cursor: Any,
    source: Source,
    schemas: Sequence[RowSchema],
    parts: Sequence[Part],
    limits: tuple[int, int],
) -> StoredTicks:
    """The ticks of parts, or of the first ones of them where there are many.

    `limits` are the most rows that each part has in a row schema, and the number of ticks that are
    in the window of the next one. To be called in a transaction that sees one moment.
    """
    most, before = limits
    cursor.execute(IN_KEY_ORDER)
    reader = _Reader(cursor, source, parts)
    found = [_Rows(reader.rows(schema, most), n, False) for n, schema in enumerate(schemas)]
    longest = max((int(np.bincount(rows.part).max(initial=0)) for rows in found), default=0)
    cut = _cut(found, most)
    left: list[Part] = []
    if cut is not None:
        number, time, sequence = cut
        found = [_kept(rows, number, time, sequence) for rows in found]
        first = parts[number]._replace(after_time=time, after_sequence=sequence)
        left = [first, *parts[number + 1 :]]
        parts = parts[: number + 1]
    late = [number for number, part in enumerate(parts) if not part.is_from_beginning]
    if late:
        for n, schema in enumerate(schemas):
            found.append(_Rows(reader.earlier(schema, late, before), n, True))
    return _merged(source, schemas, parts, found, before)._replace(left=left, longest=longest)


class _Reader:
    """Copies rows out of Postgres."""

    def __init__(self, cursor: Any, source: Source, parts: Sequence[Part]) -> None:
        self._cursor = cursor
        self._fields = len(source.fields)
        self._parts = parts

    def rows(self, schema: RowSchema, most: int) -> Any:
        past = [part.past_time for part in self._parts]
        wanted = {**_named(self._parts), "past_times": past, "most": most}
        return self._copied(ROWS, schema, wanted)

    def earlier(self, schema: RowSchema, numbers: Sequence[int], before: int) -> Any:
        named = _named([self._parts[number] for number in numbers])
        copied = self._copied(EARLIER_ROWS, schema, {**named, "before": before}).copy()
        copied["number"] = np.array([*numbers, 0])[copied["number"].astype(np.int64) - 1] + 1
        return copied

    def _copied(self, statement: str, schema: RowSchema, wanted: dict[str, Any]) -> Any:
        features = len(schema.features)
        field_bytes = ARRAY_BYTES + ELEMENT_BYTES * self._fields
        feature_bytes = ARRAY_BYTES + ELEMENT_BYTES * features
        wanted |= {
            "schema": schema.id,
            "features": features,
            "field_bytes": field_bytes,
            "feature_bytes": feature_bytes,
            "padding": bytes(max(field_bytes, feature_bytes)),
        }
        sent = BytesIO()
        made = self._cursor.mogrify(statement, wanted).decode()
        self._cursor.copy_expert(COPY.format(made), sent, CHUNK_BYTES)
        rows = sent.getbuffer()[len(HEADER) : -len(TRAILER)]
        return np.frombuffer(rows, _dtype(self._fields, features))


def _named(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "entities": [part.entity for part in parts],
        "after_times": [part.after_time for part in parts],
        "after_sequences": [part.after_sequence for part in parts],
    }


def _cut(found: Sequence[_Rows], most: int) -> tuple[int, int, int] | None:
    """The last tick behind which there may be some that were not read, with its part's index."""
    ends: list[tuple[int, int, int]] = []
    for rows in found:
        part = rows.part
        full = np.flatnonzero(np.bincount(part) >= most)
        for number in full[:1].tolist():
            last = rows.copied[int(np.flatnonzero(part == number)[-1])]
            ends.append((number, int(last["event_time"]), int(last["sequence"])))
    return min(ends, default=None)


def _kept(rows: _Rows, number: int, time: int, sequence: int) -> _Rows:
    part, copied = rows.part, rows.copied
    times, sequences = copied["event_time"], copied["sequence"]
    kept = (times < time) | ((times == time) & (sequences <= sequence))
    return rows._replace(copied=copied[(part < number) | ((part == number) & kept)])


def _merged(
    source: Source,
    schemas: Sequence[RowSchema],
    parts: Sequence[Part],
    found: Sequence[_Rows],
    before: int,
) -> StoredTicks:
    """One tick for each that is there, in however many row schemas it is."""

    def column(name: str, kind: Any) -> Any:
        columns = [rows.copied[name].astype(kind) for rows in found]
        return np.concatenate([np.zeros(0, kind), *columns])

    part = column("number", np.int64) - 1
    time, sequence = column("event_time", np.int64), column("sequence", np.int64)
    op, length = column("op", np.uint8), len(source.fields)
    fields = np.concatenate([np.zeros((0, length)), *(_fields(rows) for rows in found)])
    earlier = np.concatenate(
        [np.zeros(0, np.bool_), *(np.full(len(r.copied), r.is_earlier) for r in found)]
    )
    order = _order(part, time, sequence)
    starts = np.ones(len(order), np.bool_)
    starts[1:] = np.logical_or.reduce([np.diff(one[order]) != 0 for one in (part, time, sequence)])
    tick = np.empty(len(order), np.int64)
    tick[order] = np.cumsum(starts) - 1
    first = order[starts]
    ticks = StoredTicks(
        parts,
        *(part[first], time[first], sequence[first], op[first], fields[first], earlier[first]),
        begins=np.ones(len(parts), np.bool_),
        rows=list(_schema_rows(schemas, found, tick, fields, fields[first])),
        left=(),
        longest=0,
    )
    return _without_surplus(ticks, before)


def _order(part: Int64s, time: Int64s, sequence: Int64s) -> NDArray[np.intp]:
    """The order of ticks; mostly they are in it, where all are of one row schema."""
    steps = [np.diff(one) for one in (part, time, sequence)]
    ahead = (steps[0] > 0) | (
        (steps[0] == 0) & ((steps[1] > 0) | ((steps[1] == 0) & (steps[2] >= 0)))
    )
    return np.arange(len(part)) if ahead.all() else np.lexsort((sequence, time, part))


def _schema_rows(
    schemas: Sequence[RowSchema],
    found: Sequence[_Rows],
    tick: Int64s,
    fields: Floats,
    of_ticks: Floats,
) -> Iterator[SchemaRows]:
    begin = 0
    for rows in found:
        end, copied = begin + len(rows.copied), rows.copied
        length, of_features = fields.shape[1], len(schemas[rows.schema].features)
        same = fields[begin:end].view(np.int64) == of_ticks[tick[begin:end]].view(np.int64)
        if len(copied):
            yield SchemaRows(
                schema=schemas[rows.schema],
                tick=tick[begin:end],
                values=copied["features"]["value"].astype(np.float64),
                statuses=copied["status"].astype(np.uint8),
                has_shape=_has_shape(copied, "fields", length)
                & _has_shape(copied, "features", of_features)
                & (copied["statuses"] == of_features),
                has_same_fields=same.all(axis=1),
            )
        begin = end


def _without_surplus(ticks: StoredTicks, before: int) -> StoredTicks:
    """Without the earlier ticks that are in no window: each row schema gave as many as of all.

    The others of an entity may have gaps between them.
    """
    earlier = np.bincount(ticks.part[ticks.is_earlier], minlength=len(ticks.parts))
    late = np.array([not part.is_from_beginning for part in ticks.parts], np.bool_)
    begins = ~late | (earlier < before)
    surplus = np.maximum(earlier - before, 0)
    if not surplus.any():
        return ticks._replace(begins=begins)
    place = np.arange(len(ticks.part)) - np.searchsorted(ticks.part, ticks.part)
    kept = place >= surplus[ticks.part]
    number = np.cumsum(kept) - 1
    return ticks._replace(
        part=ticks.part[kept],
        event_time=ticks.event_time[kept],
        sequence=ticks.sequence[kept],
        op=ticks.op[kept],
        fields=ticks.fields[kept],
        is_earlier=ticks.is_earlier[kept],
        begins=begins,
        rows=[_only(rows, kept[rows.tick], number) for rows in ticks.rows],
    )


def _only(rows: SchemaRows, which: Flags, number: Int64s) -> SchemaRows:
    """Some of the rows, whose ticks have got other numbers."""
    return SchemaRows(
        rows.schema,
        number[rows.tick[which]],
        rows.values[which],
        rows.statuses[which],
        rows.has_shape[which],
        rows.has_same_fields[which],
    )


def _fields(rows: _Rows) -> Floats:
    found: Floats = rows.copied["fields"]["value"].astype(np.float64)
    wrong = ~_has_shape(rows.copied, "fields", found.shape[1])
    if wrong.any():
        found[wrong] = np.nan
    return found


def _has_shape(copied: Any, name: str, length: int) -> Flags:
    found: Flags = (
        (copied[f"{name}_dimensions"] == 1)
        & (copied[f"{name}_has_nulls"] == 0)
        & (copied[f"{name}_length"] == length)
    )
    return found


def _dtype(fields: int, features: int) -> np.dtype[np.void]:
    """A row of `rows.sql` in PostgreSQL's binary COPY format."""
    columns: list[Any] = [
        ("columns", ">i2"),
        *sized("number", ">i8"),
        *sized("event_time", ">i8"),
        *sized("sequence", ">i8"),
        *sized("op", ">i2"),
        *array_of("fields", fields),
        *array_of("features", features),
        *sized("statuses", ">i4"),
        ("status_size", ">i4"),
        ("status", "u1", (features,)),
    ]
    return np.dtype(columns)
