"""The reads of one turn of the event loop as commands, and the answers to these as those of reads.

Each hash that is wanted is one HMGET, in which a field that several reads want is named once; keys
that are wanted are one MGET. A server serves nobody else while it works on a command, so none names
more than `MAX_ROWS` fields: what is more is split into several commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain
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


class WrongAnswer(Exception):
    """An answer cannot be the one to the command that it came for."""


class Read(NamedTuple):
    """What is wanted, and who is told."""

    wanted: Wanted
    found: Hearer


class _Share(NamedTuple):
    """What one read wants of a hash, and where its values go: to a number in its answer."""

    fields: Fields
    answer: list[list[Packed]]
    number: int


class RowBatch:
    """Reads that are sent together, and answered when the last command is."""

    def __init__(self, reads: Sequence[Read]) -> None:
        self._reads = reads
        self._answers: list[list[list[Packed]]] = []
        self._hashes: dict[bytes, list[_Share]] = {}
        for read in reads:
            answer: list[list[Packed]] = [[]] * len(read.wanted)
            self._answers.append(answer)
            for number, (key, fields) in enumerate(read.wanted):
                if fields:  # Redis takes no HMGET without any
                    share = _Share(fields, answer, number)
                    self._hashes.setdefault(key, []).append(share)
        self._fields = [_fields(shares) for shares in self._hashes.values()]
        self._values: list[list[Packed]] = []
        self.sizes = [
            min(MAX_ROWS, len(fields) - begin)
            for fields in self._fields
            for begin in range(0, len(fields), MAX_ROWS)
        ]
        """The number of fields of each command."""

    def packed(self) -> bytes:
        """The commands as they are sent."""
        parts: list[bytes] = []
        for key, fields in zip(self._hashes, self._fields, strict=True):
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
        commands = iter(self._values)
        for shares, fields in zip(self._hashes.values(), self._fields, strict=True):
            values = next(commands)
            while len(values) < len(fields):
                values = values + next(commands)
            if len(shares) == 1:
                _, answer, number = shares[0]
                answer[number] = values
            else:
                by_field = dict(zip(fields, values, strict=True))
                for own, answer, number in shares:
                    answer[number] = [by_field[field] for field in own]
        for read, answer in zip(self._reads, self._answers, strict=True):
            if not read.found.done():  # it is when its request was cancelled
                read.found.set_result(answer)


def fail(reads: Iterable[Read]) -> None:
    """Tells reads that the store did not answer."""
    for read in reads:
        if not read.found.done():
            read.found.set_result(UNAVAILABLE)


def _fields(shares: Sequence[_Share]) -> Fields:
    """The fields that a hash is asked for: of one read as they are, of several each once."""
    if len(shares) == 1:
        return shares[0].fields
    return list(dict.fromkeys(chain.from_iterable(share.fields for share in shares)))
