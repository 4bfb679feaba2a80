"""One Kafka message to the ticks in it, or to why it holds none."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from tests.oracle.partitioners import partition
from tests.oracle.times import YEAR_1971_NS, YEAR_2201_NS, nanoseconds, rfc_3339

MAX_MESSAGE_BYTES = 262_144
MAX_ARRAY_TICKS = 10_000
MAX_DEPTH = 500
MAX_KEY_BYTES = 255
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
INTEGER = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
NO_SEQ = -(2**63)
NOTHING: Any = object()
"""Instead of a value that a message does not have."""


@dataclass(frozen=True)
class Record:
    """A record as any Kafka client reads it; `timestamp_ms` is the record's own.

    Of several headers of a name the last one is here.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a value is: below `names` of a part (`tick`, `around`, `key`, `timestamp`, `header`),
    or it is `constant`. `scale` is an exponent of ten; with `digits` a time may be an integer in
    quotes."""

    part: str = "tick"
    names: tuple[str, ...] = ()
    constant: Any = None
    scale: int = 0
    digits: bool = False


@dataclass(frozen=True)
class SourceSpec:
    """A source; `fields` are (name, required, default).

    `places` are by name, for those that are not simply a field of that name; `where` are (place,
    values). `partitions` is the number of the topic's, and 0 judges no partition.
    """

    name: str
    topic: str
    key: tuple[str, ...]
    fields: tuple[tuple[str, bool, float | None], ...]
    ts_unit: str = "ms"
    skew_ns: int = 10**9
    positive: bool = False
    places: Mapping[str, Place] = field(default_factory=dict)
    items: tuple[str, ...] | None = None
    where: tuple[tuple[Place, tuple[Any, ...]], ...] = ()
    any_message_key: bool = False
    partitioner: str = "any"
    partitions: int = 0
    earliest_ns: int = YEAR_1971_NS

    def place(self, name: str) -> Place:
        return self.places.get(name, Place(names=(name,)))


@dataclass(frozen=True)
class Tick:
    """A tick that is well-formed by itself. Absent optional fields are NaN."""

    entity: tuple[str, ...]
    tick_time: int
    seq: int | None
    op: str
    fields: tuple[float, ...]
    seq_text: str | None = None


class PassedOverError(Exception):
    """A message or an element is of another kind than the source's."""


class NotATickError(Exception):
    """Carries the reason."""


class _NotFinite(float):
    """A number that JSON does not have (`NaN`, `Infinity`), as some encoders write it."""


def read(record: Record, source: SourceSpec) -> Iterator[tuple[int, Tick | str]]:
    """Each tick of the message with its place in it, or the reason why there is none.

    What the source passes over is left out.
    """
    try:
        elements, around = _elements(record, source)
    except PassedOverError:
        return
    except NotATickError as reason:
        yield 0, str(reason)
        return
    for index, element in enumerate(elements):
        try:
            yield index, _tick(element, around, record, source)
        except PassedOverError:
            continue
        except NotATickError as reason:
            yield index, str(reason)


def texts(record: Record, source: SourceSpec) -> list[bytes | None]:
    """The bytes of each tick of a message, by its place; a message that is none is one by itself.

    The elements of an array are cut where commas stand at its own depth.
    """
    value = record.value
    try:
        _elements(record, source)
    except NotATickError:
        return [value]
    assert value is not None
    begin = 0
    for name in source.items or ():
        begin = _member(value, begin, name)
    begin += len(value[begin:]) - len(value[begin:].lstrip(b" \t\r\n"))
    if value[begin : begin + 1] != b"[":
        return [value]
    cuts = [begin]
    for at, depth in _depths(value[begin:]):
        byte = value[begin + at]
        if (depth == 1 and byte == ord(",")) or (depth == 0 and byte == ord("]")):
            cuts.append(begin + at)
            if depth == 0:
                break
    return [value[start + 1 : end].strip(b" \t\r\n") for start, end in pairwise(cuts)]


def _member(value: bytes, begin: int, wanted: str) -> int:
    """Where the value of the last member called `wanted` of the object after `begin` begins."""
    found, start = -1, value.index(b"{", begin)
    cut = start + 1
    for at, depth in _depths(value[start:]):
        byte, here = value[start + at], start + at
        if depth == 1 and byte == ord(":"):
            name = json.loads(value[cut:here].decode())
            if name == wanted:
                found = here + 1
        elif depth == 1 and byte == ord(","):
            cut = here + 1
        elif depth == 0 and byte == ord("}"):
            break
    return found


