"""The definition of a tick: one message by itself, slowly and exactly.

`ticks.json_scanner` is the fast way for ticks that pass every check, and leaves all others to this
one. `ticks.message_elements` finds the elements of a message that should be ticks, and
`ticks.field_values` says what the values of their fields mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.columns import CLOSE, NO_SEQ, RESET, TRADE
from pipelines.ticks.event_time import NANOSECONDS, parse_rfc_3339
from pipelines.ticks.field_values import (
    double_of,
    integer_of,
    is_digits,
    is_integer,
    is_key,
    is_number,
    seq_of,
    time_problem,
)
from pipelines.ticks.message_elements import Element, Message, PassedOver, Rejected
from pipelines.ticks.message_limits import MAX_KEY_BYTES
from pipelines.ticks.partitioners import has_no_partition, wrong_partition
from pipelines.ticks.source_reading import Reading
from registry.paths import Part

OPERATIONS = {"trade": TRADE, "reset": RESET, "close": CLOSE}
"""What ticks do, by `op`. Only entities with more than one key field, as positions are, close."""

WITHOUT_NUMBERS = frozenset({"reset", "close"})


@dataclass(frozen=True, slots=True)
class Tick:
    """A well-formed tick: key field values, nanoseconds UTC, NO_SEQ without one, NaN for absent.

    `seq_text` is the text of a `seq` that is text.
    """

    key: tuple[str, ...]
    tick_time: int
    seq: int
    op: int
    fields: tuple[float, ...]
    seq_text: str | None = None


def judge(
    element: Element, message: Message, reading: Reading, partitions: int | None = None
) -> Tick:
    """The tick of an element of a message.

    `partitions` is their number in the topic; without it, whether the message's partition is that
    of its key is not judged. Raises `Rejected` with the first reason that fits, in the order of
    `ticks.rejection_reasons`, and `PassedOver` when a condition of the source does not hold.
    """
    source = reading.source
    if not isinstance(element.tick, dict):
        raise Rejected(reasons.MALFORMED, "a tick is a JSON object")
    if not reading.holds(element.tick, message.key, message.headers):
        raise PassedOver
    given = dict(reading.values(element.tick, element.around, message.key, message.headers))
    if _is_recorded(reading):
        given["ts"] = message.known_at
    operation = given.get("op", "trade")
    empties = isinstance(operation, str) and operation in WITHOUT_NUMBERS
    needed = [field.name for field in source.fields if field.required and not empties]
    _check_shape(given, reading, needed)
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
    _check_types(given, reading, operation, needed)

    fields = _fields(given, reading) if operation == "trade" else [math.nan] * len(source.fields)
    time = tick_time(given, reading)
    problem = time_problem(given["ts"], time, source, message.known_at)
    if problem is not None:
        raise Rejected(reasons.OUT_OF_RANGE, problem)
    key = tuple(given[name] for name in source.key)
    _check_record(message, source, key[0], time, partitions)
    if partitions is not None:
        problem = wrong_partition(source.partitioner, message.key, message.partition, partitions)
        if problem is not None:
            raise Rejected(reasons.WRONG_PARTITION, problem)
    seq, seq_text = seq_of(given.get("seq"))
    return Tick(
        key=key,
        tick_time=time,
        seq=seq,
        op=OPERATIONS[operation],
        fields=tuple(fields),
        seq_text=seq_text,
    )


def _check_record(
    message: Message, source: Any, first_key: str, tick_time: int, partitions: int | None
) -> None:
    """Whether a tick fits the key and the timestamp of its record."""
    key = message.key
    if source.message_key == "first" and key != first_key.encode():
        shown = None if key is None else key[:40]
        raise Rejected(
            reasons.KEY_MISMATCH,
            f"the message key is {shown!r}; it must be {source.key[0]}, {first_key[:40]!r}",
        )
    if has_no_partition(source.partitioner, key, partitions):
        raise Rejected(reasons.KEY_MISMATCH, _no_partition(source.partitioner, key, partitions))
    if tick_time > message.known_at + source.skew_ns:
        ahead = (tick_time - message.known_at) / 1e9
        raise Rejected(
            reasons.FROM_THE_FUTURE,
            f"{ahead:.3f} s ahead of its record; at most {source.skew_ns / 1e9:g} s are taken",
        )


def _no_partition(partitioner: str, key: bytes | None, partitions: int | None) -> str:
    if partitioner == "any":
        return (
            f"the message key is {key!r}, and the topic has {partitions} partitions: nothing keeps "
            "the ticks of an entity in one of them. Give all messages of an entity the same key, "
            "or use a topic of one partition"
        )
    return (
        f"the message key is {key!r}, for which {partitioner} has no partition: give the messages "
        'a key, or, if the topic has one partition, declare partitioner = "any"'
    )


def _check_shape(given: dict[str, Any], reading: Reading, needed: Iterable[str]) -> None:
    for name in (*reading.source.key, "ts", *needed):
        if name not in given:
            raise Rejected(reasons.MALFORMED, f"{_shown(name, reading)} is missing")
    texts = {name: given[name] for name in reading.source.key} | {"seq": given.get("seq")}
    for name, value in texts.items():
        if isinstance(value, str) and not is_key(value):
            raise Rejected(
                reasons.MALFORMED,
                f"{name} {value[:40]!r} must have 1 to {MAX_KEY_BYTES} bytes and no control "
                "character",
            )
    ts = given["ts"]
    digits = reading.places["ts"].digits
    if isinstance(ts, str) and parse_rfc_3339(ts) is None and not (digits and is_digits(ts)):
        kind = "an RFC 3339 time or an integer" if digits else "an RFC 3339 time"
        raise Rejected(reasons.MALFORMED, f"ts {ts[:40]!r} is not {kind}")


def _check_types(
    given: dict[str, Any], reading: Reading, operation: Any, needed: Iterable[str]
) -> None:
    source = reading.source

    def must(right: bool, name: str, kind: str) -> None:
        if not right:
            shown = f"{given.get(name)!r}"[:40]
            raise Rejected(reasons.UNKNOWN_FIELD_TYPE, f"{name} is {shown}, not {kind}")

    must(isinstance(operation, str), "op", "a string")
    for name in source.key:
        must(isinstance(given[name], str), name, "a string")
    ts, seq = given["ts"], given.get("seq")
    must(is_integer(ts) or isinstance(ts, str), "ts", "an integer or RFC 3339 text")
    is_seq = seq is None or isinstance(seq, str) or (is_integer(seq) and abs(seq) < -NO_SEQ)
    must(is_seq, "seq", "a signed 64-bit integer or text")
    if operation in WITHOUT_NUMBERS:
        return
    for name in source.field_names:
        value, place = given.get(name), reading.places[name]
        kind = "an integer, which its scale needs" if place.scale else "a number"
        must(is_number(value, place) or (value is None and name not in needed), name, kind)


def _fields(given: dict[str, Any], reading: Reading) -> list[float]:
    values = []
    for field in reading.source.fields:
        value = given.get(field.name)
        if value is None:
            values.append(math.nan if field.default is None else field.default)
        else:
            values.append(double_of(value, reading.places[field.name]))
    if reading.source.positive:
        for field, number in zip(reading.source.fields, values, strict=True):
            if number <= 0 and given.get(field.name) is not None:
                raise Rejected(reasons.NOT_POSITIVE, f"{field.name} is {number!r}")
    return values


def tick_time(given: dict[str, Any], reading: Reading) -> int:
    """The time of a tick, nanoseconds UTC; an integer in text becomes one in `given`."""
    ts = given["ts"]
    if isinstance(ts, str):
        parsed = parse_rfc_3339(ts)
        if parsed is not None:
            return parsed
        ts = given["ts"] = integer_of(ts)
    factor = 1 if _is_recorded(reading) else NANOSECONDS[reading.source.ts_unit]
    return int(ts) * factor


def _is_recorded(reading: Reading) -> bool:
    """Whether the time of a tick is that of its record."""
    path = reading.paths.get("ts")
    return path is not None and path.part is Part.TIMESTAMP


def _shown(name: str, reading: Reading) -> str:
    path = reading.paths.get(name)
    return name if path is None or str(path) == name else f"{name} ({path})"
