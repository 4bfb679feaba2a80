"""The ticks of a day in columns, made of rows: as they were served, or as repairs have left them.

A tick has a row in each row schema that it was stored in, and one more for each repair that changed
it. What counts of them depends on what was known: so a tick becomes its *states*, each from the
`known_at` of a row on. Nearly all ticks have one row, and are it.

    served      what the rows of revision 0 have together that were known
    repaired    what the rows have together that became known last; nothing after a cancel

Ticks from Kafka and loaded ones know nothing of each other: of one event time those from Kafka come
after the others, whatever their sequences are, and rows of the two are never one tick. An *order*
is one number for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Flags = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

LACKS = 255
"""The status of a tick that has no value of a version, neither in its row nor in its file."""

CLOSED, LOADED, REVISED = 1, 2, 4
"""Flags of a tick: its entity was closed, it came from files, a repair has changed it."""

OF_KAFKA = 2**62
"""What the order of a tick from Kafka is above its sequence, and no sequence reaches."""


class DayRows(NamedTuple):
    """n rows, in any order."""

    entity: NDArray[np.int32]
    event_time: Int64s
    sequence: Int64s
    revision: NDArray[np.int16]
    schema_id: NDArray[np.int32]
    known_at: Int64s
    cancels: Flags
    closed: Flags
    values: Sequence[NDArray[np.float64]]
    """Of each version (n,), NaN where there is none."""
    statuses: Sequence[Bytes]
    """Of each version (n,): that of the row (`ValueStatus`), or `LACKS`."""

    @property
    def orders(self) -> Int64s:
        """(n,) What orders the ticks of an entity and event time, and tells them apart."""
        found: Int64s = self.sequence + np.where(self.schema_id > 0, OF_KAFKA, 0)
        return found

    def some(self, which: Any) -> DayRows:
        """Some of the rows, or all in another order."""
        plain: Any = [column[which] for column in self[:-2]]
        values = [column[which] for column in self.values]
        return DayRows(*[*plain, values, [column[which] for column in self.statuses]])


def joined(parts: Sequence[DayRows]) -> DayRows:
    """The rows of several parts, of which there is at least one."""
    if len(parts) == 1:
        return parts[0]
    plain = _concatenated([part[:-2] for part in parts])
    values = _concatenated([part.values for part in parts])
    return DayRows(*[*plain, values, _concatenated([part.statuses for part in parts])])


def _concatenated(parts: Sequence[Sequence[Any]]) -> Any:
    """Columns of several parts, each as one."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@dataclass(frozen=True, slots=True)
class DayTicks:
    """n states of ticks, those of an entity together, by event time, order and `known`."""

    entity: NDArray[np.int32]
    times: Int64s
    orders: Int64s
    """(n,) The sequence of each, and `OF_KAFKA` more for those from Kafka (`sequences_of`)."""
    known: Int64s
    gone: Flags
    """(n,) Whether the tick counts no more from then on."""
    may_go: Flags
    """(n,) Whether a state of the tick is gone."""
    flags: Bytes
    values: Sequence[NDArray[np.float64]]
    statuses: Sequence[Bytes]

    def __len__(self) -> int:
        return len(self.entity)

    def some(self, which: Any) -> DayTicks:
        """Some of them, or all in another order."""
        plain: Any = [column[which] for column in self.plain]
        values = [column[which] for column in self.values]
        return DayTicks(*[*plain, values, [column[which] for column in self.statuses]])

    @property
    def plain(self) -> tuple[Any, ...]:
        """All columns but those of versions."""
        own = self.entity, self.times, self.orders, self.known
        return *own, self.gone, self.may_go, self.flags