def _elements(record: Record, source: SourceSpec) -> tuple[list[Any], Any]:
    """The ticks of a message, not looked into yet, and the message around them."""
    value, key = record.value, record.key
    if value is not None and len(value) > MAX_MESSAGE_BYTES:
        raise NotATickError("too-large")
    if _depth(value or b"") > MAX_DEPTH:
        raise NotATickError("malformed")
    try:
        message = json.loads((value or b"").decode("utf-8"), parse_constant=_NotFinite)
    except (ValueError, RecursionError):
        raise NotATickError("malformed") from None
    ticks, around = [message], None
    if source.items is None and isinstance(message, list):
        _check_length(message)
        ticks = message
    if key is not None and len(key) > MAX_KEY_BYTES:
        raise NotATickError("key-mismatch")
    if source.items is not None:
        if not isinstance(message, dict):
            raise NotATickError("malformed")
        around = message
        _check_where(source, None, around, record)
        ticks = _below(message, source.items)
        if ticks is NOTHING:
            raise NotATickError("malformed")
        if not isinstance(ticks, list):
            raise NotATickError("unknown-field-type")
        if not ticks:
            raise PassedOverError
        _check_length(ticks)
    return ticks, around


def _check_length(ticks: list[Any]) -> None:
    if not ticks:
        raise NotATickError("malformed")
    if len(ticks) > MAX_ARRAY_TICKS:
        raise NotATickError("too-large")


def _below(value: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return NOTHING
        value = value[name]
    return value


def _at(place: Place, tick: Any, around: Any, record: Record) -> Any:
    if place.constant is not None:
        return place.constant
    if place.part in ("tick", "around"):
        return _below(tick if place.part == "tick" else around, place.names)
    if place.part == "timestamp":
        return record.timestamp_ms
    text = record.key if place.part == "key" else record.headers.get(place.names[0])
    if text is None:
        return NOTHING
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text


def _check_where(source: SourceSpec, tick: Any, around: Any, record: Record) -> None:
    """With `tick` the conditions on it, else those on what is around it."""
    for place, wanted in source.where:
        if source.items is not None and (place.part == "tick") != (tick is not None):
            continue
        found = _at(place, tick, around, record)
        if not any(type(found) is type(value) and found == value for value in wanted):
            raise PassedOverError


def _tick(element: Any, around: Any, record: Record, source: SourceSpec) -> Tick:
    if not isinstance(element, dict):
        raise NotATickError("malformed")
    _check_where(source, element, around, record)
    names = [*source.key, *(name for name, _, _ in source.fields), "ts", "seq", "op"]
    read = {name: _at(source.place(name), element, around, record) for name in names}
    tick = {name: value for name, value in read.items() if value is not NOTHING}
    operation = tick.get("op", "trade")
    bare = operation in ("reset", "close")
    needed = [name for name, required, _ in source.fields if required and not bare]
    if any(name not in tick for name in (*source.key, "ts", *needed)):
        raise NotATickError("malformed")
    for name in (*source.key, "seq"):
        text = tick.get(name)
        if isinstance(text, str) and (
            not text
            or any("\ud800" <= character <= "\udfff" for character in text)
            or len(text.encode("utf-8")) > 255
            or min(text) < " "
        ):
            raise NotATickError("malformed")
    ts = tick["ts"]
    if isinstance(ts, str) and source.place("ts").digits and INTEGER.fullmatch(ts):
        ts = int(ts) if len(ts) < 100 else 10**99
    if isinstance(ts, str) and rfc_3339(ts) is None:
        raise NotATickError("malformed")
    allowed = ("trade", "reset", "close") if len(source.key) > 1 else ("trade", "reset")
    if isinstance(operation, str) and operation not in allowed:
        raise NotATickError("unsupported-op")

    numbers = [] if bare else [name for name, _, _ in source.fields]
    given = {name: tick[name] for name in numbers if tick.get(name) is not None}
    nulls = [name for name, required, _ in source.fields if required and name in tick]
    typed = (
        isinstance(operation, str)
        and all(isinstance(tick[name], str) for name in source.key)
        and isinstance(ts, (int, str))
        and not isinstance(ts, bool)
        and all(_is_number(given[name], source.place(name).scale) for name in given)
        and (bare or all(tick[name] is not None for name in nulls))
        and (isinstance(tick.get("seq"), str) or _is_seq(tick.get("seq")))
    )
    if not typed:
        raise NotATickError("unknown-field-type")
    values = {name: _scaled(given[name], source.place(name).scale) for name in given}
    if not all(math.isfinite(number) for number in values.values()):
        raise NotATickError("not-finite")
    if source.positive and any(number <= 0 for number in values.values()):
        raise NotATickError("not-positive")
    at_record = source.place("ts").part == "timestamp"
    time = nanoseconds(ts, "ms" if at_record else source.ts_unit)
    if not source.earliest_ns <= time < YEAR_2201_NS:
        raise NotATickError("out-of-range")
    _check_key(record, source, tick[source.key[0]])
    if time > record.timestamp_ms * 10**6 + source.skew_ns:
        raise NotATickError("from-the-future")
    if source.partitions and source.partitioner != "any":
        assert record.key is not None, "looked at with the key"
        if partition(source.partitioner, record.key, source.partitions) != record.partition:
            raise NotATickError("wrong-partition")
    defaults = {
        name: math.nan if default is None else default for name, _, default in source.fields
    }
    if bare:
        defaults = dict.fromkeys(defaults, math.nan)
    seq = tick.get("seq")
    return Tick(
        entity=tuple(tick[name] for name in source.key),
        tick_time=time,
        seq=_digest(seq) if isinstance(seq, str) else seq,
        op=operation,
        fields=tuple(values.get(name, defaults[name]) for name, _, _ in source.fields),
        seq_text=seq if isinstance(seq, str) else None,
    )


def _check_key(record: Record, source: SourceSpec, first: str) -> None:
    key = record.key
    if not source.any_message_key and (key is None or key != first.encode("utf-8")):
        raise NotATickError("key-mismatch")
    anywhere = key is None or (key == b"" and source.partitioner == "crc32")
    if source.partitioner != "any" and anywhere:
        raise NotATickError("key-mismatch")
    if source.partitioner == "any" and source.partitions > 1 and key in (None, b""):
        raise NotATickError("key-mismatch")


def _digest(text: str) -> int:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)
    return number if number != NO_SEQ else number + 1


