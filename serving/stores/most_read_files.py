"""What servers have counted (`most_read`), kept in files: hot, which it fills, may be empty then.

A file belongs to one process, which locks it: the first that nobody uses. The next one that starts
takes it up again. A file is a line of JSON for each entity, and replaced as a whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serving.own_files import first_free
from serving.stores.most_read import MOST_ENTITIES
from serving.stores.row_store import RowId

logger = logging.getLogger(__name__)

LINES = 500
"""Entities that are written as JSON at once; between them requests are served."""

_encode, _decode = (
    msgspec.json.encode,
    msgspec.json.Decoder(tuple[str, tuple[str, ...], float]).decode,
)


class MostReadFile:
    """The file of this process in a directory, which is made; it is locked until it is closed.

    Raises OSError where the directory cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lock, number = first_free(directory)
        self._path = directory / f"{number}.jsonl"

    async def save(self, reads: Sequence[tuple[RowId, float]]) -> None:
        """Replace what the file holds. Raises OSError."""
        parts: list[bytes] = []
        for begin in range(0, len(reads), LINES):
            some = reads[begin : begin + LINES]
            lines = [_encode((row.source, row.entity, round(n, 3))) for row, n in some]
            parts.append(b"\n".join([*lines, b""]))
            await asyncio.sleep(0)
        await asyncio.to_thread(self._write, parts)

    def close(self) -> None:
        """Let another process have the file."""
        self._lock.close()

    def _write(self, parts: Sequence[bytes]) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.writelines(parts)
        new.replace(self._path)


def directory_of(data: Path) -> Path:
    """Where the servers on a data directory keep their files."""
    return data / "most-read"


def saved(directory: Path) -> list[list[tuple[RowId, float]]]:
    """What each file in a directory holds; one that is damaged, or not there, is left out."""
    found = []
    for path in sorted(directory.glob("*.jsonl")):
        try:
            lines = [_decode(line) for line in path.read_bytes().splitlines()]
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("%s is left out: %s", path, error)
            continue
        found.append([(RowId(source, entity), reads) for source, entity, reads in lines])
    return found


def most_read(directory: Path) -> list[tuple[RowId, float]]:
    """What the files say on the average, the most read first."""
    counts: dict[RowId, float] = {}
    files = saved(directory)
    for file in files:
        for row, reads in file:
            counts[row] = counts.get(row, 0.0) + reads / len(files)
    return sorted(counts.items(), key=lambda one: -one[1])[:MOST_ENTITIES]
