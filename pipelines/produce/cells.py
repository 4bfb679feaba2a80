"""Cells of a file to JSON values: text exactly as it is written, numbers without a conversion.

A cell is text, a number, or None. A number in text or a decimal keeps its digits, so that the topic
holds the number that the file holds; a float is written with the fewest digits that give it back.
Each function raises ValueError, whose message continues a sentence that begins with the cell:
"'x' is not a number".
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import msgspec

from pipelines.ticks.event_time import parse_rfc_3339
from pipelines.ticks.message_limits import MAX_KEY_BYTES
from pipelines.ticks.reference_decoder import is_key

NUMBER = re.compile(r"([+-]?)(?:(\d+)\.?(\d*)|\.(\d+))([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"([+-]?\d{1,30})(?:\.0*)?", re.ASCII)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

EXACT = 2**53
"""The largest integer up to which every integer is a double; a larger float is ambiguous."""

ENDINGS = ("", "Z", ":00", ":00Z")
"""Endings that a time may lack to be RFC 3339: none, its zone (it is UTC then), the minutes of its
zone, or its seconds and its zone."""


def key(cell: Any) -> str:
    """A key field: text as it is written, or an integer's digits."""
    text = str(cell) if _is_integer(cell) else cell
    if not isinstance(text, str):
        raise ValueError("is neither text nor an integer")
    if not is_key(text):
        raise ValueError(f"must have 1 to {MAX_KEY_BYTES} bytes and no control character")
    return text


def operation(cell: Any) -> str:
    """An operation."""
    if not isinstance(cell, str):
        raise ValueError("is not text")
    return cell


def number(cell: Any) -> float | msgspec.Raw:
    """A number, as JSON."""
    if isinstance(cell, float):
        if not math.isfinite(cell):
            raise ValueError("is not a finite number")
        return cell
    if isinstance(cell, str):
        digits = _json_number(cell.strip())
    elif isinstance(cell, Decimal) or _is_integer(cell):
        digits = format(cell, "f" if isinstance(cell, Decimal) else "d")
    else:
        raise ValueError("is not a number")
    if math.isinf(float(digits)):
        raise ValueError("is beyond the largest double")
    return msgspec.Raw(digits.encode())


def integer(cell: Any) -> int:
    """A sequence number. A whole float is one: gaps make pandas turn integers into floats."""
    whole = _integer(cell)
    if whole is None or not -(2**63) < whole < 2**63:
        raise ValueError("is not an integer of 64 bits")
    return whole


def moment(cell: Any) -> int | str:
    """An event time: an integer of the source's unit, or RFC 3339 text.

    A time without a zone is UTC, and a date is its midnight, UTC.
    """
    whole = _integer(cell)
    if whole is not None:
        return whole
    if isinstance(cell, str):
        text = cell.strip()
        if parse_rfc_3339(text) is not None:
            return text
        full = f"{text}T00:00:00" if DATE.fullmatch(text) else text.replace(" ", "T", 1)
        for ending in ENDINGS:
            if parse_rfc_3339(full + ending) is not None:
                return full + ending
    raise ValueError("is neither an integer nor a time as 2026-11-24T13:05:46.264Z")


def _is_integer(cell: Any) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool)


def _integer(cell: Any) -> int | None:
    """The integer that a cell unambiguously means, or None."""
    if isinstance(cell, str):
        match = INTEGER.fullmatch(cell.strip())
        return None if match is None else int(match[1])
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) <= EXACT else None
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else None
    return cell if _is_integer(cell) else None


def _json_number(text: str) -> str:
    """The same digits as JSON allows them: no plus sign, no leading zeros, a digit before a dot."""
    match = NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("is not a number")
    sign, whole, fraction, bare_fraction, exponent = match.groups()
    digits = (whole or "").lstrip("0") or "0"
    decimals = fraction or bare_fraction
    return f"{sign.strip('+')}{digits}{f'.{decimals}' if decimals else ''}{exponent or ''}"
