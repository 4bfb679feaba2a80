"""The columns of the lake's files, and rows as Arrow tables of them.

A value is there where its status is `ok`; else it is null, and never NaN: engines that prune by the
least and greatest value of a row group lose rows with NaN in files of other writers. Times are
int64 nanoseconds, which every engine reads as they are; `ts` beside them is cut to microseconds,
downwards, for people and partition pruning.

A version that a row schema lacks, and of which a backfill is complete, has columns in the files of
that row schema as its own versions have: with the backfilled value of each tick, and `missing`
where there is none. Its end changes the columns, and with them all files of the row schema.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa

from pipelines.lake.errors import ColumnsAlike
from pipelines.runtime.array_types import Bytes, Floats
from registry.definitions import Catalog, RowSchema, Source
from registry.formats.entity_name import key_values
from registry.formats.lake import (
    ORIGIN_COLUMNS,
    OWN_COLUMNS,
    status_column,
    tick_columns,
    value_column,
)
from registry.formats.loaded_rows import loaded
from registry.formats.row import ValueStatus
from registry.formats.status import Status
from registry.lifecycle.backfills import schemas_to_read

FORMAT = 1
"""The number of what is written here; another one has all files written anew."""

STATUSES = [*(status.name.lower() for status in ValueStatus), Status.MISSING.value]
MISSING = len(STATUSES) - 1
"""The index of the status of a tick that has no value of a version."""

OPS = ["trade", "reset", "close", "cancel"]

TEXT, INT64, INT32, INT16 = pa.string(), pa.int64(), pa.int32(), pa.int16()
TS = pa.timestamp("us", "UTC")
CODES = pa.dictionary(pa.int32(), TEXT)
"""Texts as they are made here; in the files they are plain."""


class CompleteBackfill(NamedTuple):
    """A backfill that has computed all values of the version `ref`; another one has other bits.

    For loaded rows its id is the negative one.
    """

    id: int
    ref: str
    finished_at: str


class LakeSchema(NamedTuple):
    """What the files of a row schema of a source have."""

    schema: RowSchema
    source: Source
    backfilled: tuple[CompleteBackfill, ...]

    @property
    def refs(self) -> tuple[str, ...]:
        """The versions, those of the row schema first."""
        return (*self.schema.features, *(one.ref for one in self.backfilled))

    @property
    def value_columns(self) -> list[str]:
        return [value_column(ref) for ref in self.refs]

    @property
    def float_columns(self) -> list[str]:
        """The columns that could have a NaN."""
        fields = tick_columns(self.source.field_names)
        return [*fields.values(), *self.value_columns]

    def arrow(self) -> pa.Schema:
        """The columns, in their order. Raises `ColumnsAlike`."""
        keys, fields = tick_columns(self.source.key), tick_columns(self.source.field_names)
        own = (CODES, INT64, INT64, INT16, TS, INT64, INT64, INT64, TEXT, CODES)
        columns = [("entity", CODES), *((name, CODES) for name in keys.values())]
        columns += list(zip(OWN_COLUMNS, own, strict=True))[1:]
        columns += [(name, pa.float64()) for name in fields.values()]
        for ref in self.refs:
            columns += [(value_column(ref), pa.float64()), (status_column(ref), CODES)]
        columns += zip(ORIGIN_COLUMNS, (CODES, INT32, INT64, INT32), strict=True)
        (name, times), *_ = Counter(name for name, _ in columns).most_common(1)
        if times > 1:
            raise ColumnsAlike(self.source.name, name)
        return pa.schema(columns)

    def digest(self) -> bytes:
        """What is the same for files whose columns mean the same."""
        names = [*self.source.key, *self.source.field_names, *self.schema.features]
        made = [str(FORMAT), *names, *(str(tuple(one)) for one in self.backfilled)]
        return hashlib.sha256("\0".join(made).encode()).digest()


def lake_schemas(catalog: Catalog, backfills: Sequence[CompleteBackfill]) -> dict[int, LakeSchema]:
    """What the files of each row schema have now, those of loaded rows under its negative id."""
    lacking: dict[int, list[CompleteBackfill]] = {number: [] for number in catalog.schemas}
    for backfill in sorted(backfills, key=lambda one: one.ref):
        holding = [s.id for s in catalog.schemas.values() if backfill.ref in s.features]
        for number, lacks in schemas_to_read(catalog, backfill.ref).items():
            if lacks and number < max(holding, default=0):  # later ones are without it for good
                lacking[number].append(backfill)
    found = {
        number: LakeSchema(schema, catalog.sources[schema.source], tuple(lacking[number]))
        for number, schema in catalog.schemas.items()
    }
    return found | {loaded(number): _of_loads(schema) for number, schema in found.items()}


def _of_loads(of_live: LakeSchema) -> LakeSchema:
    own = tuple(one._replace(id=loaded(one.id)) for one in of_live.backfilled)
    return of_live._replace(backfilled=own)


Backfilled = Sequence[tuple[Floats, Bytes]]
"""Of each backfilled version the values of rows, and the indexes of their statuses."""


def entity_runs(rows: Any) -> tuple[list[str], Any]:
    """The entities of rows that are sorted by them, and which of them each row is of."""
    entity = rows["entity"]
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = entity[1:] != entity[:-1]
    names = [name.decode() for name in entity[begins].tolist()]
    return names, (np.cumsum(begins) - 1).astype(np.int32)


def arrow_table(wanted: LakeSchema, rows: Any, backfilled: Backfilled) -> pa.Table:
    """Rows of `day_rows.sql` as a table of the columns of their files."""
    names, number = entity_runs(rows)
    keys = zip(*map(key_values, names), strict=True)
    event_time = _int64(rows["event_time"])
    columns = [
        _coded(number, names),
        *(_coded(number, values) for values in keys),
        event_time,
        _int64(rows["sequence"]),
        rows["revision"].astype(np.int16),
        pa.array(event_time // 1000, INT64).cast(TS),
        _int64(rows["known_at"]),
        _int64(rows["tick_time"]),
        pa.array(_int64(rows["seq"]), mask=~rows["has_seq"]),
        _seq_texts(rows),
        _coded(rows["op"].astype(np.int32), OPS),
        *(_without_nan(rows["fields"]["value"][:, i]) for i in range(rows["fields"].shape[1])),
        *chain.from_iterable(_values(wanted, rows, backfilled)),
        *_origins(rows),
    ]
    schema = wanted.arrow()
    made = [
        pa.array(column, field.type) if isinstance(column, np.ndarray) else column
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(made, schema=schema)


def _values(wanted: LakeSchema, rows: Any, backfilled: Backfilled) -> Any:
    """Of each version the values and the statuses."""
    for i in range(len(wanted.schema.features)):
        yield value_arrays(rows["features"]["value"][:, i].astype(np.float64), rows["status"][:, i])
    for values, statuses in backfilled:
        yield value_arrays(values, statuses)


def value_arrays(values: Floats, statuses: Bytes) -> tuple[pa.Array, pa.Array]:
    """The values and the statuses of a version; these are indexes of `STATUSES`."""
    absent = (statuses != ValueStatus.OK) | np.isnan(values)
    return pa.array(values, mask=absent), _coded(statuses.astype(np.int32), STATUSES)


def _origins(rows: Any) -> list[Any]:
    ids, which = np.unique(rows["topic_id"].view("S16"), return_inverse=True)
    names = [str(UUID(bytes=one.ljust(16, b"\0"))) for one in ids.tolist()]
    return [
        _coded(which.astype(np.int32), names),
        rows["partition"].astype(np.int32),
        _int64(rows["offset"]),
        rows["index"].astype(np.int32),
    ]


def _seq_texts(rows: Any) -> pa.Array:
    has_text = rows["seq_text_length"] >= 0
    if not has_text.any():
        return pa.nulls(len(rows), TEXT)
    texts = zip(rows["seq_text"].tolist(), has_text.tolist(), strict=True)
    return pa.array([text.decode() if has else None for text, has in texts], TEXT)


def _coded(codes: Any, texts: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(texts, TEXT))


def _int64(column: Any) -> Any:
    return column.astype(np.int64)


def _without_nan(column: Any) -> pa.Array:
    values = column.astype(np.float64)
    return pa.array(values, mask=np.isnan(values))
