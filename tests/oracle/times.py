"""Times of ticks as nanoseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

YEAR_1971_NS = 365 * 86_400 * 10**9
YEAR_2201_NS = 7_289_654_400 * 10**9
UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
RFC_3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})"
)


def nanoseconds(ts: int | str, unit: str) -> int:
    """A time as a tick has it: an integer in its source's unit, or a text that is a time."""
    if isinstance(ts, int):
        return ts * UNIT_NS[unit]
    time = rfc_3339(ts)
    assert time is not None
    return time


def rfc_3339(text: str) -> int | None:
    """Nanoseconds UTC, None for what is not a time."""
    match = RFC_3339.fullmatch(text)
    if match is None:
        return None
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    if max(clock[:2], zone[1:3]) > "23" or max(clock[3:5], clock[6:], zone[4:]) > "59":
        return None
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone}")
    except ValueError:
        return None
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = whole.days * 86_400 + whole.seconds
    return seconds * 10**9 + int((fraction or "0").ljust(9, "0"))
