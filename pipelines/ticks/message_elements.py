"""One record to the JSON objects that should be ticks: the message itself, or elements of an array.

It is a part of the definition (`ticks.reference_decoder`): slow and plain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.message_limits import (
    MAX_ARRAY_TICKS,
    MAX_DEPTH,
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
)
from pipelines.ticks.source_reading import MISSING, Reading, at

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
"""A string, or a bracket. A string without an end extends to the message's end: else each quote in
it would be tried as a beginning, which takes minutes for a message full of them."""

GAP = re.compile(r"[ \t\r\n,]*")
"""The text between the elements of a well-formed array, or the members of an object."""

COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
SCHEMA_ID_BYTES = 5
"""Bytes before a value of a schema registry's serializers: 0, and the schema id in four bytes."""


class Message(NamedTuple):
    """A record. `known_at` is its timestamp, nanoseconds UTC; of headers the last of a name."""

    value: bytes | None
    key: bytes | None
    known_at: int
    partition: int = 0
    headers: Mapping[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Element:
    """What should be a tick: its index in its array (0 for a message), and its own bytes.

    A message without a value has no bytes. `tick` is what they are in JSON, `around` the message
    around an element of `items`.
    """

    index: int
    raw: bytes | None
    tick: Any = None
    around: Any = None


class Rejected(Exception):
    """A tick is not counted, for this reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PassedOver(Exception):
    """A message, or an element of one, is not of the kind that the source declares."""


class NotANumber(float):
    """`NaN`, `Infinity`: not JSON, but what some encoders write for a number."""


_decoder = json.JSONDecoder(parse_constant=NotANumber)


def split(message: Message, reading: Reading) -> Iterator[Element]:
    """The elements of a message.

    Raises `Rejected` when the message as a whole is not a tick or an array of ticks, or its key is
    longer than that of any tick: kept with each rejected tick it would take gigabytes. Raises
    `PassedOver` when a condition on the message does not hold, or its array of ticks is empty.
    """
    value = message.value or b""
    if len(value) > MAX_MESSAGE_BYTES:
        raise Rejected(
            reasons.TOO_LARGE, f"{len(value)} bytes; at most {MAX_MESSAGE_BYTES} are taken"
        )
    _check_form(message.value)
    check_depth(value)
    text = _text(value)
    parsed = _parse(text)
    is_array = isinstance(parsed, list)
    if reading.items is None and is_array:
        _check_length(parsed)
    if message.key is not None and len(message.key) > MAX_KEY_BYTES:
        raise Rejected(
            reasons.KEY_MISMATCH,
            f"the message key has {len(message.key)} bytes; at most {MAX_KEY_BYTES}",
        )
    if reading.items is not None:
        yield from _items(message, text, parsed, reading)
    elif is_array:
        for index, (start, end) in enumerate(_elements(text, text.index("["))):
            yield Element(index, text[start:end].encode(), parsed[index])
    else:
        yield Element(0, value, parsed)


def _parse(text: str) -> Any:
    """The value of a JSON text. Raises `Rejected`."""
    try:
        # not decoder.decode: it would take a byte order mark for white space
        parsed, end = _decoder.raw_decode(text.lstrip(" \t\r\n"))
    except (ValueError, RecursionError) as error:
        raise Rejected(reasons.MALFORMED, f"not JSON: {error}"[:200]) from None
    if text.lstrip(" \t\r\n")[end:].strip(" \t\r\n"):
        raise Rejected(reasons.MALFORMED, "not JSON: more follows the first value")
    return parsed


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


def _check_form(value: bytes | None) -> None:
    """Raises `Rejected` for what is known to be something else than JSON."""
    if value is None:
        raise Rejected(
            reasons.MALFORMED,
            "no value: a tombstone, which deletes its key from a compacted topic, and is no tick",
        )
    if value[:1] == b"\0" and len(value) >= SCHEMA_ID_BYTES:
        schema = int.from_bytes(value[1:SCHEMA_ID_BYTES], "big")
        raise Rejected(
            reasons.MALFORMED,
            f"not JSON: it begins as the serializers of a schema registry write (Avro, Protobuf "
            f"or JSON Schema), and names the schema id {schema}: declare the source's `format`",
        )


def _check_length(array: list[Any]) -> None:
    if not array:
        raise Rejected(reasons.MALFORMED, "an empty array")
    if len(array) > MAX_ARRAY_TICKS:
        raise Rejected(
            reasons.TOO_LARGE, f"{len(array)} ticks in an array; at most {MAX_ARRAY_TICKS}"
        )


def _items(message: Message, text: str, parsed: Any, reading: Reading) -> Iterator[Element]:
    """The elements of the array in a field of a message."""
    assert reading.items is not None, "asked by the caller"
    if not isinstance(parsed, dict):
        raise Rejected(
            reasons.MALFORMED, f"a message is a JSON object with the array {reading.shown_items}"
        )
    if not reading.holds_around(parsed, message.key, message.headers):
        raise PassedOver
    array = at(parsed, reading.items)
    if array is MISSING:
        raise Rejected(
            reasons.MALFORMED,
            f"{reading.shown_items} is missing; messages of other kinds are passed over where the "
            "source says which are its own, by `where`",
        )
    if not isinstance(array, list):
        raise Rejected(reasons.UNKNOWN_FIELD_TYPE, f"{reading.shown_items} is not an array")
    if not array:
        raise PassedOver
    _check_length(array)
    position = _value_start(text, 0)
    for name in reading.items:
        position = _member(text, position, name)
    for index, (start, end) in enumerate(_elements(text, position)):
        yield Element(index, text[start:end].encode(), array[index], parsed)


def _text(message: bytes) -> str:
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected(reasons.MALFORMED, f"not UTF-8: {error.reason}") from None


def _elements(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The bounds of the elements of the well-formed, non-empty JSON array at `start`."""
    position = start + 1
    while True:
        position = _value_start(text, position)
        if text[position] == "]":
            return
        _, end = _decoder.raw_decode(text, position)
        yield position, end
        position = end


def _member(text: str, start: int, wanted: str) -> int:
    """Where the value of a member of the well-formed object at `start` begins.

    Of several with the name it is the last one, which is the one that counts.
    """
    position, found = start + 1, -1
    while True:
        position = _value_start(text, position)
        if text[position] == "}":
            assert found >= 0, "the value was found before"
            return found
        name, position = _decoder.raw_decode(text, position)
        colon = COLON.match(text, position)
        assert colon is not None, "it was parsed before"
        if name == wanted:
            found = colon.end()
        _, position = _decoder.raw_decode(text, colon.end())


def _value_start(text: str, position: int) -> int:
    gap = GAP.match(text, position)
    return gap.end() if gap else position
