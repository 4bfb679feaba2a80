"""Answers about many entities, by columns: no Python object an entity, a feature or a value.

The rows of a source that are in one row schema are one array. Statuses, ages and derived features
are worked out of all entities at once; what comes out is what `PreparedQuestion.evaluate` says of
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.formats.row import SCHEMA_END, row_layout
from registry.formats.status import RANK, Status
from serving.features.prepared import PreparedQuestion, Uncommon, WantedDerived, WantedRows
from serving.features.values import STATUS, Moment
from serving.stores.row_store import Packed, Tier, TieredRows

OK, STALE, LAGGING = RANK[Status.OK], RANK[Status.STALE], RANK[Status.LAGGING]
UNDEFINED, MISSING = RANK[Status.UNDEFINED], RANK[Status.MISSING]
UNAVAILABLE = RANK[Status.UNAVAILABLE]

NO_STATUS = 255
RANK_OF = np.full(256, NO_STATUS, np.uint8)
"""By the status byte of a row, the rank of the status that is served."""
for _stored, _status in STATUS.items():
    RANK_OF[_stored] = RANK[_status]

NO_TIME = np.iinfo(np.int64).max
"""The event time where there is none: later than any."""


class AnswerColumns(NamedTuple):
    """What is known of n entities; `prepared.Slot` says which columns belong to a feature."""

    now_ns: int
    values: NDArray[np.float64]
    """(n, values) NaN where there is none."""
    ranks: NDArray[np.uint8]
    """(n, values) The rank of each status (`registry.formats.status.RANK`)."""
    times: NDArray[np.int64]
    """(n, event times) Nanoseconds UTC, `NO_TIME` where there is none."""
    tiers: NDArray[np.uint8]
    """(n, event times) The `Tier` of each."""
    absent: NDArray[np.bool_] | None
    """(n, values) Features that an entity's rows do not have, which have no event time either: they
    are of a row schema before. None where there is no such feature."""


def answer_columns(
    question: PreparedQuestion, rows: Sequence[TieredRows], moment: Moment
) -> AnswerColumns:
    """The answer, given the rows of all entities in each source of the question.

    Raises `Uncommon`.
    """
    n = len(rows[0].rows)
    values, times = question.stored + len(question.derived), len(rows) + len(question.derived)
    found = AnswerColumns(
        moment.now_ns,
        np.full((n, values), np.nan),
        np.full((n, values), OK, np.uint8),
        np.full((n, times), NO_TIME, np.int64),
        np.empty((n, times), np.uint8),
        np.zeros((n, values), np.bool_),
    )
    begin = 0
    for index, (wanted, read) in enumerate(zip(question.rows, rows, strict=True)):
        end = begin + len(wanted.features)
        found.tiers[:, index] = read.tier
        _put_rows(found, index, slice(begin, end), wanted, read.rows)
        _judge(found, index, slice(begin, end), wanted, moment)
        begin = end
    for number, derived in enumerate(question.derived):
        _put_derived(found, question.stored + number, len(rows) + number, derived)
    assert found.absent is not None
    return found if found.absent.any() else found._replace(absent=None)


def _put_rows(
    found: AnswerColumns, time: int, which: slice, wanted: WantedRows, packed: Sequence[Packed]
) -> None:
    """Put the rows of a source into the columns `which`, and their times into column `time`."""
    table = _bytes_of(packed)
    if table is not None and (table[:, :SCHEMA_END] == table[0, :SCHEMA_END]).all():
        _put_alike(found, time, which, wanted, slice(None), table)
        return
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(packed):
        groups.setdefault(row[:SCHEMA_END] if isinstance(row, bytes) else row, []).append(i)
    for group, members in groups.items():
        if isinstance(group, bytes):
            table = _bytes_of([packed[i] for i in members])
            if table is None:
                raise Uncommon
            _put_alike(found, time, which, wanted, members, table)
        else:
            found.ranks[members, which] = MISSING if group is None else UNAVAILABLE
            if group is not None:
                found.tiers[members, time] = Tier.NONE


def _bytes_of(packed: Sequence[Packed]) -> NDArray[np.uint8] | None:
    """Rows of one size as (n, bytes); None where one has another size, or is missing."""
    try:
        sizes = set(map(len, packed))  # type: ignore[arg-type]
    except TypeError:
        return None
    if len(sizes) > 1:
        return None
    return np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), sizes.pop())  # type: ignore[arg-type]


def _put_alike(
    found: AnswerColumns,
    time: int,
    which: slice,
    wanted: WantedRows,
    members: slice | list[int],
    table: NDArray[np.uint8],
) -> None:
    """Put rows of one row schema, (n, bytes), those of the entities `members`.

    Raises `Uncommon`.
    """
    features, indexes = wanted.indexes(table[0, :SCHEMA_END].tobytes())
    layout = row_layout(features)
    if table.shape[1] != layout.size:
        raise Uncommon
    rows = table.view(layout.dtype)[:, 0]
    found.times[members, time] = rows["event_time"]
    had = [(column, index) for column, index in enumerate(indexes) if index is not None]
    columns, stored = [column for column, _ in had], [index for _, index in had]
    ranks = RANK_OF[rows["status"][:, stored]]
    if (ranks == NO_STATUS).any():
        raise Uncommon
    if len(had) == len(indexes):
        found.values[members, which] = rows["values"][:, stored]
        found.ranks[members, which] = ranks
        return
    shape = len(rows), len(indexes)
    values, all_ranks = np.full(shape, np.nan), np.full(shape, MISSING, np.uint8)
    values[:, columns], all_ranks[:, columns] = rows["values"][:, stored], ranks
    absent = np.ones(shape, np.bool_)
    absent[:, columns] = False
    found.values[members, which], found.ranks[members, which] = values, all_ranks
    assert found.absent is not None
    found.absent[members, which] = absent


def _judge(
    found: AnswerColumns, time: int, which: slice, wanted: WantedRows, moment: Moment
) -> None:
    """Make statuses worse by age, and by the lag of the pipeline."""
    ranks, absent = found.ranks[:, which], found.absent
    assert absent is not None
    behind = [moment.lagging(wanted.source.name, tier) for tier in Tier]
    if any(behind):
        # of what is missing or unavailable nothing gets worse
        least = np.where(np.array(behind)[found.tiers[:, time]], LAGGING, OK).astype(np.uint8)
        np.maximum(ranks, least[:, None], out=ranks)
    age = found.now_ns - found.times[:, time]  # below 0 where there is no time
    if int(age.max()) > wanted.least_max_age:
        old = age[:, None] > np.array(wanted.max_ages, np.int64)
        np.maximum(ranks, np.where(old & ~absent[:, which], STALE, OK).astype(np.uint8), out=ranks)


def _put_derived(found: AnswerColumns, value: int, time: int, derived: WantedDerived) -> None:
    """Compute a derived feature of all entities: as `Derived.evaluate` does, and judge its age."""
    slots = derived.parts.values()
    assert found.absent is not None
    ranks = np.maximum.reduce([found.ranks[:, slot.value] for slot in slots])
    times = np.minimum.reduce(
        [
            np.where(found.absent[:, slot.value], NO_TIME, found.times[:, slot.time])
            for slot in slots
        ]
    )
    parts = {name: found.values[:, slot.value] for name, slot in derived.parts.items()}
    result = np.where(ranks <= LAGGING, derived.arithmetic.column(parts), np.nan)
    has_none = (ranks <= LAGGING) & ~np.isfinite(result)
    found.values[:, value] = np.where(has_none, np.nan, result)
    ranks = np.where(has_none, UNDEFINED, ranks)
    old = found.now_ns - times > derived.max_age_ns
    ranks = np.where(old, np.maximum(ranks, STALE), ranks)
    found.ranks[:, value] = ranks
    found.times[:, time] = times
    found.tiers[:, time] = np.maximum.reduce([found.tiers[:, slot.time] for slot in slots])
