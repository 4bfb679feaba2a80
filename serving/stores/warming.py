"""Filling hot with what is read most, before it is asked for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from serving.stores.hot_promotion import BATCH_ROWS, Outcome, Promotion
from serving.stores.row_store import RowId

SHARE = 0.25
"""The part of its time that a server which answers requests spends on it."""


async def warm(
    promotion: Promotion,
    rows: Sequence[RowId],
    on_batch: Callable[[int], None] = lambda rows: None,
    share: float = 1.0,
) -> Counter[Outcome]:
    """Bring rows into hot, one batch after the other.

    Parameters
    ----------
    rows : the rows, the most important first.
    on_batch : is told the number of rows of each batch.
    share : the part of the time in which it works; it pauses for the rest.

    Returns
    -------
    How many rows have had each outcome.
    """
    outcomes: Counter[Outcome] = Counter()
    for begin in range(0, len(rows), BATCH_ROWS):
        batch, begun = rows[begin : begin + BATCH_ROWS], time.monotonic()
        outcomes.update(await promotion.promote(batch))
        on_batch(len(batch))
        await asyncio.sleep((time.monotonic() - begun) * (1 / share - 1))
    return outcomes
