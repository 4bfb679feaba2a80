"""What a script writes of one entity, and the arguments in which it takes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from registry.formats.entity_name import SEPARATOR
from registry.formats.redis_keys import (
    chunks_key,
    closed_key,
    groups_of,
    members_key,
    rows_key,
    states_key,
)


class EntityWrite(NamedTuple):
    """What is written of an entity.

    `expected` is the identity (`registry.formats.state`) of the state that is replaced, b"" for
    none. `row` and `state` are packed. `chunks` are new ones, by their fields; `dropped` are fields
    of chunks. `closed` is the packed event time at which an entity with groups was closed, b"" for
    one that is open.
    """

    entity: str
    expected: bytes
    row: bytes
    state: bytes
    chunks: Sequence[tuple[str, bytes]] = ()
    dropped: Sequence[str] = ()
    closed: bytes = b""


class WriteCall:
    """The keys and arguments of a script that writes entities (`lua/entities.lua`).

    Its own `keys` and `arguments` come first.
    """

    def __init__(
        self,
        source: str,
        bucket: int,
        keys: Iterable[str] = (),
        arguments: Iterable[Any] = (),
    ) -> None:
        self._source = source
        self.keys = [*keys, *(of(source, bucket) for of in (rows_key, states_key, chunks_key))]
        self.arguments: list[Any] = [*arguments]

    def add(self, write: EntityWrite) -> None:
        """Append an entity, which is in the bucket."""
        keys, member = member_keys(self._source, write.entity)
        self.keys += keys
        self.arguments += (write.entity, write.expected, write.row, write.state)
        self.arguments += (len(write.chunks), *chain.from_iterable(write.chunks))
        self.arguments += (len(write.dropped), *write.dropped, member, write.closed)


def member_keys(source: str, entity: str) -> tuple[list[str], str]:
    """The keys of an entity in `lua/members_of.lua`, and what it is called as a member.

    For an entity that belongs to no group there are no keys, and its member is "".
    """
    message_key, _, member = entity.partition(SEPARATOR)
    if not member:
        return [], ""
    groups = [closed_key(source, group) for group in groups_of(entity)]
    return [members_key(source, message_key), *groups], member
