"""The window state of an entity, as stores keep and restore it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.ticks.columns import TRADE
from registry.formats.origin import Origin
from registry.formats.row import is_closed
from registry.formats.state import CLOSED, tick_layout


def tick_dtype(fields: int) -> np.dtype[np.void]:
    """The type of one remembered tick of a source with so many fields."""
    return tick_layout(fields).dtype


@dataclass(frozen=True, slots=True)
class EntityState:
    """What the kernel must know of an entity to continue.

    `origin` is its newest accepted tick's (whose partition is its home), `sequence` that tick's
    sequence, `count` how many ticks it ever accepted, `fill` how many since its last reset, or
    `registry.formats.state.CLOSED`.
    `ticks` are the newest ones (`tick_dtype`), oldest first, at most as many as were requested.
    """

    origin: Origin
    sequence: int
    count: int
    fill: int
    ticks: NDArray[np.void]


def fill_of(ops: NDArray[np.integer[Any]], status: bytes) -> int:
    """The `fill` of an entity, of the ops of its ticks, oldest first, and its newest row's status.

    Resets may have followed a close until it is beyond what is read, so the status decides.
    """
    if is_closed(status):
        return CLOSED
    emptied = np.flatnonzero(ops != TRADE)
    return len(ops) - 1 - int(emptied[-1]) if len(emptied) else len(ops)
