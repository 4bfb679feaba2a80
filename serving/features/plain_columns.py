"""Columns of many entities of which every value is `ok`: as a rule they all are.

It is what `serving.features.columns` says of them, in half of the time: nothing is judged by value,
and nothing is put where it would have to be overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from registry.formats.row import SCHEMA_END
from serving.features.prepared import PreparedQuestion, Uncommon, WantedRows
from serving.features.values import Moment
from serving.stores.row_store import Packed, Tier, TieredRows

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


def plain_columns(
    question: PreparedQuestion, rows: Sequence[TieredRows], moment: Moment
) -> tuple[Floats, Times, Tier] | None:
    """Values, (values, n), and event times, (times, n), as `prepared.Slot` numbers both.

    All are from one tier. None where any value is not `ok`, lacks in its row, or is lagging.
    """
    tier = rows[0].tier
    if not isinstance(tier, Tier):
        return None
    for wanted, read in zip(question.rows, rows, strict=True):
        if read.tier is not tier or moment.lagging(wanted.source.name, tier):
            return None
    n = len(rows[0].rows)
    values = np.empty((question.stored + len(question.derived), n))
    times = np.empty((len(rows) + len(question.derived), n), np.int64)
    oldest: list[int] = []
    begin = 0
    for index, (wanted, read) in enumerate(zip(question.rows, rows, strict=True)):
        end = begin + len(wanted.features)
        if not _put(wanted, read.rows, values[begin:end], times[index]):
            return None
        oldest.append(int(times[index].min()))
        if moment.now_ns - oldest[index] > wanted.least_max_age:
            return None
        begin = end
    if not _derive(question, values, times, oldest, moment.now_ns):
        return None
    return values, times, tier


def _put(wanted: WantedRows, packed: Sequence[Packed], values: Floats, times: Times) -> bool:
    """Put the rows of a source, if they are of one row schema, and have all values, all `ok`."""
    first = packed[0]
    if not isinstance(first, bytes):
        return False
    try:
        joined = b"".join(packed)  # type: ignore[arg-type]
        sizes = set(map(len, packed))  # type: ignore[arg-type]
        layout, stored, had = wanted.columns(first[:SCHEMA_END])
    except (TypeError, Uncommon):  # some are missing
        return False
    n = len(packed)
    if had is not None or sizes != {layout.size}:
        return False
    table: NDArray[np.uint8] = np.frombuffer(joined, np.uint8).reshape(n, layout.size)
    if table[:, :SCHEMA_END].tobytes() != first[:SCHEMA_END] * n:
        return False
    rows: NDArray[np.void] = np.frombuffer(joined, layout.dtype)
    statuses = rows["status"].tobytes()
    if statuses.count(0) != len(statuses):
        return False
    times[:] = rows["event_time"]
    values[:] = rows["values"][:, stored].T
    return True


def _derive(
    question: PreparedQuestion, values: Floats, times: Times, oldest: Sequence[int], now_ns: int
) -> bool:
    """Compute the derived features, if each has a value, and none is too old."""
    sources = len(question.rows)
    with np.errstate(all="ignore"):
        for number, derived in enumerate(question.derived):
            if now_ns - min([oldest[part] for part in derived.times]) > derived.max_age_ns:
                return False
            found = values[question.stored + number]
            found[:] = derived.arithmetic.of_arrays(values)  # type: ignore[arg-type]
            if not np.isfinite(found).all():
                return False
            first, *more = derived.times
            times[sources + number] = times[first]
            for other in more:
                np.minimum(times[sources + number], times[other], out=times[sources + number])
    return True
