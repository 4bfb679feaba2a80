"""What a rejected tick asks for: to be let in, or that another tick is cancelled or corrected.

A tick that came `late` is one that live did not count. One with `"op": "cancel"` or `"correct"`
names an earlier tick of its entity by `"of": {"ts": …, "seq": …}`. Live carries out none of them,
now or later, so that a replay decides as live did: they are stored as rejected, and a repair reads
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pipelines.ticks import rejection_reasons as reasons
from pipelines.ticks.columns import NO_SEQ
from pipelines.ticks.field_values import is_integer, is_key, seq_of
from pipelines.ticks.message_elements import Element, Message, PassedOver, Rejected
from pipelines.ticks.reference_decoder import Tick, judge, tick_time
from pipelines.ticks.source_reading import MISSING, Reading, at
from registry.formats.entity_name import entity_id
from registry.paths import Part

Kind = Literal["insert", "cancel", "correct"]

REASONS: Mapping[str, tuple[Kind, ...]] = {
    reasons.LATE: ("insert",),
    reasons.UNSUPPORTED_OP: ("cancel", "correct"),
    reasons.MALFORMED: ("cancel",),
}
"""The kinds of edits by the reason for which live rejected them: a cancel without the fields that a
tick must have is malformed before it is anything else."""

OF = "of"
TRADE = "trade"


class TickOrigin(NamedTuple):
    """Where a tick came from; the topic's id is a text."""

    topic_id: str
    partition: int
    offset: int
    element: int
    """The index in an array message."""


class RejectedTick(NamedTuple):
    """A stored rejection."""

    origin: TickOrigin
    reason: str
    key: bytes | None
    value: bytes | None
    known_at: int


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of an entity's ticks.

    `tick` is what is let in, or what another tick becomes; `of` names that other one, by its time
    in nanoseconds UTC, its `seq` and the text of a `seq` that is text.
    """

    kind: Kind
    origin: TickOrigin
    entity: str
    tick: Tick | None
    of: tuple[int, int, str | None] | None


class NoEdit(Exception):
    """What a rejected tick asks for cannot be read; the text says why."""


def edit_of(rejected: RejectedTick, reading: Reading) -> Edit | None:
    """What a rejected tick asks for, by the rules of its source; None for nothing of a repair's.

    Raises `NoEdit`.
    """
    try:
        given = json.loads(rejected.value or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    if rejected.reason == reasons.LATE:
        tick = _judged(given, rejected, reading)
        return Edit("insert", rejected.origin, entity_id(tick.key), tick, None)
    operation = _operation(given, reading)
    if operation not in ("cancel", "correct"):
        return None
    of = _named(given, reading)
    if operation == "cancel":
        return Edit("cancel", rejected.origin, _entity(given, rejected, reading), None, of)
    corrected = _judged(_with_trade(given, reading), rejected, reading)
    return Edit("correct", rejected.origin, entity_id(corrected.key), corrected, of)


def _operation(given: Mapping[str, Any], reading: Reading) -> Any:
    found = at(given, _path_of_op(reading))
    return TRADE if found is MISSING else found


def _path_of_op(reading: Reading) -> Sequence[str]:
    path = reading.paths.get("op")
    return ("op",) if path is None or path.part is not Part.TICK else path.names


def _judged(given: dict[str, Any], rejected: RejectedTick, reading: Reading) -> Tick:
    message = Message(rejected.value, rejected.key, rejected.known_at, rejected.origin.partition)
    try:
        return judge(Element(rejected.origin.element, rejected.value, given), message, reading)
    except Rejected as error:
        raise NoEdit(f"is {error.reason}: {error.detail}") from None
    except PassedOver:
        raise NoEdit("is of another kind than the source takes") from None


def _with_trade(given: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """The same tick, as one that trades."""
    *outer, last = _path_of_op(reading)
    changed = dict(given)
    inner: Any = changed
    for name in outer:  # only what is on the way: the rest may be nested as deeply as JSON is read
        inner[name] = dict(inner[name])
        inner = inner[name]
    inner[last] = TRADE
    return changed


def _entity(given: dict[str, Any], rejected: RejectedTick, reading: Reading) -> str:
    values = dict(reading.values(given, None, rejected.key, {}))
    keys = [values.get(name) for name in reading.source.key]
    if not all(isinstance(one, str) for one in keys):
        raise NoEdit(f"lacks {', '.join(reading.source.key)}")
    texts = [str(one) for one in keys]
    if not all(map(is_key, texts)):
        raise NoEdit(f"has a key that no tick has: {', '.join(reading.source.key)}")
    return entity_id(texts)


def _named(given: Mapping[str, Any], reading: Reading) -> tuple[int, int, str | None]:
    """Which tick an edit is of."""
    of = given.get(OF)
    if not isinstance(of, dict) or "ts" not in of:
        raise NoEdit('names no tick: "of": {"ts": ..., "seq": ...} is missing')
    seq, seq_text = of.get("seq"), None
    if seq is None:
        raise NoEdit("names a tick without its seq: others may have the same ts")
    is_seq = is_key(seq) if isinstance(seq, str) else is_integer(seq) and abs(seq) < -NO_SEQ
    if not is_seq:
        raise NoEdit(f"names a tick by the seq {seq!r}, which is none")
    number, seq_text = seq_of(seq)
    stamped = {"ts": of["ts"]}
    if not (isinstance(stamped["ts"], str) or is_integer(stamped["ts"])):
        raise NoEdit(f"names a tick by the ts {of['ts']!r}, which is none")
    try:
        return tick_time(stamped, reading), number, seq_text
    except ValueError:
        raise NoEdit(f"names a tick by the ts {of['ts']!r}, which is no time") from None
