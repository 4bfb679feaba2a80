"""One Kafka message to the ticks in it, or to why it holds none."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

MAX_MESSAGE_BYTES = 262_144
MAX_ARRAY_TICKS = 10_000
MAX_DEPTH = 500
YEAR_2201_NS = 7_289_654_400 * 10**9
UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
RFC_3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})"
)
MAX_KEY_BYTES = 255


@dataclass(frozen=True)
class Record:
    """A record as any Kafka client reads it; `timestamp_ms` is the record's own."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True)
class SourceSpec:
    """A source; `fields` are (name, required, default)."""

    name: str
    topic: str
    key: tuple[str, ...]
    fields: tuple[tuple[str, bool, float | None], ...]
    ts_unit: str = "ms"
    skew_ns: int = 10**9
    positive: bool = False


@dataclass(frozen=True)
class Tick:
    """A tick that is well-formed by itself. Absent optional fields are NaN."""

    entity: tuple[str, ...]
    tick_time: int
    seq: int | None
    op: str
    fields: tuple[float, ...]


class NotATickError(Exception):
    """Carries the reason."""


class _NotFinite(float):
    """A number that JSON does not have (`NaN`, `Infinity`), as some encoders write it."""


def read(record: Record, source: SourceSpec) -> Iterator[tuple[int, Tick | str]]:
    """Each tick of the message with its place in it, or the reason why there is none."""
    elements = _elements(record.value, record.key)
    if isinstance(elements, str):
        yield 0, elements
        return
    for index, element in enumerate(elements):
        try:
            yield index, _tick(element, record, source)
        except NotATickError as reason:
            yield index, str(reason)


def texts(value: bytes | None, key: bytes | None) -> list[bytes | None]:
    """The bytes of each tick of a message, by its place; a message that is none is one by itself.

    The elements of an array are cut where commas stand at its own depth.
    """
    elements = _elements(value, key)
    if value is None or isinstance(elements, str) or not value.lstrip(b" \t\r\n").startswith(b"["):
        return [value]
    cuts = [value.index(b"[")]
    for at, depth in _depths(value):
        if (depth == 1 and value[at] == ord(",")) or (depth == 0 and value[at] == ord("]")):
            cuts.append(at)
    return [value[start + 1 : end].strip(b" \t\r\n") for start, end in pairwise(cuts)]


def _elements(value: bytes | None, key: bytes | None) -> list[Any] | str:
    """The ticks of a message, not looked into yet, or the reason why it holds none."""
    if value is not None and len(value) > MAX_MESSAGE_BYTES:
        return "too-large"
    if _depth(value or b"") > MAX_DEPTH:
        return "malformed"
    try:
        message = json.loads((value or b"").decode("utf-8"), parse_constant=_NotFinite)
    except (ValueError, RecursionError):
        return "malformed"
    if message == []:
        return "malformed"
    if isinstance(message, list) and len(message) > MAX_ARRAY_TICKS:
        return "too-large"
    if key is not None and len(key) > MAX_KEY_BYTES:
        return "key-mismatch"
    return message if isinstance(message, list) else [message]


def _tick(tick: Any, record: Record, source: SourceSpec) -> Tick:
    if not isinstance(tick, dict):
        raise NotATickError("malformed")
    operation = tick.get("op", "trade")
    bare = operation in ("reset", "close")
    needed = [name for name, required, _ in source.fields if required and not bare]
    if any(name not in tick for name in (*source.key, "ts", *needed)):
        raise NotATickError("malformed")
    for name in source.key:
        text = tick[name]
        if isinstance(text, str) and (
            not text
            or any("\ud800" <= character <= "\udfff" for character in text)
            or len(text.encode("utf-8")) > 255
            or min(text) < " "
        ):
            raise NotATickError("malformed")
    if isinstance(tick["ts"], str) and rfc_3339(tick["ts"]) is None:
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
        and isinstance(tick["ts"], (int, str))
        and not isinstance(tick["ts"], bool)
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in given.values())
        and (bare or all(tick[name] is not None for name in nulls))
        and _is_seq(tick.get("seq"))
    )
    if not typed:
        raise NotATickError("unknown-field-type")
    values = {name: _double(number) for name, number in given.items()}
    if not all(math.isfinite(number) for number in values.values()):
        raise NotATickError("not-finite")
    if source.positive and any(number <= 0 for number in values.values()):
        raise NotATickError("not-positive")
    time = _nanoseconds(tick["ts"], source.ts_unit)
    if not 0 <= time < YEAR_2201_NS:
        raise NotATickError("out-of-range")
    if record.key is None or record.key != tick[source.key[0]].encode("utf-8"):
        raise NotATickError("key-mismatch")
    if time > record.timestamp_ms * 10**6 + source.skew_ns:
        raise NotATickError("from-the-future")
    defaults = {
        name: math.nan if default is None else default for name, _, default in source.fields
    }
    if bare:
        defaults = dict.fromkeys(defaults, math.nan)
    return Tick(
        entity=tuple(tick[name] for name in source.key),
        tick_time=time,
        seq=tick.get("seq"),
        op=operation,
        fields=tuple(values.get(name, defaults[name]) for name, _, _ in source.fields),
    )


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


def _nanoseconds(ts: int | str, unit: str) -> int:
    if isinstance(ts, int):
        return ts * UNIT_NS[unit]
    time = rfc_3339(ts)
    assert time is not None
    return time


def rfc_3339(text: str) -> int | None:
    """Nanoseconds UTC, None for what is not a time."""
    match = RFC_3339.fullmatch(text)
    if match is None:
        return None
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    if max(clock[:2], zone[1:3]) > "23" or max(clock[3:5], clock[6:], zone[4:]) > "59":
        return None
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{zone}")
    except ValueError:
        return None
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = whole.days * 86_400 + whole.seconds
    return seconds * 10**9 + int((fraction or "0").ljust(9, "0"))
