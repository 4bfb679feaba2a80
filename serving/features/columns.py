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

from registry.formats.row import SCHEMA_END
from registry.formats.status import RANK, Status
from serving.features.prepared import PreparedQuestion, Slot, Uncommon, WantedDerived, WantedRows
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
    are_ok: bool
    """Whether all statuses are `ok`, so that nothing is missing."""


def answer_columns(
    question: PreparedQuestion, rows: Sequence[TieredRows], moment: Moment
) -> AnswerColumns:
    """The answer, given the rows of all entities in each source of the question.

    Raises `Uncommon`.
    """
    return _plain(question, rows, moment) or _judged(question, rows, moment)


def _plain(
    question: PreparedQuestion, rows: Sequence[TieredRows], moment: Moment
) -> AnswerColumns | None:
    """The answer where all values are `ok`, else None: what `_judged` says, in less time.

    Raises `Uncommon`.
    """
    n, now = len(rows[0].rows), moment.now_ns
    values = np.empty((question.stored + len(question.derived), n))
    times = np.empty((len(rows) + len(question.derived), n), np.int64)
    tiers = np.empty(times.shape, np.uint8)
    begin, oldest = 0, list[int]()
    for index, (wanted, read) in enumerate(zip(question.rows, rows, strict=True)):
        each = (read.tier,) if isinstance(read.tier, Tier) else set(read.tier)
        if any(moment.lagging(wanted.source.name, tier) for tier in each):
            return None
        end = begin + len(wanted.features)
        if not _put_ok(values[begin:end], times[index], wanted, read.rows):
            return None
        tiers[index] = read.tier
        oldest.append(int(np.minimum.reduce(times[index])))
        if now - oldest[index] > wanted.least_max_age:
            return None
        begin = end
    for number, derived in enumerate(question.derived):
        if now - min([oldest[part] for part in derived.times]) > derived.max_age_ns:
            return None
        values[question.stored + number] = derived.arithmetic.column(values)
        own, (first, *more) = len(rows) + number, derived.times
        times[own], tiers[own] = times[first], tiers[first]
        for part in more:
            np.minimum(times[own], times[part], out=times[own])
            np.maximum(tiers[own], tiers[part], out=tiers[own])
    if not np.isfinite(values[question.stored :]).all():
        return None
    ranks = np.full((n, len(values)), OK, np.uint8)
    return AnswerColumns(now, values.T, ranks, times.T, tiers.T, absent=None, are_ok=True)


def _put_ok(
    values: NDArray[np.float64],
    times: NDArray[np.int64],
    wanted: WantedRows,
    packed: Sequence[Packed],
) -> bool:
    """Put the rows of a source into values, (features, n), and event times, (n,).

    False where some are not there, lack a feature, or are not stored as `ok`. Raises `Uncommon`.
    """
    table = _bytes_of(packed)
    if table is not None and are_alike(table[:, :SCHEMA_END]):
        return _put_alike_ok(values, times, wanted, slice(None), table)
    for members in _by_schema(packed).values():
        table = _bytes_of([packed[i] for i in members])
        if table is None or not _put_alike_ok(values, times, wanted, members, table):
            return False
    return True


def _put_alike_ok(
    values: NDArray[np.float64],
    times: NDArray[np.int64],
    wanted: WantedRows,
    members: slice | list[int],
    table: NDArray[np.uint8],
) -> bool:
    """The same of rows of one row schema, (n, bytes), those of the entities `members`."""
    layout, stored, had = wanted.columns(table[0, :SCHEMA_END].tobytes())
    if had is not None or table.shape[1] != layout.size:
        return False
    rows: NDArray[np.void] = np.frombuffer(table, layout.dtype)
    if np.count_nonzero(rows["status"][:, stored]):
        return False
    values[:, members] = rows["values"][:, stored].T
    times[members] = rows["event_time"]
    return True


def _judged(
    question: PreparedQuestion, rows: Sequence[TieredRows], moment: Moment
) -> AnswerColumns:
    """The answer, whatever the rows are. Raises `Uncommon`."""
    n = len(rows[0].rows)
    values, times = question.stored + len(question.derived), len(rows) + len(question.derived)
    found = AnswerColumns(
        moment.now_ns,
        np.empty((n, values), order="F"),
        np.zeros((n, values), np.uint8, order="F"),
        np.empty((n, times), np.int64, order="F"),
        np.empty((n, times), np.uint8, order="F"),
        np.zeros((n, values), np.bool_, order="F"),
        False,
    )
    begin = 0
    for index, (wanted, read) in enumerate(zip(question.rows, rows, strict=True)):
        which = slice(begin, begin + len(wanted.features))
        found.tiers[:, index] = read.tier
        _put_rows(found, index, which, wanted, read.rows)
        _judge(found, index, which, wanted, moment, read.tier)
        begin = which.stop
    for number, derived in enumerate(question.derived):
        _put_derived(found, Slot(question.stored + number, len(rows) + number), derived)
    assert found.absent is not None
    if found.absent.any():
        return found
    return found._replace(absent=None, are_ok=not found.ranks.any())


