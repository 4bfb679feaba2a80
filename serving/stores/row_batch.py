"""The reads of one turn of the event loop as commands, and the answers to these as those of reads.

Each hash that is wanted is one HMGET, in which a field that several reads want is named once; keys
that are wanted are one MGET. A read of many fields is a command by itself. A server serves nobody
else while it works on a command, so none names more than `MAX_ROWS` fields: what is more is split
into several commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from hiredis import ReplyError

from serving.stores.redis_reads import MAX_ROWS
from serving.stores.row_store import UNAVAILABLE, Packed, Unavailable

Fields = Sequence[bytes]
"""Fields of a hash, each a RESP bulk string."""

KEYS = b""
"""In place of a hash's key: what is wanted are not fields of a hash, but keys."""

Wanted = Sequence[tuple[bytes, Fields]]
"""Hashes by their keys, which are RESP bulk strings, or `KEYS`; and the fields wanted of each."""

Values = list[list[Packed]] | Unavailable
"""The values of the fields of each hash, `UNAVAILABLE` where the answer of a hash is an error."""

Found = asyncio.Future[Values]


class Hearer(Protocol):
    """Who is told values, as a future is; nothing may be raised."""

    def done(self) -> bool:
        """Whether it is told already, or wants to be told nothing any more."""
        ...

    def set_result(self, result: Values, /) -> None:
        """Tells it."""
        ...


FEW = 16
"""Number of fields up to which what a read wants of a hash is one command with what others want of
it. To find which fields several large reads have in common takes more than it saves."""


class WrongAnswer(Exception):
    """An answer cannot be the one to the command that it came for."""


class Read(NamedTuple):
    """What is wanted, and who is told."""

    wanted: Wanted
    found: Hearer


class _Command:
    """A read of one hash, or of keys, for one read or for several."""

    __slots__ = ("fields", "key", "places", "shares")

    def __init__(self, key: bytes, fields: Fields = ()) -> None:
        self.key = key
        self.fields = fields
        """Without any it is for several reads, whose `places` it has."""
        self.places: dict[bytes, int] = {}
        self.shares: list[tuple[list[list[Packed]], int, list[int]]] = []
        """Of each read its answer, the number in that of what is read here, and which it wants."""

    def tell(self, values: list[Packed]) -> None:
        """Put the values into the answers."""
        for answer, number, places in self.shares:
            answer[number] = [values[place] for place in places] if places else values


class RowBatch:
    """Reads that are sent together, and answered when the last command is."""

    def __init__(self, reads: Sequence[Read]) -> None:
        self._reads = reads
        self._answers: list[list[list[Packed]]] = []
        self._commands: list[_Command] = []
        shared: dict[bytes, _Command] = {}
        for read in reads:
            answer: list[list[Packed]] = [[]] * len(read.wanted)
            self._answers.append(answer)
            for number, (key, fields) in enumerate(read.wanted):
                if len(fields) > FEW:
                    alone = _Command(key, fields)
                    alone.shares.append((answer, number, []))
                    self._commands.append(alone)
                elif fields:  # Redis takes no HMGET without any
                    command = shared.get(key)
                    if command is None:
                        command = shared[key] = _Command(key)
                        self._commands.append(command)
                    places = command.places
                    mine = [places.setdefault(field, len(places)) for field in fields]
                    command.shares.append((answer, number, mine))
        for command in shared.values():
            command.fields = list(command.places)
        self._values: list[list[Packed]] = []
        self.sizes: list[int] = []
        """The number of fields of each command."""
        for command in self._commands:
            many = len(command.fields)
            if many <= MAX_ROWS:
                self.sizes.append(many)
            else:
                begins = range(0, many, MAX_ROWS)
                self.sizes += [min(MAX_ROWS, many - begin) for begin in begins]

    def packed(self) -> bytes:
        """The commands as they are sent."""
        parts: list[bytes] = []
        for command in self._commands:
            key, fields = command.key, command.fields
            for begin in range(0, len(fields), MAX_ROWS):
                some = fields if len(fields) <= MAX_ROWS else fields[begin : begin + MAX_ROWS]
                if key == KEYS:
                    parts.append(b"*%d\r\n$4\r\nMGET\r\n" % (len(some) + 1))
                else:
                    parts += (b"*%d\r\n$5\r\nHMGET\r\n" % (len(some) + 2), key)
                parts += some
        return b"".join(parts)

    def take(self, answer: Any) -> bool:
        """Takes the answer to the next command; True once all are answered, and reads are told.

        Raises `WrongAnswer` where it is none of a read of so many fields.
        """
        size = self.sizes[len(self._values)]
        if isinstance(answer, ReplyError):
            answer = [UNAVAILABLE] * size
        elif type(answer) is not list or len(answer) != size:
            raise WrongAnswer(f"the answer to a read of {size} fields is none of one")
        self._values.append(answer)
        if len(self._values) < len(self.sizes):
            return False
        self.tell()
        return True

    def fail(self) -> None:
        """Tells all reads that the store did not answer."""
        fail(self._reads)

    def tell(self) -> None:
        """Tells all reads their values, once all commands are answered, in the order of reads."""
        answered = iter(self._values)
        for command in self._commands:
            values = next(answered)
            while len(values) < len(command.fields):
                values = values + next(answered)
            command.tell(values)
        for read, answer in zip(self._reads, self._answers, strict=True):
            if not read.found.done():  # it is when its request was cancelled
                read.found.set_result(answer)


def fail(reads: Iterable[Read]) -> None:
    """Tells reads that the store did not answer."""
    for read in reads:
        if not read.found.done():
            read.found.set_result(UNAVAILABLE)
