"""A training set as a table: the columns that a join adds to its rows.

Of each feature there are its value, a double that is null where there is none, and under
`<feature>__status` its status, a text of a dictionary; on request `<feature>__event_time` has the
event time, a stamp in nanoseconds. The metadata of a value's field name its version; where each row
has the one that was served, `<feature>__version` does. Under each null of a value there is NaN, so
that no reader shows what is not served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from registry.formats.status import RANK, Status, has_value
from serving.errors import InvalidRequest
from serving.features.columns import NO_TIME
from serving.history.past_columns import PastColumn, Served
from serving.history.served_versions import AS_SERVED

STATUS, EVENT_TIME, VERSION = "__status", "__event_time", "__version"
LAST_WITH_VALUE = max(RANK[status] for status in Status if has_value(status))
Stale = Literal["keep", "null"]


@dataclass(frozen=True, slots=True)
class Form:
    """What a training set has beside values and statuses.

    With `stale="null"` a stale value is null, as its status says; else it is there.
    """

    stale: Stale = "keep"
    event_times: bool = False
    versions: bool = False

    def columns(self, name: str) -> list[str]:
        """The columns of a feature."""
        endings = ["", STATUS]
        if self.event_times:
            endings.append(EVENT_TIME)
        if self.versions:
            endings.append(VERSION)
        return [f"{name}{ending}" for ending in endings]


@dataclass
class Report:
    """What is in a training set: of each feature its version, and how often it had which status.

    `plans` has for each source how its ticks were read, `lateral` or `scan`. `served` counts the
    rows by version where each has the one that was served; "" is none. `open` rows may be others
    later (`serving.history.closing`). `holes` counts, of what is `missing`, the moments at which
    there was a tick, of which the version was never computed: a backfill would fill them.
    """

    rows: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    holes: Counter[str] = field(default_factory=Counter)
    served: dict[str, Counter[str]] = field(default_factory=dict)
    open: int = 0
    plans: dict[str, str] = field(default_factory=dict)

    def count(self, columns: Mapping[str, PastColumn]) -> None:
        """Count more rows."""
        for name, column in columns.items():
            self.versions[name] = ref_of(column)
            if column.served is not None:
                numbers = [*column.served.versions, ""]
                of_versions = self.served.setdefault(name, Counter())
                for index, times in zip(
                    *np.unique(column.served.which, return_counts=True), strict=True
                ):
                    of_versions[numbers[index]] += int(times)
            of_feature = self.statuses.setdefault(name, Counter())
            for rank, times in enumerate(np.bincount(column.ranks, minlength=len(Status)).tolist()):
                if times:
                    of_feature[STATUSES[rank]] += times
            self.holes[name] += int(column.lacks.sum())
        self.rows += len(next(iter(columns.values())).ranks) if columns else 0


STATUSES = [status.value for status in Status]


def ref_of(column: PastColumn) -> str:
    """What the column is of: `name@version`, or `name@as_served`."""
    return column.version.ref if column.served is None else f"{column.version.name}@{AS_SERVED}"


def check_columns(
    present: Collection[str], features: Collection[str], form: Form, more: Collection[str] = ()
) -> None:
    """Raises `InvalidRequest` where rows have a column of a name that the set would add.

    It adds those of features, and `more`.
    """
    added = [*(name for one in features for name in form.columns(one)), *more]
    twice = [name for name in added if name in present]
    if twice:
        raise InvalidRequest(
            f"the entity rows have a column {twice[0]} already: rename it, or leave it out"
        )


def table_of(columns: Mapping[str, PastColumn], form: Form) -> Any:
    """The columns that are added to the rows, as a table of Arrow."""
    fields: list[pa.Field] = []
    arrays: list[pa.Array] = []
    statuses = pa.array(STATUSES, pa.string())
    last = RANK[Status.OK] if form.stale == "null" else LAST_WITH_VALUE
    for name, column in columns.items():
        values = np.where(column.ranks > last, np.nan, column.values)
        fields.append(pa.field(name, pa.float64(), metadata={"version": ref_of(column)}))
        arrays.append(_doubles(values))
        indices = pa.array(column.ranks.astype(np.int8))
        arrays.append(pa.DictionaryArray.from_arrays(indices, statuses))
        fields.append(pa.field(f"{name}{STATUS}", arrays[-1].type))
        if form.event_times:
            unknown = column.event_times == NO_TIME
            known = pa.array(np.where(unknown, 0, column.event_times), mask=unknown)
            arrays.append(known.cast(pa.timestamp("ns", "UTC")))
            fields.append(pa.field(f"{name}{EVENT_TIME}", arrays[-1].type))
        if form.versions:
            arrays.append(_versions(column))
            fields.append(pa.field(f"{name}{VERSION}", arrays[-1].type))
    return pa.table(arrays, schema=pa.schema(fields))


def _versions(column: PastColumn) -> Any:
    """The number of each row's version, null where the name meant none yet."""
    served = column.served
    if served is None:
        served = Served([column.version.version], np.zeros(len(column.values), np.int32))
    indices = pa.array(np.maximum(served.which, 0), mask=served.which < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(served.versions, pa.string()))


def _doubles(values: Any) -> Any:
    """An array whose nulls have NaN beneath."""
    known = ~np.isnan(values)
    bits = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    buffers = [bits, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.float64(), len(values), buffers)
