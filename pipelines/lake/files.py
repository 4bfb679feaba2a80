"""Files of the lake: written elsewhere, then moved to where they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.errors import NotWritten
from registry.formats.lake import ROWS, SORTED_BY, unfinished

COMPRESSION = "zstd"
PLAIN = ("event_time", "sequence", "ts", "known_at", "tick_time", "seq", "offset")
"""Whole numbers that mostly grow from row to row: their differences are stored."""


class WrittenFile(NamedTuple):
    """A file that is whole."""

    unfinished: Path
    rows: int
    size: int
    sha256: bytes


class UnfinishedFile:
    """A Parquet file of one row schema that is being written, in the lake's `unfinished` folder."""

    def __init__(self, lake: Path, schema: pa.Schema) -> None:
        folder = unfinished(lake)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{uuid4().hex}.parquet"
        names = schema.names
        differences = dict.fromkeys(PLAIN, "DELTA_BINARY_PACKED")
        with self._told():
            self._writer: Any = pq.ParquetWriter(
                self._path,
                schema,
                compression=COMPRESSION,
                use_dictionary=[name for name in names if name not in differences],
                column_encoding=differences,
                sorting_columns=[pq.SortingColumn(names.index(name)) for name in SORTED_BY],
                # engines read the types of the file: with Arrow's own, texts would be dictionaries
                store_schema=False,
            )
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Write a table as a row group."""
        with self._told():
            self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._rows += len(table)

    def finish(self) -> WrittenFile:
        """End the file and have the disk keep it."""
        with self._told():
            self._writer.close()
            with self._path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                os.fsync(file.fileno())
        return WrittenFile(self._path, self._rows, self._path.stat().st_size, digest)

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):  # it may be the reason to discard it
            self._writer.close()
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raises `NotWritten` for what the system says."""
        try:
            yield
        except OSError as error:
            raise NotWritten(self._path, error) from error


def move_to(written: WrittenFile, path: Path) -> None:
    """Move a file to where it is read, in place of the one that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written.unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_unfinished(lake: Path) -> None:
    """Remove what processes that were killed have left; none may be writing."""
    for path in unfinished(lake).glob("*.parquet"):
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> bytes:
    """The digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def is_lake(lake: Path) -> bool:
    """Whether a folder has been exported to."""
    return (lake / ROWS).is_dir()
