"""What a script writes of one entity, and the arguments in which it takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from registry.formats.layout import Field, Layout
from registry.formats.redis_keys import (
    SEPARATOR,
    closed_key,
    groups_of,
    members_key,
    row_key,
    state_key,
)

_pack_count = Layout(Field("count", "i8")).struct.pack


class EntityWrite(NamedTuple):
    """What is written of an entity.

    `expected` is the `identity` of the state that is replaced, b"" for none. `header` and `row` are
    packed. `pieces` are ticks for the ring, as their offset in the state and their bytes.
    """

    entity: str
    expected: bytes
    header: bytes
    row: bytes
    pieces: Sequence[tuple[int, bytes]]


class WriteCall:
    """The keys and arguments of a script that writes entities (`lua/entities.lua`)."""

    def __init__(self, keys: Iterable[str] = (), arguments: Iterable[Any] = ()) -> None:
        self.keys = list(keys)
        self.arguments = list(arguments)

    def add(self, source: str, write: EntityWrite) -> None:
        """Append an entity of a source."""
        entity, expected, header, row, pieces = write
        keys, member = keys_of(source, entity)
        self.keys += keys
        self.arguments += (expected, header, row, member, len(pieces))
        for piece in pieces:
            self.arguments += piece


def keys_of(source: str, entity: str) -> tuple[list[str], str]:
    """The keys of an entity in `lua/entities.lua`, and what it is called as a member, "" for none.

    They are those of its state, of its row, and of the members that it belongs to, and where it is
    one, of the last close in each of its groups.
    """
    message_key, _, member = entity.partition(SEPARATOR)
    keys = [
        state_key(source, entity),
        row_key(source, entity),
        members_key(source, message_key),
    ]
    if member:
        keys += [closed_key(source, group) for group in groups_of(entity)]
    return keys, member


def identity(origin: bytes, count: int) -> bytes:
    """What a script recognises a state by: its packed origin and its count of ticks.

    The origin alone would not do: a state that was rebuilt from Postgres has the same one, and its
    ticks in other slots of the ring.
    """
    return origin + _pack_count(count)


def ring_pieces(first: int, n: int, room: int) -> list[tuple[int, int, int]]:
    """Where `n` ticks from number `first` on go in a ring with that room.

    Each piece is (index of its first tick, index after its last one, slot of the ring); there are
    two where the ring wraps.
    """
    slot = first % room
    before_wrap = room - slot
    if n <= before_wrap:
        return [(0, n, slot)] if n else []
    return [(0, before_wrap, slot), (before_wrap, n, 0)]