def joined_ticks(parts: Sequence[DayTicks]) -> DayTicks:
    """The ticks of several parts, of which there is at least one; of an entity in this order."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return parts[0]
    plain = _concatenated([part.plain for part in filled])
    values = _concatenated([part.values for part in filled])
    found = DayTicks(*[*plain, values, _concatenated([part.statuses for part in filled])])
    return found.some(np.argsort(found.entity, kind="stable"))


def no_ticks(versions: int) -> DayTicks:
    """No states of ticks, with columns of so many versions."""
    keys: Any = [np.empty(0, one) for one in (np.int32, np.int64, np.int64, np.int64)]
    flags: Any = [np.empty(0, one) for one in (np.bool_, np.bool_, np.uint8)]
    values = [np.empty(0, np.float64) for _ in range(versions)]
    return DayTicks(*[*keys, *flags, values, [np.empty(0, np.uint8) for _ in range(versions)]])


def ticks_of(rows: DayRows, repaired: bool, in_order: bool) -> DayTicks:
    """The ticks of rows.

    Without `repaired` all rows are of revision 0. Rows that are `in_order` are of one row schema,
    those of an entity together and by event time and sequence, each once.
    """
    one_each = in_order and not (repaired and bool((rows.revision > 0).any()))
    if not one_each:
        rows = _each_once(_sorted(rows))
        if repaired:
            rows = _cancelled_of_both(rows)
        one_each = not _same(rows.entity, rows.event_time, rows.orders).any()
    if one_each:
        return _each_a_state(rows)
    return _states(rows, repaired)


def _sorted(rows: DayRows) -> DayRows:
    keys = rows.revision, rows.schema_id, rows.known_at, rows.orders, rows.event_time, rows.entity
    return rows.some(np.lexsort(keys))


def _each_once(rows: DayRows) -> DayRows:
    """Rows that are in order, without those that are there again."""
    key = rows.entity, rows.event_time, rows.sequence, rows.schema_id, rows.revision
    again = _same(*key)
    return rows.some(~again) if again.any() else rows


def _cancelled_of_both(rows: DayRows) -> DayRows:
    """Rows in order, with a cancel of each tick for the other one at its key, loaded or not.

    They may be the same tick, and no edit can name a loaded one (`ticks_as_known.sql`).
    """
    cancels = rows.cancels & (rows.revision > 0)
    if not cancels.any() or (rows.schema_id > 0).all() or (rows.schema_id < 0).all():
        return rows
    of_both = rows.some(cancels)
    return _sorted(joined([rows, of_both._replace(schema_id=-of_both.schema_id)]))


def _same(*columns: Any) -> Flags:
    """Where rows have the values of the one before."""
    same = np.zeros(len(columns[0]), np.bool_)
    same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return same


def _flags_of(rows: DayRows, which: slice) -> Bytes:
    found = CLOSED * rows.closed[which].astype(np.uint8)
    found |= LOADED * (rows.schema_id[which] < 0).astype(np.uint8)
    found |= REVISED * (rows.revision[which] > 0).astype(np.uint8)
    return found


def _each_a_state(rows: DayRows) -> DayTicks:
    # a row that cancels takes back a tick that has none: it is gone all the same
    gone = rows.cancels & (rows.revision > 0)
    key = rows.entity, rows.event_time, rows.orders, rows.known_at
    return DayTicks(*key, gone, gone, _flags_of(rows, slice(None)), rows.values, rows.statuses)


def _states(rows: DayRows, repaired: bool) -> DayTicks:
    """The states of ticks of several rows, which are in order."""
    ticks = _each_a_state(rows)
    same = _same(rows.entity, rows.event_time, ticks.orders)
    begins = np.flatnonzero(~same)
    ends = np.append(begins[1:], len(rows.entity))
    ticks = _with_what_was_known_before(ticks, same, int((ends - begins).max()))
    if not repaired:
        return ticks
    revised = np.flatnonzero(np.logical_or.reduceat(rows.revision > 0, begins))
    for begin, end in zip(begins[revised].tolist(), ends[revised].tolist(), strict=True):
        _repair(ticks, rows, begin, end)
    return ticks


def _with_what_was_known_before(ticks: DayTicks, same: Flags, most: int) -> DayTicks:
    """Each state with what the rows before it say, of its own tick, which has so many at most."""
    flags = ticks.flags.copy()
    values = [column.copy() for column in ticks.values]
    statuses = [column.copy() for column in ticks.statuses]
    later = np.flatnonzero(same)
    for _ in range(most - 1):
        before = flags[later - 1]
        flags[later] |= before & CLOSED
        for column, codes in zip(values, statuses, strict=True):
            lacking = later[codes[later] == LACKS]
            column[lacking], codes[lacking] = column[lacking - 1], codes[lacking - 1]
    key = ticks.entity, ticks.times, ticks.orders, ticks.known
    return DayTicks(*key, ticks.gone.copy(), ticks.may_go.copy(), flags, values, statuses)


def _repair(ticks: DayTicks, rows: DayRows, begin: int, end: int) -> None:
    """Make the states of a tick from `begin` to `end` those that repairs have left."""
    cancelled = rows.cancels[begin:end] & (rows.revision[begin:end] > 0)
    own = _flags_of(rows, slice(begin, end))
    for last in range(begin, end):
        newest = _newest(rows, range(begin, last + 1))
        ticks.gone[last] = cancelled[: last + 1 - begin].any()
        of_newest = own[[i - begin for i in newest]]
        ticks.flags[last] = np.bitwise_or.reduce(of_newest)
        for column, codes, values, statuses in zip(
            ticks.values, ticks.statuses, rows.values, rows.statuses, strict=True
        ):
            having = [i for i in newest if statuses[i] != LACKS]
            column[last] = values[having[-1]] if having else np.nan
            codes[last] = statuses[having[-1]] if having else LACKS
    ticks.may_go[begin:end] = ticks.gone[begin:end].any()


def _newest(rows: DayRows, known: range) -> list[int]:
    """Of the rows of a tick those of the revision that became known last, in all row schemas."""

    def rank(i: int) -> tuple[int, int, int]:
        revision = int(rows.revision[i])
        return int(revision > 0), int(rows.known_at[i]) if revision else 0, revision

    newest = max(map(rank, known))
    return [i for i in known if rank(i) == newest]


def sequences_of(orders: Int64s) -> Int64s:
    """The sequences of ticks, by their orders."""
    return orders & (OF_KAFKA - 1)
