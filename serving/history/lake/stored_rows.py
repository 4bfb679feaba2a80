"""The rows of a stretch of time as Postgres has them, of some entities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from registry.database.repair_tables import CANCELLED
from registry.formats.loaded_rows import row_schema_of
from registry.formats.row import ValueStatus
from registry.resources import sql
from serving.history.lake.day_ticks import LACKS, DayRows

ROWS_OF_DAY = sql(__package__, "rows_of_day")
HEADER_BYTES, TRAILER_BYTES = 19, 2
LAST_REVISION = 32_767

Copy = Callable[[str, Mapping[str, Any]], memoryview]
"""The rows of a statement for parameters, in PostgreSQL's binary COPY format."""


class Schemas(NamedTuple):
    """The row schemas of a source, with those of loaded rows."""

    ids: Sequence[int]
    features: Mapping[int, Sequence[str]]
    """The versions of each by its id, which is positive, `name@version`."""

    @property
    def most_features(self) -> int:
        """Features of the widest one."""
        return max((len(one) for one in self.features.values()), default=0)


class Stretch(NamedTuple):
    """Rows from one event time up to another one, nanoseconds UTC, with those of repairs or not."""

    begin: int
    end: int
    repaired: bool


def stored_rows(
    copy: Copy,
    schemas: Schemas,
    stretch: Stretch,
    entities: tuple[Sequence[int], Sequence[str]],
    refs: Sequence[str],
    most_bytes: int,
) -> list[DayRows]:
    """The rows of entities, their numbers and names, about `most_bytes` in memory at a time.

    Those of an entity are in one part. Raises SQLAlchemy's `DBAPIError`.
    """
    numbers, names = entities
    if not names or not schemas.ids:
        return []
    dtype = row_dtype(schemas.most_features)
    most = max(1, most_bytes // dtype.itemsize)
    wanted = {
        "numbers": list(numbers),
        "entities": list(names),
        "schemas": list(schemas.ids),
        "features": schemas.most_features,
        "padding": bytes(20 + 12 * schemas.most_features),
        "revision": LAST_REVISION if stretch.repaired else 0,
        "begin": stretch.begin,
        "end": stretch.end,
        "most": most + 1 if len(names) > 1 else None,
    }
    sent = copy(ROWS_OF_DAY, wanted)
    rows: Any = np.frombuffer(sent[HEADER_BYTES:-TRAILER_BYTES], dtype)
    if len(rows) > most and len(names) > 1:
        del rows, sent
        half = len(names) // 2
        found = []
        for part in (slice(half), slice(half, None)):
            of_part = numbers[part], names[part]
            found += stored_rows(copy, schemas, stretch, of_part, refs, most_bytes)
        return found
    return [_day_rows(rows, schemas, refs)]


def _day_rows(rows: Any, schemas: Schemas, refs: Sequence[str]) -> DayRows:
    schema_id = rows["schema_id"].astype(np.int32)
    n = len(rows)
    values = [np.full(n, np.nan) for _ in refs]
    statuses = [np.full(n, LACKS, np.uint8) for _ in refs]
    for schema in np.unique(schema_id).tolist():
        of_schema = schema_id == schema
        own = schemas.features[row_schema_of(schema)]
        for number, ref in enumerate(refs):
            if ref in own:
                index = own.index(ref)
                values[number][of_schema] = rows["values"]["value"][of_schema, index]
                statuses[number][of_schema] = rows["status"][of_schema, index]
    closed = np.zeros(n, np.bool_)
    if rows["status"].shape[1]:
        closed = rows["status"][:, 0] == ValueStatus.CLOSED
    return DayRows(
        rows["number"].astype(np.int32),
        rows["event_time"].astype(np.int64),
        rows["sequence"].astype(np.int64),
        rows["revision"].astype(np.int16),
        schema_id,
        rows["known_at"].astype(np.int64),
        rows["op"] == CANCELLED,
        closed,
        values,
        statuses,
    )


def row_dtype(features: int) -> np.dtype[np.void]:
    """A row of `rows_of_day.sql` in PostgreSQL's binary COPY format."""
    value = np.dtype([("size", ">i4"), ("value", ">f8")])
    return np.dtype(
        [
            ("columns", ">i2"),
            *(("number_size", ">i4"), ("number", ">i4")),
            *(("schema_size", ">i4"), ("schema_id", ">i4")),
            *(("event_time_size", ">i4"), ("event_time", ">i8")),
            *(("sequence_size", ">i4"), ("sequence", ">i8")),
            *(("revision_size", ">i4"), ("revision", ">i2")),
            *(("op_size", ">i4"), ("op", ">i2")),
            *(("known_size", ">i4"), ("known_at", ">i8")),
            *(("status_size", ">i4"), ("status", "u1", (features,))),
            *(("values_size", ">i4"), ("values", value, (features,))),
        ]
    )
