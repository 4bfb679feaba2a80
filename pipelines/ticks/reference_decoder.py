"""The definition of a tick: one message by itself, slowly and exactly.

`ticks.json_scanner` is the fast way for ticks that pass every check, and leaves all others to this
one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.columns import CLOSE, NO_SEQ, RESET, TRADE
from pipelines.ticks.event_time import LATEST, NANOSECONDS, parse_rfc_3339
from pipelines.ticks.message_limits import (
    MAX_ARRAY_TICKS,
    MAX_DEPTH,
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
)
from registry.definitions import Source

OPERATIONS = {"trade": TRADE, "reset": RESET, "close": CLOSE}
"""What ticks do, by `op`. Only entities with more than one key field, as positions are, close."""

WITHOUT_NUMBERS = frozenset({"reset", "close"})


@dataclass(frozen=True, slots=True)
class Tick:
    """A well-formed tick: key field values, nanoseconds UTC, NO_SEQ without one, NaN for absent."""

    key: tuple[str, ...]
    tick_time: int
    seq: int
    op: int
    fields: tuple[float, ...]


TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
"""A string, or a bracket. A string without an end extends to the message's end: else each quote in
it would be tried as a beginning, which takes minutes for a message full of them."""

GAP = re.compile(r"[ \t\r\n,]*")
"""The text between the elements of a well-formed array."""


class Rejected(Exception):
    """A tick is not counted, for this reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class _NotANumber(float):
    """`NaN`, `Infinity`: not JSON, but what some encoders write for a number."""


_decoder = json.JSONDecoder(parse_constant=_NotANumber)


def split(message: bytes | None, key: bytes | None) -> Iterator[tuple[int, bytes]]:
    """The ticks of a message: the index of each in it, and its own bytes.

    Raises `Rejected` when the message as a whole is not a tick or an array of ticks, or its key is
    longer than that of any tick: kept with each rejected tick it would take gigabytes.
    """
    if message is not None and len(message) > MAX_MESSAGE_BYTES:
        raise Rejected(
            reasons.TOO_LARGE, f"{len(message)} bytes; at most {MAX_MESSAGE_BYTES} are taken"
        )
    check_depth(message or b"")
    text = _text(message)
    parsed = _parse(text)
    if isinstance(parsed, list) and not parsed:
        raise Rejected(reasons.MALFORMED, "an empty array")
    if isinstance(parsed, list) and len(parsed) > MAX_ARRAY_TICKS:
        raise Rejected(
            reasons.TOO_LARGE, f"{len(parsed)} ticks in an array; at most {MAX_ARRAY_TICKS}"
        )
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise Rejected(
            reasons.KEY_MISMATCH, f"the message key has {len(key)} bytes; at most {MAX_KEY_BYTES}"
        )
    if not isinstance(parsed, list):
        yield 0, message or b""
        return
    for index, (start, end) in enumerate(_elements(text)):
        yield index, text[start:end].encode()


def judge(tick: bytes, source: Source, message_key: bytes | None, known_at: int) -> Tick:
    """The tick of a JSON object. `known_at` is its record's timestamp, nanoseconds UTC.

    Raises `Rejected` with the first reason that fits, in the order of `ticks.rejection_reasons`.
    """
    given = _parse(_text(tick))
    if not isinstance(given, dict):
        raise Rejected(reasons.MALFORMED, "a tick is a JSON object")
    operation = given.get("op", "trade")
    empties = isinstance(operation, str) and operation in WITHOUT_NUMBERS
    needed = [field.name for field in source.fields if field.required and not empties]
    _check_shape(given, source, needed)
    if isinstance(operation, str) and operation not in OPERATIONS:
        raise Rejected(
            reasons.UNSUPPORTED_OP, f"op {operation[:40]!r}; trade, reset and close are supported"
        )
    if operation == "close" and len(source.key) == 1:
        raise Rejected(
            reasons.UNSUPPORTED_OP,
            f"op 'close' is for sources with several key fields; {source.name} has one, so a reset "
            "is what empties its windows",
        )
    _check_types(given, source, operation, needed)

    fields = _fields(given, source) if operation == "trade" else [math.nan] * len(source.fields)
    tick_time = _nanoseconds(given["ts"], source)
    if not 0 <= tick_time < LATEST:
        raise Rejected(
            reasons.OUT_OF_RANGE,
            f"ts {given['ts']} ({source.ts_unit}) is not between 1970 and 2200",
        )
    key = tuple(given[name] for name in source.key)
    if message_key is None or message_key != key[0].encode():
        shown = None if message_key is None else message_key[:40]
        raise Rejected(
            reasons.KEY_MISMATCH,
            f"the message key is {shown!r}; it must be {source.key[0]}, {key[0][:40]!r}",
        )
    if tick_time > known_at + source.skew_ns:
        ahead = (tick_time - known_at) / 1e9
        raise Rejected(
            reasons.FROM_THE_FUTURE,
            f"{ahead:.3f} s ahead of its record; at most {source.skew_ns / 1e9:g} s are taken",
        )
    seq = given.get("seq")
    return Tick(
        key=key,
        tick_time=tick_time,
        seq=NO_SEQ if seq is None else seq,
        op=OPERATIONS[operation],
        fields=tuple(fields),
    )


