"""Compiled passes over the ticks of a day, and over those that earlier days have left.

Ticks are in columns, those of an entity together, by event time, order and `known_at`. A tick
may have several rows, its states: each counts from its own `known_at` on, until that of the next
one. A state may say that the tick is gone.

All compiled functions are in this module, and it names no constant of another one: so numba's own
cache, which looks at the module's file, never runs what is old.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

BLOCK_BITS = 6
"""Ticks of a block, as a power of two: where none of them was known, all are stepped over."""

NEVER = 2**63 - 1
"""Later than every moment."""


def compiled(function: Function) -> Function:
    """The function as machine code, which runs without the GIL and is kept for the next start."""
    how: Any = {"nogil": True, "error_model": "numpy"}
    try:
        made = numba.njit(cache=True, **how)(function)
    except RuntimeError:  # there is no folder that could be written
        made = numba.njit(**how)(function)
    return cast("Function", made)


@compiled
def entity_bounds(entity: Any, bounds: Any) -> bool:
    """Note in `bounds` (e, 2) where the ticks of each entity begin and end; 0, 0 has none.

    False if those of an entity do not lie together.
    """
    bounds[:] = 0
    begin, n = 0, entity.shape[0]
    while begin < n:
        number, end = entity[begin], begin
        while end < n and entity[end] == number:
            end += 1
        if bounds[number, 1] > 0:
            return False
        bounds[number, 0], bounds[number, 1] = begin, end
        begin = end
    return True


@compiled
def least_known(known: Any, least: Any) -> None:
    """The least `known_at` of each block."""
    least[:] = NEVER
    for i in range(known.shape[0]):
        block = i >> BLOCK_BITS
        least[block] = min(least[block], known[i])


@compiled
def _past(times: Any, begin: int, end: int, moment: int) -> int:
    """The first of the ticks that happened after a moment."""
    while begin < end:
        middle = (begin + end) >> 1
        if times[middle] <= moment:
            begin = middle + 1
        else:
            end = middle
    return begin


@compiled
def _known_by(ticks: Any, begin: int, newest: int, by: int) -> int:
    """The newest tick from `begin` to `newest` that was known and not gone by then, else -1."""
    times, orders, known, gone, least = ticks
    i = newest
    while i >= begin:
        if known[i] <= by:
            if not gone[i]:
                return i
            time, order = times[i], orders[i]
            while i >= begin and times[i] == time and orders[i] == order:
                i -= 1
        elif least[i >> BLOCK_BITS] > by:
            i = ((i >> BLOCK_BITS) << BLOCK_BITS) - 1
        else:
            i -= 1
    return -1


@compiled
def find(questions: Any, bounds: Any, ticks: Any, newer: Any, found: Any) -> None:
    """The tick of each question, an entity at a moment by what was known then; -1 where none is.

    Questions of which a `newer` tick was found are passed over. `questions` are entities, moments
    and when ticks had to be known; `ticks` event times, orders, `known_at`, whether it is gone,
    and the least `known_at` of blocks.
    """
    entity, moments, known = questions
    for k in range(entity.shape[0]):
        begin, end = bounds[entity[k], 0], bounds[entity[k], 1]
        found[k] = -1
        if end > begin and newer[k] < 0:
            newest = _past(ticks[0], begin, end, moments[k]) - 1
            found[k] = _known_by(ticks, begin, newest, known[k])


@compiled
def take(found: Any, column: Any, taken: Any) -> None:
    """The values of ticks that were found; others stay as they are."""
    for k in range(found.shape[0]):
        if found[k] >= 0:
            taken[k] = column[found[k]]


@compiled
def needed_later(
    bounds: Any, known: Any, may_go: Any, settled: Any, limits: Any, needed: Any
) -> None:
    """Mark the ticks that questions about later moments may have as answers.

    A tick is none of them once a newer one was known as early, and is never taken back. `settled`
    (e,) is when the first of such newer ones was known, and is brought up to date; `limits` are the
    least and the greatest moment by which those questions ask what was known.
    """
    first, last = limits
    for e in range(bounds.shape[0]):
        i = bounds[e, 1] - 1
        while i >= bounds[e, 0] and settled[e] > first:
            if known[i] < settled[e] and known[i] <= last:
                needed[i] = True
            if not may_go[i]:
                settled[e] = min(settled[e], known[i])
            i -= 1
