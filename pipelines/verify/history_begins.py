"""Where the stored history of an entity begins, and its windows reach back behind it.

Retention drops months, and an entity's first stored tick may have had others before it. Nothing
notes that, but the statuses of its first ticks tell how many were in its windows: a window of n
ticks is full at the (n - e)th stored one if e came before it. The e that contradicts the fewest of
them is believed, and 0 of equals: so one wrong status among many stays a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.ticks.columns import TRADE
from pipelines.verify.stored_rows import StoredTicks
from registry.formats.row import ValueStatus

WARMING, CLOSED = int(ValueStatus.WARMING), int(ValueStatus.CLOSED)

Flags = NDArray[np.bool_]


class Said(NamedTuple):
    """The statuses that are stored of r ticks."""

    tick: Int64s
    """(r,) Their numbers."""
    statuses: Bytes
    """(r, features)"""
    depths: Int64s
    """(features,) How many ticks the window of each has."""


def beyond_history(ticks: StoredTicks, said: Sequence[Said], depths: Int64s) -> Flags:
    """The values whose windows have ticks that are not stored any more.

    (ticks, versions), where `depths` are those of all versions.
    """
    beyond = np.zeros((len(ticks.part), len(depths)), np.bool_)
    first = np.searchsorted(ticks.part, np.arange(len(ticks.parts)))
    ordinal = np.arange(len(ticks.part)) - first[ticks.part]
    resets = np.cumsum(ticks.op != TRADE)
    before = np.where(first > 0, resets[first - 1], 0)[ticks.part]
    leads = ticks.begins[ticks.part] & (resets == before)
    for part in _suspects(ticks, said, leads, ordinal):
        own = np.flatnonzero(leads & (ticks.part == part))
        came_before = _came_before([_of(one, own, ordinal) for one in said])
        seen = ordinal[own, None] + 1
        beyond[own] = (depths > seen) & (depths <= seen + came_before)
    return beyond


def _suspects(
    ticks: StoredTicks, said: Sequence[Said], leads: Flags, ordinal: Int64s
) -> Sequence[int]:
    """The parts in which a window was full too early."""
    found: set[int] = set()
    for one in said:
        too_early = (one.depths > ordinal[one.tick, None] + 1) & _is_full(one.statuses)
        which = leads[one.tick] & too_early.any(axis=1)
        found.update(ticks.part[one.tick[which]].tolist())
    return sorted(found)


def _is_full(statuses: Bytes) -> Flags:
    found: Flags = (statuses != WARMING) & (statuses != CLOSED)
    return found


class _Needs(NamedTuple):
    """How many ticks had to come before the first one for each window to be full."""

    of_full: Int64s
    of_waiting: Int64s


def _of(said: Said, own: NDArray[np.intp], ordinal: Int64s) -> _Needs:
    which = np.isin(said.tick, own)
    needs = said.depths - ordinal[said.tick[which], None] - 1
    statuses = said.statuses[which]
    return _Needs(needs[_is_full(statuses)], needs[statuses == WARMING])


def _came_before(needs: Sequence[_Needs]) -> int:
    """How many ticks came before the first one that is stored, as most statuses have it."""
    of_full = np.concatenate([one.of_full for one in needs])
    of_waiting = np.concatenate([one.of_waiting for one in needs])
    candidates = np.unique(np.maximum(of_full, 0)).tolist()
    wrong = {e: int((of_full > e).sum() + (of_waiting <= e).sum()) for e in [0, *candidates]}
    found: int = min(wrong, key=lambda e: (wrong[e], e))
    return found
