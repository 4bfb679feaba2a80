"""What the values of Avro and Protobuf are in JSON.

Numbers are exact: a double in its shortest digits, integers of 64 bits whole, decimals as text with
all their digits, which a number may be. A time is RFC 3339 text with nine digits of a second, so no
unit can be mistaken.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1)
EPOCH_DAY = date(1970, 1, 1)
MOST_DECIMAL_BYTES, MOST_SCALE = 1_000, 1_000
"""Bytes of a decimal's integer, and digits behind or before its point: far beyond a double's."""

MOST_SIGNS = 200
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Unreadable(Exception):
    """Why a schema, or a value of one, is not read; it becomes the detail of a rejection.

    Libraries quote in their errors what they have read: it is cut, and of signs that no text in
    Postgres can hold, or that would break a line, a question mark is kept.
    """

    def __init__(self, why: str) -> None:
        super().__init__("".join(sign if sign.isprintable() else "?" for sign in why[:MOST_SIGNS]))

    @classmethod
    def of(cls, error: Exception) -> Unreadable:
        """The error of a library that has none for what is wrong, without addresses of objects."""
        return cls(f"{type(error).__name__}: {ADDRESS.sub('', str(error))}")


class TooLong(Exception):
    """A value has more bytes in JSON than are taken."""


def json_of(value: Any, most_bytes: int) -> bytes:
    """A value as JSON text, in UTF-8 and without white space; bytes in it are `bytes_value`.

    What is not a finite number is written as Python and JavaScript write it: the decoder knows it.
    Raises `TooLong` for over `most_bytes`, and `ValueError` for text that has no UTF-8, as half of
    a surrogate pair.
    """
    # thousands of elements may share one long text, of which the encoder would make as many
    if _least_length(value) > most_bytes:
        raise TooLong
    text = _encoder.encode(value).encode()
    if len(text) > most_bytes:
        raise TooLong
    return text


def _least_length(value: Any) -> int:
    """Bytes that a value has in JSON, or fewer."""
    match value:
        case str() | bytes():
            return len(value)
        case dict():
            return sum(map(_least_length, value.values()))
        case list():
            return sum(map(_least_length, value))
    return 1


def time_text(value: int, per_second: int) -> str:
    """The instant `value` / `per_second` seconds after 1970, in RFC 3339.

    One beyond the calendar's years has no such text; what is returned is none either.
    """
    seconds, rest = divmod(value, per_second)
    try:
        moment = (EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return f"{value}/{per_second} s"
    return f"{moment}.{rest * (10**9 // per_second):09d}Z"


def day_text(days: int) -> str | int:
    """The date `days` after 1970-01-01; beyond the calendar's years the number itself."""
    try:
        return (EPOCH_DAY + timedelta(days=days)).isoformat()
    except OverflowError:
        return days


def decimal_text(integer: bytes, scale: int) -> str:
    """The decimal `integer` (two's complement, big-endian) × 10^-`scale`, exactly.

    A `scale` below 0 is that of whole tens, hundreds and so on. Raises `Unreadable` beyond the
    limits.
    """
    if len(integer) > MOST_DECIMAL_BYTES or abs(scale) > MOST_SCALE:
        raise Unreadable(f"a decimal of {len(integer)} bytes with scale {scale}")
    number = int.from_bytes(integer, "big", signed=True)
    if scale <= 0:
        return str(number * 10**-scale)
    digits = str(abs(number)).rjust(scale + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-scale]}.{digits[-scale:]}"


def bytes_value(value: bytes) -> Any:
    """Bytes as the text that they are in UTF-8; others are a value of no type that a field has.

    Raises `TypeError` for what is no bytes.
    """
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no form in JSON")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return of_no_type(value)


def of_no_type(value: bytes) -> Any:
    """Bytes as a value of no type that a field has."""
    return {"bytes": value.hex()}


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=bytes_value)
