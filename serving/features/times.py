"""Times as text."""

from __future__ import annotations

from datetime import UTC, datetime


def to_rfc_3339(nanoseconds: int) -> str:
    """RFC 3339 text in UTC, with as many digits of a second as it needs."""
    seconds, rest = divmod(nanoseconds, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{text}{fraction}Z"