def _put_rows(
    found: AnswerColumns, time: int, which: slice, wanted: WantedRows, packed: Sequence[Packed]
) -> None:
    """Put the rows of a source into the columns `which`, and their times into column `time`."""
    for group, members in _by_schema(packed).items():
        if isinstance(group, bytes):
            table = _bytes_of([packed[i] for i in members])
            if table is None:
                raise Uncommon
            _put_alike(found, time, which, wanted, members, table)
        else:
            found.values[members, which], found.times[members, time] = np.nan, NO_TIME
            found.ranks[members, which] = MISSING if group is None else UNAVAILABLE
            if group is not None:
                found.tiers[members, time] = Tier.NONE


def _by_schema(packed: Sequence[Packed]) -> dict[Any, list[int]]:
    """Which rows begin with the same row schema, and which are the same as they are no bytes."""
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(packed):
        groups.setdefault(row[:SCHEMA_END] if isinstance(row, bytes) else row, []).append(i)
    return groups


def _bytes_of(packed: Sequence[Packed]) -> NDArray[np.uint8] | None:
    """Rows of one size as (n, bytes); None where one has another size, or is missing."""
    try:
        sizes = set(map(len, packed))  # type: ignore[arg-type]
    except TypeError:
        return None
    if len(sizes) > 1:
        return None
    return np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), sizes.pop())  # type: ignore[arg-type]


def are_alike(table: NDArray[np.uint8]) -> bool:
    """Whether all numbers of a column, or all rows of several, are the same."""
    compared = table.tobytes()  # of short columns quicker than what numpy has
    return compared == compared[: len(compared) // len(table)] * len(table)


def _put_alike(
    found: AnswerColumns,
    time: int,
    which: slice,
    wanted: WantedRows,
    members: list[int],
    table: NDArray[np.uint8],
) -> None:
    """Put rows of one row schema, (n, bytes), those of the entities `members`.

    Raises `Uncommon`.
    """
    layout, stored, had = wanted.columns(table[0, :SCHEMA_END].tobytes())
    if table.shape[1] != layout.size:
        raise Uncommon
    rows: NDArray[np.void] = np.frombuffer(table, layout.dtype)
    found.times[members, time] = rows["event_time"]
    ranks = RANK_OF[rows["status"][:, stored]]
    if (ranks == NO_STATUS).any():
        raise Uncommon
    if had is None:
        found.values[members, which] = rows["values"][:, stored]
        found.ranks[members, which] = ranks
        return
    shape = len(rows), len(wanted.features)
    values, all_ranks = np.full(shape, np.nan), np.full(shape, MISSING, np.uint8)
    values[:, had], all_ranks[:, had] = rows["values"][:, stored], ranks
    absent = np.ones(shape, np.bool_)
    absent[:, had] = False
    found.values[members, which], found.ranks[members, which] = values, all_ranks
    assert found.absent is not None
    found.absent[members, which] = absent


def _judge(
    found: AnswerColumns,
    time: int,
    which: slice,
    wanted: WantedRows,
    moment: Moment,
    tier: Tier | Sequence[Tier],
) -> None:
    """Make statuses worse by age, and by the lag of the pipeline in the tier of the rows."""
    ranks, absent = found.ranks[:, which], found.absent
    assert absent is not None
    tiers = (tier,) if isinstance(tier, Tier) else Tier
    late = [one for one in tiers if moment.lagging(wanted.source.name, one)]
    if late:
        # of what is missing or unavailable nothing gets worse
        least = np.where(np.isin(found.tiers[:, time], late), LAGGING, OK).astype(np.uint8)
        np.maximum(ranks, least[:, None], out=ranks)
    age = found.now_ns - found.times[:, time]  # below 0 where there is no time
    old = age[:, None] > np.array(wanted.max_ages, np.int64)
    np.maximum(ranks, np.where(old & ~absent[:, which], STALE, OK).astype(np.uint8), out=ranks)


def _put_derived(found: AnswerColumns, slot: Slot, derived: WantedDerived) -> None:
    """Compute a derived feature of all entities: as `Derived.evaluate` does, and judge its age."""
    of_parts = derived.parts.values()
    assert found.absent is not None
    ranks = np.maximum.reduce([found.ranks[:, part.value] for part in of_parts])
    times = np.minimum.reduce(
        [
            np.where(found.absent[:, part.value], NO_TIME, found.times[:, part.time])
            for part in of_parts
        ]
    )
    result = np.where(ranks <= LAGGING, derived.arithmetic.column(found.values.T), np.nan)
    has_none = (ranks <= LAGGING) & ~np.isfinite(result)
    found.values[:, slot.value] = np.where(has_none, np.nan, result)
    ranks = np.where(has_none, UNDEFINED, ranks)
    old = found.now_ns - times > derived.max_age_ns
    ranks = np.where(old, np.maximum(ranks, STALE), ranks)
    found.ranks[:, slot.value] = ranks
    found.times[:, slot.time] = times
    found.tiers[:, slot.time] = np.maximum.reduce([found.tiers[:, part.time] for part in of_parts])
