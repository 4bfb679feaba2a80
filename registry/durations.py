"""Durations as a features file writes them: 500ms, 1s, 5m, 1h."""

from __future__ import annotations

import re

from registry.errors import DefinitionError

DURATION = re.compile(r"([0-9]{1,12})(ns|us|ms|s|m|h|d)")
NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
}
LARGEST_SKEW = "1d"
"""Time for which one wrong clock can freeze an entity."""

LARGEST_AGE = "36500d"


def skew_ns(text: str, where: str) -> int:
    """The nanoseconds of a source's `skew`. Raises `DefinitionError`, naming `where`."""
    return _nanoseconds(text, "skew", LARGEST_SKEW, where)


def max_age_ns(text: str | None, where: str) -> int | None:
    """The nanoseconds of a feature's `max_age`, None for any age.

    Raises `DefinitionError`, naming `where`.
    """
    if text is None:
        return None
    age = _nanoseconds(text, "max_age", LARGEST_AGE, where)
    if age == 0:
        raise DefinitionError(
            where, "a max_age of 0 makes every value stale; leave it out for a value of any age"
        )
    return age


def span_ns(text: str, what: str) -> int:
    """The nanoseconds of a duration that a person gives as `what`. Raises `DefinitionError`."""
    return _nanoseconds(text, "the duration", LARGEST_AGE, what)


def duration(nanoseconds: int) -> str:
    """As a features file writes it, in the longest unit that is exact."""
    unit = max(
        (unit for unit, length in NANOSECONDS.items() if nanoseconds % length == 0),
        key=NANOSECONDS.__getitem__,
    )
    return f"{nanoseconds // NANOSECONDS[unit]}{unit if nanoseconds else 's'}"


def _nanoseconds(text: str, what: str, largest: str, where: str) -> int:
    match = DURATION.fullmatch(text)
    if match is None:
        raise DefinitionError(
            where, f"{what} {text!r} is not a duration such as 500ms, 1s, 5m or 1h"
        )
    nanoseconds = int(match[1]) * NANOSECONDS[match[2]]
    if text != largest and nanoseconds > _nanoseconds(largest, what, largest, where):
        raise DefinitionError(where, f"{what} {text!r} is too long: at most {largest}")
    return nanoseconds
