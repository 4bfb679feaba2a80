"""What an explanation of a value says: plain values, which are also the JSON of its route.

Times are RFC 3339 in UTC. A number is there twice, as JSON writes it and as `float.hex` does, which
shows its bits, and of NaN or an infinity the second one alone.
"""

from __future__ import annotations

import math

from msgspec import Struct

from registry.formats.status import Status


class Number(Struct, frozen=True):
    """A double; `value` is None for NaN and the infinities."""

    value: float | None
    hex: str

    @classmethod
    def of(cls, value: float) -> Number:
        """The number of a double."""
        return cls(value if math.isfinite(value) else None, value.hex())

    @property
    def double(self) -> float:
        """The double."""
        return float.fromhex(self.hex)


class Operation(Struct, frozen=True):
    """A step of the arithmetic, and its result."""

    text: str
    result: Number


class WindowTick(Struct, frozen=True):
    """A tick as it is stored. `seq` is text, as it may be longer than a number of JSON is."""

    topic: str | None
    topic_id: str
    partition: int
    offset: int
    index: int
    tick_time: str
    event_time: str
    sequence: int
    known_at: str
    seq: str | None
    op: str
    fields: dict[str, Number]
    closed: bool
    """Whether the entity was closed after it."""


class StoredValue(Struct, frozen=True):
    """Where a value is stored: in the row of its tick, or in a backfill's block.

    One of `row_schema`, an id, and `backfill`, one too, is None; both are of a hole.
    """

    event_time: str
    sequence: int
    known_at: str
    revision: int
    row_schema: int | None
    backfill: int | None
    value: Number | None
    """None where neither has it."""
    status: str | None
    """As it is stored: `ok`, `warming`, `undefined` or `closed`."""


class ReadPart(Struct, frozen=True):
    """What a derived value was computed of: a feature of an entity, as it was judged."""

    name: str
    feature: str
    entity: dict[str, str]
    status: Status
    value: Number | None
    event_time: str | None
    because: str


class Term(Struct, frozen=True):
    """What one entity adds to a sum; one that is `closed` adds nothing, and has no parts."""

    entity: dict[str, str]
    closed: bool
    status: Status
    value: Number | None
    event_time: str | None
    parts: tuple[ReadPart, ...]
    steps: tuple[Operation, ...]


class Proof(Struct, frozen=True):
    """The result of the steps beside that of another computation, or what is stored."""

    against: str
    expected: Number
    expected_status: str
    found: Number
    found_status: str

    @property
    def same(self) -> bool:
        """Whether both have the same bits and status; all NaN are equal."""
        return (self.expected, self.expected_status) == (self.found, self.found_status)


class Explanation(Struct):
    """How a value came about.

    `at` is the moment that was asked for, None for now, and `judged_at` when ages were judged.
    """

    feature: str
    expression: str
    entity: dict[str, str]
    recorded_at: str
    recorded_by: str
    at: str | None
    judged_at: str
    status: Status
    value: Number | None
    event_time: str | None
    because: str
    stored: StoredValue | None = None
    ticks: tuple[WindowTick, ...] = ()
    field: str | None = None
    """The field of the ticks that the value is of."""
    parts: tuple[ReadPart, ...] = ()
    terms: tuple[Term, ...] = ()
    steps: tuple[Operation, ...] = ()
    proofs: tuple[Proof, ...] = ()
    same: bool = True
    """Whether all proofs are."""

    def prove(self, against: str, expected: tuple[float, str], found: tuple[float, str]) -> None:
        """Compare a result, with its status, with that of another computation."""
        (value, status), (own, own_status) = expected, found
        made = Proof(against, Number.of(value), status, Number.of(own), own_status)
        self.proofs = (*self.proofs, made)
        self.same = self.same and made.same
