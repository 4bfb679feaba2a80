"""What a server has served from warm a moment ago, so that nothing older follows from hot.

Between the moment in which warm has a row and the one in which hot has it, hot is behind. A server
that reads an entity in warm, because hot did not have it, and then in hot, because another one has
brought in what warm had before, would step back. It need not remember for long: hot is never behind
for longer than a mark lives.
"""

from __future__ import annotations

from collections.abc import Iterable

from registry.formats.row import HEADER

ORIGIN = slice(HEADER.offset("topic_id"), HEADER.size)
"""The bytes of a packed row that are its origin; of one partition they sort as the ticks do."""

SCHEMA = slice(HEADER.offset("schema_id"), HEADER.offset("event_time"))
"""The bytes of a packed row that are the id of its row schema. A row may be replaced by one of the
same tick in a newer one."""

HOME = slice(ORIGIN.start, HEADER.offset("offset"))
"""The bytes of a packed row that say of which partition it is."""

HOME_BYTES = HOME.stop - HOME.start

SECONDS = 1.5
"""Seconds for which what was served is remembered at least: a mark lives for one."""

MOST_ROWS = 20_000
"""Rows that are remembered in so many seconds; of others it is not known what was served."""


def has_home(row: bytes) -> bool:
    """Whether a row of warm says where it comes from; a damaged one may be too short for that."""
    return len(row) >= HEADER.size


def _order(row: bytes) -> bytes:
    """What the rows of an entity are ordered by: origin, and row schema."""
    return row[ORIGIN] + row[SCHEMA]


class NewestServed:
    """Origins and row schemas of rows that were served from warm, by name."""

    def __init__(self, seconds: float = SECONDS, most: int = MOST_ROWS) -> None:
        self._seconds = seconds
        self._most = most
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._turned_at = 0.0

    def note(self, name: bytes, row: bytes) -> None:
        """Remember a row of warm that is served."""
        if len(self._young) < self._most or name in self._young:
            self._young[name] = _order(row)
        elif name in self._old:  # for as long as it is remembered there
            self._old[name] = _order(row)

    def forget(self, now: float) -> None:
        """Forget what is long ago at `now`, in seconds of any clock.

        To be called before each read and each `note`: what was noted before a pause was noted then.
        """
        if now - self._turned_at >= self._seconds:
            is_long_ago = now - self._turned_at >= 2 * self._seconds
            self._old, self._young = {} if is_long_ago else self._young, {}
            self._turned_at = now

    def has_none_of(self, names: Iterable[bytes]) -> bool:
        """Whether nothing is remembered of any of these."""
        young, old = self._young, self._old
        return (not young or young.keys().isdisjoint(names)) and (
            not old or old.keys().isdisjoint(names)
        )

    def is_older(self, name: bytes, row: bytes) -> bool:
        """Whether a row is older than what was served, or cannot be compared with it."""
        served = self._young.get(name) or self._old.get(name)
        if served is None:
            return False
        order = _order(row)
        return order < served or order[:HOME_BYTES] != served[:HOME_BYTES]
