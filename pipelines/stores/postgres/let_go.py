"""Months that Postgres let go of: the lake has their rows (`pipelines.lake.retention`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

ROWS_SINCE = "SELECT tickwell.rows_since(%s)"
OFFSET = """
SELECT coalesce(max(next_offset), 0) FROM tickwell.dropped_offsets
WHERE topic_id = %s::uuid AND partition = %s
"""


def rows_since(cursor: Any, source: str) -> int | None:
    """The time from which on Postgres has all rows of a source, nanoseconds UTC; None for all.

    Of the time before it has those that states need, and what was stored since.
    """
    cursor.execute(ROWS_SINCE, (source,))
    found: int | None = cursor.fetchone()[0]
    return found


def in_the_lake_alone(since: int) -> str:
    """Says of what time the lake alone has all rows."""
    day = datetime.fromtimestamp(since // 10**9, UTC).date()
    return f"of the time before {day} the lake alone has all rows (`tickwell lake status`)"