def is_key(text: str) -> bool:
    """Whether a string can name an entity: 1 to 255 bytes of UTF-8, no control character."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can escape
        return False
    return 0 < size <= MAX_KEY_BYTES and min(text) >= " "


def check_depth(message: bytes) -> None:
    """Raises `Rejected` for a message that is nested deeper than `MAX_DEPTH`."""
    if message.count(b"[") + message.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in TOKEN.finditer(message):
        if token[0] in (b"[", b"{"):
            depth += 1
        elif token[0] in (b"]", b"}"):
            depth -= 1
        if depth > MAX_DEPTH:
            raise Rejected(reasons.MALFORMED, f"nested deeper than {MAX_DEPTH}")


def _text(message: bytes | None) -> str:
    try:
        return (message or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(reasons.MALFORMED, f"not UTF-8: {error.reason}") from None


def _parse(text: str) -> Any:
    try:
        # not decoder.decode: it would take a byte order mark for white space
        parsed, end = _decoder.raw_decode(text.lstrip(" \t\r\n"))
    except (ValueError, RecursionError) as error:
        raise Rejected(reasons.MALFORMED, f"not JSON: {error}"[:200]) from None
    if text.lstrip(" \t\r\n")[end:].strip(" \t\r\n"):
        raise Rejected(reasons.MALFORMED, "not JSON: more follows the first value")
    return parsed


def _elements(text: str) -> Iterator[tuple[int, int]]:
    """The bounds of the elements of a well-formed, non-empty JSON array."""
    position = text.index("[") + 1
    while True:
        gap = GAP.match(text, position)
        position = gap.end() if gap else position
        if text[position] == "]":
            return
        _, end = _decoder.raw_decode(text, position)
        yield position, end
        position = end


def _check_shape(given: dict[str, Any], source: Source, needed: list[str]) -> None:
    for name in (*source.key, "ts", *needed):
        if name not in given:
            raise Rejected(reasons.MALFORMED, f"{name} is missing")
    for name in source.key:
        value = given[name]
        if isinstance(value, str) and not is_key(value):
            raise Rejected(
                reasons.MALFORMED,
                f"{name} {value[:40]!r} must have 1 to {MAX_KEY_BYTES} bytes and no control "
                "character",
            )
    if isinstance(given["ts"], str) and parse_rfc_3339(given["ts"]) is None:
        raise Rejected(reasons.MALFORMED, f"ts {given['ts'][:40]!r} is not an RFC 3339 time")


def _check_types(given: dict[str, Any], source: Source, operation: Any, needed: list[str]) -> None:
    def must(right: bool, name: str, kind: str) -> None:
        if not right:
            shown = f"{given.get(name)!r}"[:40]
            raise Rejected(reasons.UNKNOWN_FIELD_TYPE, f"{name} is {shown}, not {kind}")

    must(isinstance(operation, str), "op", "a string")
    for name in source.key:
        must(isinstance(given[name], str), name, "a string")
    ts, seq = given["ts"], given.get("seq")
    must(_is_integer(ts) or isinstance(ts, str), "ts", "an integer or RFC 3339 text")
    must(seq is None or (_is_integer(seq) and abs(seq) < -NO_SEQ), "seq", "a signed 64-bit integer")
    if operation in WITHOUT_NUMBERS:
        return
    for name in source.field_names:
        value = given.get(name)
        number = _is_integer(value) or isinstance(value, float)
        must(number or (value is None and name not in needed), name, "a number")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fields(given: dict[str, Any], source: Source) -> list[float]:
    values = []
    for field in source.fields:
        value = given.get(field.name)
        if value is None:
            values.append(math.nan if field.default is None else field.default)
            continue
        try:
            number = math.nan if isinstance(value, _NotANumber) else float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise Rejected(reasons.NOT_FINITE, f"{field.name} is not a finite double")
        values.append(number)
    if source.positive:
        for field, number in zip(source.fields, values, strict=True):
            if number <= 0 and given.get(field.name) is not None:
                raise Rejected(reasons.NOT_POSITIVE, f"{field.name} is {number!r}")
    return values


def _nanoseconds(ts: int | str, source: Source) -> int:
    if isinstance(ts, str):
        parsed = parse_rfc_3339(ts)
        assert parsed is not None, "checked with the shape"
        return parsed
    return ts * NANOSECONDS[source.ts_unit]
