"""What a verification finds: how much was compared, and what differs.

Values are in Redis, in the rows of Postgres, in the blocks of backfills and in servers' logs of
what they served. Each is compared with another account of the same tick, and of a difference it is
said which value of which tick it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

MOST_SHOWN = 20
"""Differences of a place that are kept; all are counted."""


class Place(StrEnum):
    """Where the values are that were compared."""

    REDIS = "redis"
    ROWS = "rows"
    BLOCKS = "blocks"
    SERVED = "served"


class Kind(StrEnum):
    """What differs."""

    VALUE = "value"
    STATUS = "status"
    ORIGIN = "origin"
    """The tick at the same event time and sequence is another one, or became known at another
    time."""
    FIELDS = "fields"
    """A tick that is in two row schemas has other raw fields in each."""
    SHAPE = "shape"
    """A row has not as many fields, features or statuses as its row schema."""
    ABSENT = "absent"
    """Nothing is there that should be."""
    BEHIND = "behind"
    """There is an older tick than the place says that it has stored."""


class Difference(NamedTuple):
    """One thing that differs: of a tick of an entity, and of a feature where it is about one.

    `event_time` is in nanoseconds UTC. `found` is what is stored, or was served, and `expected`
    what it should be, as text that shows the bits of doubles.
    """

    place: Place
    kind: Kind
    source: str
    entity: tuple[str, ...]
    event_time: int | None
    sequence: int | None
    feature: str | None
    found: str
    expected: str


@dataclass
class Tally:
    """How much of a place was compared.

    `unverifiable` values are of ticks whose past, or whose row, is no longer stored, or that no
    store had answered; `not_yet_stored` ones are in Redis, or were served, and Postgres is not that
    far.
    """

    values: int = 0
    unverifiable: int = 0
    not_yet_stored: int = 0
    differences: Counter[Kind] = field(default_factory=Counter)
    first: list[Difference] = field(default_factory=list)

    def differs(self, found: Difference) -> None:
        """Count a difference, and keep it if it is one of the first."""
        self.many_differ(found.kind, 1, [found])

    def many_differ(self, kind: Kind, number: int, first: Sequence[Difference]) -> None:
        """Count differences, of which the first ones are given."""
        if number:
            self.differences[kind] += number
        self.first += first[: max(0, MOST_SHOWN - len(self.first))]

    @property
    def room(self) -> int:
        """How many differences more are kept."""
        return max(0, MOST_SHOWN - len(self.first))

    def add(self, other: Tally) -> None:
        """Take over what another one has counted."""
        self.values += other.values
        self.unverifiable += other.unverifiable
        self.not_yet_stored += other.not_yet_stored
        self.differences += other.differences
        self.first += other.first[: self.room]


def bits_text(value: float) -> str:
    """A double as text: to be read, and its bits."""
    return f"{value!r} ({value.hex()})"
