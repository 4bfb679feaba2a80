"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def to_rfc_3339(nanoseconds: int) -> str:
    """RFC 3339 text in UTC with nine digits of a second, whatever they are.

    So texts sort as the times do. Some libraries also take `.123Z` for 123 microseconds; of nine
    digits they read the right time or none.
    """
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(4_096)
def _second(seconds: int) -> str:
    """The text of a second, of which there are many times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
