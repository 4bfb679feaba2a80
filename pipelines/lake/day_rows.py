"""The rows of a day as Postgres copies them out, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BufferedWriter, RawIOBase
from typing import Any, NamedTuple

import numpy as np

from pipelines.lake.errors import OtherFields
from pipelines.lake.snapshot import DaySnapshot
from pipelines.stores.postgres.row_copy import CHUNK_BYTES, HEADER, TRAILER, sized
from registry.definitions import RowSchema, Source
from registry.formats.lake import DAY_NS
from registry.formats.loaded_rows import loaded
from registry.resources import sql

DAY_ROWS = sql(__package__, "day_rows")

ROWS_A_GROUP = 131_072
"""Rows of a row group: what engines read, or pass over, as a unit."""

GROUP_BYTES = 96_000_000
"""Bytes of rows, as they are copied, that are in memory at once: of wide rows a group has fewer."""

TEXT_STEP = 16


class Widths(NamedTuple):
    """Bytes in which the texts of rows are copied: those of entities, and those of `seq`."""

    entity: int = 16
    seq_text: int = 0


Take = Callable[[int, Any], None]
"""Takes the id of a row schema, the negative one for loaded rows, and rows of it, by entity, event
time, sequence and revision."""


class DayRows:
    """Reads the rows of days of a source; it remembers how long texts are."""

    def __init__(self, rows_a_group: int = ROWS_A_GROUP) -> None:
        self.rows_a_group = rows_a_group
        """The most rows that are given at once."""
        self._widths: dict[str, Widths] = {}

    def copy(
        self,
        snapshot: DaySnapshot,
        source: Source,
        day: int,
        begin: Callable[[], Take],
    ) -> None:
        """Give the rows of a day, one row schema after the other, to what `begin` makes.

        That may be made again where texts are longer than was thought: what was taken before does
        not count. Raises `OtherFields`, and SQLAlchemy's `DBAPIError`.
        """
        schemas = [one for one in snapshot.catalog.schemas.values() if one.source == source.name]
        if not schemas:
            return
        while True:
            widths = self._widths.get(source.name, Widths())
            needed = self._attempt(snapshot, source, schemas, day, (widths, begin()))
            if needed == widths:
                return
            self._widths[source.name] = needed

    def _attempt(
        self,
        snapshot: DaySnapshot,
        source: Source,
        schemas: Sequence[RowSchema],
        day: int,
        how: tuple[Widths, Take],
    ) -> Widths:
        """Give the rows on as long as their texts fit; returns how wide these have to be."""
        widths, take = how
        fields, features = len(source.fields), max(len(one.features) for one in schemas)
        dtype = row_dtype(fields, features, widths)
        most = max(1, min(self.rows_a_group, GROUP_BYTES // dtype.itemsize))
        by_id = {number: one for one in schemas for number in (one.id, loaded(one.id))}
        needed = widths

        def taken(rows: Any) -> None:
            nonlocal needed
            needed = _needed(rows, needed)
            if needed != widths:
                return
            cuts = np.flatnonzero(np.diff(rows["schema_id"])) + 1
            for part in np.split(rows, cuts):
                number = int(part["schema_id"][0])
                _check_counts(part, source, by_id[number])
                take(number, part)

        wanted: Mapping[str, Any] = {
            "schemas": list(by_id),
            "begin": day * DAY_NS,
            "end": (day + 1) * DAY_NS,
            "entity_bytes": widths.entity,
            "seq_text_bytes": widths.seq_text,
            "fields": fields,
            "features": features,
            "padding": bytes(max(widths.entity, widths.seq_text, 20 + 12 * max(fields, features))),
        }
        pieces = _Pieces(dtype, most, taken)
        buffered = BufferedWriter(pieces, CHUNK_BYTES)
        snapshot.copy(DAY_ROWS, wanted, buffered)
        buffered.flush()
        pieces.end()
        return needed


class _Pieces(RawIOBase):
    """What a COPY is written to: gives whole rows on, `most` at a time.

    A row comes in a piece of its own: with a buffer of C before this only each megabyte does.
    """

    def __init__(self, dtype: np.dtype[np.void], most: int, take: Callable[[Any], None]) -> None:
        self._dtype = dtype
        self._take = take
        self._buffer = bytearray()
        self._header = len(HEADER)
        self._most = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        skipped = min(self._header, len(data))
        self._header -= skipped
        self._buffer += data[skipped:]
        while len(self._buffer) >= self._most * self._dtype.itemsize + len(TRAILER):
            self._give(self._most)
        return len(data)

    def end(self) -> None:
        """Give the rest of the rows."""
        self._give((len(self._buffer) - len(TRAILER)) // self._dtype.itemsize)

    def _give(self, n: int) -> None:
        if n <= 0:
            return
        given = self._buffer
        self._buffer = bytearray(memoryview(given)[n * self._dtype.itemsize :])
        self._take(np.frombuffer(given, self._dtype, n))


def row_dtype(fields: int, features: int, widths: Widths) -> np.dtype[np.void]:
    """A row of `day_rows.sql` in PostgreSQL's binary COPY format."""
    value = np.dtype([("size", ">i4"), ("value", ">f8")])
    columns: list[Any] = [
        ("columns", ">i2"),
        *sized("schema_id", ">i4"),
        *sized("event_time", ">i8"),
        *sized("sequence", ">i8"),
        *sized("revision", ">i2"),
        *sized("tick_time", ">i8"),
        *sized("seq", ">i8"),
        *sized("has_seq", "?"),
        *sized("op", ">i2"),
        *sized("known_at", ">i8"),
        *sized("topic_id", "V16"),
        *sized("partition", ">i4"),
        *sized("offset", ">i8"),
        *sized("index", ">i4"),
        *sized("field_count", ">i4"),
        *sized("feature_count", ">i4"),
        *sized("status_count", ">i4"),
        *sized("entity_length", ">i4"),
        *sized("seq_text_length", ">i4"),
        *sized("entity", f"S{widths.entity}"),
        ("seq_text_size", ">i4"),
        ("seq_text", f"S{widths.seq_text}" if widths.seq_text else "V0"),
        ("fields_size", ">i4"),
        ("fields", value, (fields,)),
        ("features_size", ">i4"),
        ("features", value, (features,)),
        ("status_size", ">i4"),
        ("status", "u1", (features,)),
    ]
    return np.dtype(columns)


def _needed(rows: Any, widths: Widths) -> Widths:
    longest = int(rows["entity_length"].max()), int(rows["seq_text_length"].max())
    return Widths(*map(_wider, longest, widths))


def _wider(longest: int, width: int) -> int:
    return max(width, -(-longest // TEXT_STEP) * TEXT_STEP)


def _check_counts(rows: Any, source: Source, schema: RowSchema) -> None:
    features = len(schema.features)
    right = rows["field_count"] == len(source.fields)
    right &= (rows["feature_count"] == features) & (rows["status_count"] == features)
    if not right.all():
        raise OtherFields(source.name, schema.id)