def _is_number(value: Any, scale: int) -> bool:
    if isinstance(value, str):
        return (INTEGER if scale else NUMBER).fullmatch(value) is not None
    kinds = int if scale else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)


def _scaled(value: Any, scale: int) -> float:
    """The double of the decimal number that is written; `float` rounds text exactly."""
    text = value if isinstance(value, str) else None
    whole = isinstance(value, int) or (text is not None and INTEGER.fullmatch(text) is not None)
    if whole and text is not None and len(text) < 4000:
        value = int(text)  # an integer has no negative zero
    if value == 2**63 - 1 and isinstance(value, int):
        return math.nan
    if isinstance(value, str):
        return float(f"{value}e{scale}" if scale else value)
    if not scale:
        return _double(value)
    return _double(value) if value == 0 else float(f"{Decimal(value)}e{scale}")


def _depth(value: bytes) -> int:
    """How deep arrays and objects are in each other, brackets in strings aside."""
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return 0  # not deeper than that, and no more is asked
    return max((depth for _, depth in _depths(value)), default=0)


def _depths(value: bytes) -> Iterator[tuple[int, int]]:
    """Each place outside of strings, with how deep it is; a bracket as deep as what follows it."""
    depth = 0
    in_string = escaped = False
    for at, byte in enumerate(value):
        if in_string:
            in_string = escaped or byte != ord('"')
            escaped = not escaped and byte == ord("\\")
            continue
        if byte == ord('"'):
            in_string = True
        elif byte in b"[{":
            depth += 1
        elif byte in b"]}":
            depth -= 1
        yield at, depth


def _is_seq(seq: Any) -> bool:
    if seq is None:
        return True
    return isinstance(seq, int) and not isinstance(seq, bool) and -(2**63) < seq < 2**63


def _double(number: int | float) -> float:
    if isinstance(number, _NotFinite):
        return math.nan
    try:
        return float(number)
    except OverflowError:
        return math.inf
