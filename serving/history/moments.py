"""Moments of the past at which something was known, and delays, in nanoseconds."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from registry.durations import DURATION, LARGEST_AGE, span_ns
from registry.errors import DefinitionError
from serving.errors import InvalidRequest

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

TICK = re.compile(r"([0-9T:-]{19})(?:\.([0-9]{1,9}))?Z\.([0-9]{1,18})")
"""An event time in UTC, and a sequence."""

SETTLED_NS = 10**9
"""Nanoseconds a moment must be ago: what came later than this may still be on its way."""

LONGEST_DELAY = "365d"
LONGEST_DELAY_NS = span_ns(LONGEST_DELAY, "delay", LONGEST_DELAY, "delay")


def moment_of(name: str, given: str | datetime) -> int:
    """The moment that `name` was given, RFC 3339 as text, exact to the microsecond.

    Raises `InvalidRequest` for what has no time zone or is no moment.
    """
    try:
        moment = given if isinstance(given, datetime) else datetime.fromisoformat(given)
    except ValueError as error:
        raise InvalidRequest(f"{name} {given}: {error}") from None
    if moment.tzinfo is None:
        raise InvalidRequest(f"{name} {given} has no time zone: 2026-11-24T09:00:00Z has one")
    return (moment - EPOCH) // MICROSECOND * 1_000


def known_by(name: str, given: str | datetime) -> int:
    """The same of a moment by which something was known.

    What is known by a moment that has not come yet would be another thing each time it is asked.
    Raises `InvalidRequest` for it, and as `moment_of`.
    """
    found = moment_of(name, given)
    if found > time.time_ns() - SETTLED_NS:
        raise InvalidRequest(f"{name} {given}: it must be a second ago at least")
    if found < 0:
        raise InvalidRequest(f"{name} {given} lies before 1970, when nothing was known")
    return found


def tick_of(name: str, given: str) -> tuple[int, int]:
    """The event time, nanoseconds UTC, and the sequence of a tick that `name` was given.

    `2026-11-24T14:30:00.000000000Z.3` is the fourth tick of its time. Raises `InvalidRequest`.
    """
    found = TICK.fullmatch(given)
    try:
        if found is None:
            raise ValueError("it has another form")
        seconds = (datetime.fromisoformat(f"{found[1]}+00:00") - EPOCH) // timedelta(seconds=1)
    except ValueError as error:
        raise InvalidRequest(
            f"{name} {given}: {error}; 2026-11-24T14:30:00.000000000Z.3 is the fourth tick of its "
            "time"
        ) from None
    return seconds * 10**9 + int((found[2] or "").ljust(9, "0")), int(found[3])


def since(name: str, given: str, until: int) -> int:
    """The moment that `name` was given: RFC 3339, or how long before `until`, as 24h.

    Raises `InvalidRequest`, and `DefinitionError` for what is neither.
    """
    if DURATION.fullmatch(given):
        return max(0, until - span_ns(given, name, LARGEST_AGE, name))
    return known_by(name, given)


def settled() -> int:
    """The newest moment that can be asked about."""
    return time.time_ns() - SETTLED_NS


def delay_of(name: str, given: str | timedelta | None) -> int:
    """The duration that `name` was given, as 250ms or 5s; None for none.

    Raises `InvalidRequest`.
    """
    if given is None:
        return 0
    if isinstance(given, timedelta):
        found = given // MICROSECOND * 1_000
        if not 0 <= found <= LONGEST_DELAY_NS:
            raise InvalidRequest(f"{name} {given}: it must be between 0 and {LONGEST_DELAY}")
        return found
    try:
        return span_ns(given, name, LONGEST_DELAY, name)
    except DefinitionError as error:
        raise InvalidRequest(str(error)) from None
