"""The log of served values: what a server answered, and from which rows, of one request in many.

A line is a `Served` as JSON. Each process of a server writes files of its own, `1.jsonl` and, once
that is full, `1.jsonl.1`, `1.jsonl.2` and so on, which are older. What reads them compares a value
with what the rows at these origins say, judged for the same moment.
"""

from __future__ import annotations

import logging
import random
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from registry.formats.origin import Origin
from registry.formats.status import Status

logger = logging.getLogger(__name__)

ENDING = ".jsonl"
"""The end of the name of a file that is written; those before it have a number behind it."""

_BITS = struct.Struct(">d")


class ServedRow(Struct, frozen=True):
    """The row of an entity in a source, as it was when it was read."""

    source: str
    entity: tuple[str, ...]
    """The values of the source's key fields, in their order."""
    tier: str | None
    """The store that it is from, None where none answered with a row that can be read."""
    lagging: bool
    """Whether the source was behind in that store, as far as the server knew."""
    schema_id: int | None
    """The row schema, None where there is no row."""
    origin: Origin | None
    """The origin of the row's tick, None where there is no row."""


class ServedValue(Struct, frozen=True):
    """A value as it was served."""

    feature: str
    """The version that was meant, as `name@version`, whatever name the request had."""
    entity: dict[str, str]
    """The values of its key fields by their names."""
    status: Status
    tier: str | None
    """The tier that the answer named; None also where it has no tiers, as for clients of Feast."""
    bits: str | None
    """The float64 as 16 hexadecimal digits, the sign first; None where there is no number.

    Clients of Feast are shown it with the status `ok` alone."""
    rows: tuple[int, ...]
    """The rows that it was made of, by their indexes in `Served.rows`.

    None for a sum whose members could not be read."""

    @property
    def value(self) -> float | None:
        """The number that was served."""
        if self.bits is None:
            return None
        number: float = _BITS.unpack(bytes.fromhex(self.bits))[0]
        return number


class Served(Struct, frozen=True):
    """What was served to one request."""

    moment: int
    """When it was judged, Unix nanoseconds by the server's clock."""
    request_id: str | None
    values: tuple[ServedValue, ...]
    rows: tuple[ServedRow, ...]
    """The rows of all values, each once."""
    left_out: int
    """Values of the request that are not among `values`, as they were too many."""


def bits_of(value: float) -> str:
    """A float64 as `ServedValue.bits` has it."""
    return _BITS.pack(value).hex()


_decode = msgspec.json.Decoder(Served).decode
encode = msgspec.json.Encoder().encode
"""A `Served` as a line without its end."""


def read_served(directory: Path) -> Iterator[Served]:
    """What is logged in a directory: one file after the other, and each from its beginning.

    A line that was cut, by a process that was killed or a disk that was full, is passed over, and a
    warning says so. Nothing comes from a directory that does not exist.

    Raises OSError where a file cannot be read.
    """
    for path in sorted(directory.glob(f"*{ENDING}*"), key=_oldest_first):
        cut = 0
        try:
            file = path.open("rb")
        except FileNotFoundError:  # it was the oldest one
            continue
        with file:
            for line in file:
                if line.isspace():
                    continue
                try:
                    yield _decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    cut += 1
        if cut:
            logger.warning("%s: %d lines were cut, and are passed over", path, cut)


def some_served(directory: Path, number: int, chance: random.Random) -> list[Served]:
    """About so many neighbouring lines from anywhere in the logs; only these are read.

    Raises OSError where a file cannot be read.
    """
    sizes: list[tuple[Path, int]] = []
    for path in sorted(directory.glob(f"*{ENDING}*"), key=_oldest_first):
        with suppress(FileNotFoundError):  # it was the oldest one
            sizes.append((path, path.stat().st_size))
    if not any(size for _, size in sizes):
        return []
    ((path, size),) = chance.choices(sizes, [size for _, size in sizes])
    with suppress(FileNotFoundError):
        begin = chance.randrange(size)
        return _lines(path, begin, number) or _lines(path, 0, number)
    return []


def _lines(path: Path, begin: int, number: int) -> list[Served]:
    """So many lines from a byte on; the one that lies across it does not count."""
    found: list[Served] = []
    with path.open("rb") as file:
        file.seek(begin)
        if begin:
            file.readline()
        for line in islice(file, number):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # it is being written, or cut
                found.append(_decode(line))
    return found


def _oldest_first(path: Path) -> tuple[str, int]:
    """What files sort by: their process, and how many of its files are newer."""
    name, _, number = path.name.partition(ENDING)
    return name, -int(number[1:] or 0)
