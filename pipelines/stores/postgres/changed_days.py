"""The days of which a transaction stores rows, which it counts (`tickwell.day_changes`).

Who has copied a day of rows elsewhere, as the lake, knows by that count whether the copy is whole.
So everything that stores rows counts their days, in the transaction that stores them.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import numpy as np

from pipelines.runtime.array_types import Int64s
from registry.formats.lake import DAY_NS

CHANGE_DAYS = (
    "SELECT tickwell.change_days("
    "%(source)s, %(writer)s, %(topic_id)s::uuid, %(partition)s, %(days)s::integer[])"
)

Writer = Literal["live", "replay", "carried", "load", "repair"]
"""Who stores rows. Two transactions of one writer that change a day by rows of one partition wait
for each other, and those of two writers do not."""


def days_of(event_times: Int64s) -> list[int]:
    """The days of event times, numbered from 1970-01-01 on, each once."""
    if not len(event_times):
        return []
    first, last = int(event_times.min()) // DAY_NS, int(event_times.max()) // DAY_NS
    if first == last:  # most runs are of one day, and to sort their times would take longer
        return [first]
    days: list[int] = np.unique(event_times // DAY_NS).tolist()
    return days


def change_days(
    cursor: Any,
    source: str,
    writer: Writer,
    topic_id: bytes,
    partition: int,
    event_times: Int64s,
) -> None:
    """Count that rows of a source with these event times are stored, by the caller's transaction.

    It is to be called by whoever adds rows, or revisions of rows, in whatever way.
    """
    changed = {
        "source": source,
        "writer": writer,
        "topic_id": str(UUID(bytes=topic_id)),
        "partition": partition,
        "days": days_of(event_times),
    }
    cursor.execute(CHANGE_DAYS, changed)
