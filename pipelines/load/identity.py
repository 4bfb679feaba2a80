"""Which load it is: the same contents of files, read in the same way, are the same load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from pipelines.produce.options import FileOptions
from registry.definitions import Source

UUID_VERSION = 8
"""The version of a UUID whose bits are its maker's own: those of topics have another one."""

NO_MAPPING = ("keep_rows", "names_entities", "as_if_now")
"""Options that change nothing of what a row means."""


class FileContents(NamedTuple):
    """A file as it was read: its name, its size in bytes, and its SHA-256 in hex."""

    name: str
    bytes: int
    sha256: str


def contents_of(file: Path) -> FileContents:
    """The contents of a file, which is read once, whatever its size."""
    with file.open("rb") as opened:
        digest = file_digest(opened, "sha256").hexdigest()
    return FileContents(file.name, file.stat().st_size, digest)


def mapping_of(source: Source, options: FileOptions, delay_ns: int | None) -> dict[str, Any]:
    """All that says how the rows of files become ticks, as JSON can hold it."""
    given = {
        name: value for name, value in asdict(options).items() if name not in NO_MAPPING and value
    }
    given["scales"] = {field: str(factor) for field, factor in options.scales.items()}
    given |= {"source": source.name, "ts_unit": options.ts_unit or source.ts_unit}
    if delay_ns is not None:
        given["delay_ns"] = delay_ns
    known: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(given))
    return known


def load_id(contents: Sequence[FileContents], mapping: Mapping[str, Any]) -> bytes:
    """The UUID of a load: a digest of the contents of its files, in their order, and the mapping.

    The names of the files are no part of it.
    """
    digests = [one.sha256 for one in contents]
    made = sha256(msgspec.json.encode([digests, mapping], order="deterministic")).digest()
    bits = int.from_bytes(made[:16], "big")
    bits &= ~(0xF000 << 64) & ~(0xC000 << 48)
    return UUID(int=bits | (UUID_VERSION << 76) | (0x8000 << 48)).bytes
