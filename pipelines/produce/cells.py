"""One cell at a time: what it means, or why it means nothing.

These are the exact rules, for what the columns' fast ways (`produce.cell_columns`, `.event_times`)
do not take. Each function raises ValueError, whose message continues a sentence that begins with
the cell: "'x' is not a number".
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from pipelines.ticks.event_time import parse_rfc_3339
from pipelines.ticks.field_values import is_key
from pipelines.ticks.message_limits import MAX_KEY_BYTES

NUMBER = re.compile(r"([+-]?)(?:(\d+)\.?(\d*)|\.(\d+))([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"([+-]?\d{1,30})(?:\.0*)?", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

BARE_OFFSET = re.compile(r"(:\d{2}(?:\.\d+)?[+-]\d{2})(\d{2})$", re.ASCII)
"""The end of a time whose offset from UTC has no colon."""

ENDINGS = ("", "Z", ":00", ":00Z")
"""Endings that a time may lack to be RFC 3339: none, its zone (it is UTC then), the minutes of its
zone, or its seconds and its zone."""


def key(cell: str) -> str:
    """A key field: text as it is written."""
    if not is_key(cell):
        raise ValueError(f"must have 1 to {MAX_KEY_BYTES} bytes and no control character")
    return cell


def text(cell: str) -> str:
    """Any text."""
    return cell


def number(cell: str) -> str:
    """The same digits as JSON allows them: no plus sign, no leading zeros, a digit before a dot."""
    match = NUMBER.fullmatch(cell.strip())
    if match is None:
        if DECIMAL_COMMA.fullmatch(cell.strip()):
            raise ValueError("is not a number: a comma is no decimal point here")
        raise ValueError("is not a number")
    sign, whole, fraction, bare_fraction, exponent = match.groups()
    digits = (whole or "").lstrip("0") or "0"
    decimals = fraction or bare_fraction
    return f"{sign.strip('+')}{digits}{f'.{decimals}' if decimals else ''}{exponent or ''}"


def integer(cell: str) -> int:
    """A sequence number. A whole float is one: gaps make pandas turn integers into floats."""
    match = INTEGER.fullmatch(cell.strip())
    whole = None if match is None else int(match[1])
    if whole is None and NUMBER.fullmatch(cell.strip()):
        exact = Decimal(cell.strip())
        whole = int(exact) if exact == exact.to_integral_value() and abs(exact) <= 2**53 else None
    if whole is None or not -(2**63) < whole < 2**63:
        raise ValueError("is not an integer of 64 bits")
    return whole


def since_1970(cell: str, factor: int) -> int:
    """Nanoseconds of a number of units of `factor` nanoseconds, exactly."""
    stripped = cell.strip()
    if NUMBER.fullmatch(stripped) is None or not math.isfinite(float(stripped)):
        raise ValueError("is not a number")
    exact = Decimal(stripped) * factor
    if exact != exact.to_integral_value():
        raise ValueError("has more digits than nanoseconds have")
    return int(exact)


def moment(cell: str) -> tuple[int, bool]:
    """Nanoseconds of a time in text, and whether it has a zone; without one they are local.

    A date is its midnight.
    """
    stripped = cell.strip()
    full = f"{stripped}T00:00:00" if DATE.fullmatch(stripped) else stripped.replace(" ", "T", 1)
    full = BARE_OFFSET.sub(r"\1:\2", full)
    for ending in ENDINGS:
        found = parse_rfc_3339(full + ending)
        if found is not None:
            return found, not ending.endswith("Z")
    raise ValueError(
        "is neither an integer nor a time as 2026-11-24T13:05:46.264Z; --ts-format says how it is "
        "written, as '%d.%m.%Y %H:%M:%S'"
    )
