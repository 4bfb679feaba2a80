"""Event times: integers of a unit, or RFC 3339 text, to nanoseconds UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from registry.definitions import TimeUnit

NANOSECONDS: dict[TimeUnit, int] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
LATEST = 7_289_654_400 * 10**9
"""The first nanosecond of the year 2201, and the first that is out of range."""

HOUR, MINUTE = r"(?:[01]\d|2[0-3])", r"[0-5]\d"
"""Spelled out: whether Python takes an hour of 24 or an offset of 99 minutes differs by version."""

RFC_3339 = re.compile(
    rf"(\d{{4}}-\d{{2}}-\d{{2}})[Tt ]({HOUR}:{MINUTE}:{MINUTE})(?:\.(\d{{1,9}}))?"
    rf"([Zz]|[+-]{HOUR}:{MINUTE})",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def parse_rfc_3339(text: str) -> int | None:
    """Nanoseconds UTC of a time with an offset and up to nine digits of a second, or None.

    A leap second (`:60`) has no number of nanoseconds since 1970, so it gives None.
    """
    match = RFC_3339.fullmatch(text)
    if match is None:
        return None
    date, clock, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        seconds = (moment - EPOCH) // SECOND
    except (ValueError, OverflowError):
        return None
    return seconds * 10**9 + int((fraction or "").ljust(9, "0"))
