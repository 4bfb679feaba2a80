"""The window state of an entity, as stores keep and restore it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from registry.formats.origin import Origin
from registry.formats.state import tick_layout


def tick_dtype(fields: int) -> np.dtype[np.void]:
    """The type of one remembered tick of a source with so many fields."""
    return tick_layout(fields).dtype


@dataclass(frozen=True, slots=True)
class EntityState:
    """What the kernel must know of an entity to continue.

    `origin` is its newest accepted tick's (whose partition is its home), `sequence` that tick's
    sequence, `count` how many ticks it ever accepted, `fill` how many since its last reset.
    `ticks` are the newest ones (`tick_dtype`), oldest first, at most as many as were requested.
    """

    origin: Origin
    sequence: int
    count: int
    fill: int
    ticks: NDArray[np.void]
