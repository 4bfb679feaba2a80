"""The values of a tick's fields as JSON has them, to doubles, nanoseconds and numbers of 64 bits.

It is a part of the definition (`ticks.reference_decoder`): slow and plain.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from fractions import Fraction
from hashlib import sha256
from typing import Any

from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.columns import NO_SEQ
from pipelines.ticks.event_time import LATEST, NANOSECONDS
from pipelines.ticks.message_elements import NotANumber, Rejected
from pipelines.ticks.message_limits import MAX_KEY_BYTES
from registry.definitions import Place, Source, TimeUnit

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
MOST_DIGITS = 4000
"""Digits of an integer that Python reads from text; it is beyond every limit long before."""

NO_PRICE = 2**63 - 1
NO_TIME = {
    2**64 - 1: "Databento writes where there is no time",
    2**63 - 1: "kdb+ and Databento write for no time",
    -(2**63): "numpy and pandas write for no time (NaT)",
}
"""What formats of market data write for no value, by name."""

DATES = range(1971_01_01, 2200_12_32)


def is_key(text: str) -> bool:
    """Whether a string can name an entity: 1 to 255 bytes of UTF-8, no control character."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        return False
    return 0 < size <= MAX_KEY_BYTES and min(text) >= " "


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_digits(value: Any) -> bool:
    """Whether a value is text that is exactly a JSON integer."""
    return isinstance(value, str) and INTEGER.fullmatch(value) is not None


def is_number(value: Any, place: Place) -> bool:
    """Whether a value is a JSON number, or text that is exactly one; an integer if it is scaled."""
    if place.scale:
        return is_integer(value) or is_digits(value)
    if isinstance(value, str):
        return NUMBER.fullmatch(value) is not None
    return is_integer(value) or isinstance(value, float)


def double_of(value: Any, place: Place) -> float:
    """The double nearest to a number. Raises `Rejected` for one that is not finite or stands for no
    value.

    A scaled integer is multiplied with its power of ten exactly, and the product is rounded once:
    it is the double of the decimal number that it stands for, `42000100000000` with a scale of 1e-9
    that of `42000.1`.
    """
    exact = _parsed(value) if isinstance(value, str) else value
    if is_integer(exact) and exact == NO_PRICE:
        raise Rejected(
            reasons.NOT_FINITE, f"{place.name} is {NO_PRICE}, which Databento writes for no value"
        )
    try:
        if isinstance(exact, NotANumber):
            number = math.nan
        elif place.scale:
            number = float(exact * Fraction(10) ** place.scale)
        else:
            number = float(exact)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Rejected(reasons.NOT_FINITE, f"{place.name} is not a finite double")
    return number


def integer_of(text: str) -> int:
    """The integer of text that is exactly one; of too many digits, one beyond every limit."""
    return int(text) if len(text) <= MOST_DIGITS else 10**MOST_DIGITS


def seq_of(value: Any) -> tuple[int, str | None]:
    """A `seq` as an integer of 64 bits, and its text if it is text.

    A text is the first eight bytes of its SHA-256, big-endian and signed; never the one number
    that stands for no seq.
    """
    if value is None:
        return NO_SEQ, None
    if not isinstance(value, str):
        return value, None
    digest = int.from_bytes(sha256(value.encode()).digest()[:8], "big", signed=True)
    return digest + (digest == NO_SEQ), value


def time_problem(ts: Any, tick_time: int, source: Source, known_at: int) -> str | None:
    """Why a time cannot be one of the source's ticks; None if it can."""
    if source.earliest_ns <= tick_time < LATEST:
        return None
    if not is_integer(ts):
        return f"ts {ts} is not from {_first(source.earliest_ns)} to 2200"
    problem = f"ts {_short(ts)} is {_moment(tick_time)} in {source.ts_unit}"
    if ts in NO_TIME:
        return f"ts {ts} is what {NO_TIME[ts]}"
    meant = _sensible(ts, source, known_at)
    return (
        f"{problem}; {meant}"
        if meant
        else f"{problem}: not from {_first(source.earliest_ns)} to 2200"
    )


def _sensible(ts: int, source: Source, known_at: int) -> str | None:
    """How an integer would be a time that is near that of its record."""
    if ts in DATES and (day := _date(ts)):
        return (
            f"as a date it would be {day}: send the time in {source.ts_unit}, or as RFC 3339 text"
        )
    times: dict[TimeUnit, int] = {unit: ts * factor for unit, factor in NANOSECONDS.items()}
    fitting = {unit: t for unit, t in times.items() if source.earliest_ns <= t < LATEST}
    if not fitting:
        return None
    unit = min(fitting, key=lambda each: abs(fitting[each] - known_at))
    return f'it would be {_moment(fitting[unit])} in {unit}: declare ts_unit = "{unit}"'


def _date(ts: int) -> str | None:
    try:
        return datetime.strptime(str(ts), "%Y%m%d").date().isoformat()
    except ValueError:
        return None


def _moment(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "beyond the calendar"


def _first(nanoseconds: int) -> str:
    """The first good time, as exact as it is: a year, a day or a moment."""
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000, tzinfo=None)
    return moment.isoformat().removesuffix("T00:00:00").removesuffix("-01-01")


def _short(number: int) -> str:
    return str(number) if abs(number) < 10**40 else "of more than 40 digits"


def _parsed(text: str) -> Any:
    """A number in text as JSON has it: an integer has no negative zero."""
    if len(text) > MOST_DIGITS:
        return float(text) if not INTEGER.fullmatch(text) else integer_of(text)
    return json.loads(text)
