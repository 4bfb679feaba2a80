"""Training sets in Parquet files, read and written a piece at a time.

A file is written beside its place and moved there at the end, so it is whole or not there. It says
in its own metadata how it was made, so that `serving.history.verification` can make it again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from serving.errors import InvalidRequest
from serving.history.training_set import Stale

ROWS_A_PIECE = 50_000
"""Entity rows that are joined at a time: about 50 MB with ten features."""

BUFFER_BYTES = 262_144

MADE = b"tickwell.training_set"
"""The key of the metadata that say how a training set was made."""


class Made(Struct):
    """How a training set was made: all that its rows and the database do not say.

    `pins` has the version of each feature, `name@version`, by the name of its column. Times are
    nanoseconds UTC.
    """

    pins: dict[str, str]
    time_column: str
    timezone: str | None
    as_known_at: int | None
    stale: Stale
    event_times: bool
    made_at: int


def beside(table: Any, added: Any, made: Made | None = None) -> Any:
    """The columns of two tables, what the first says of itself, and how the second was made."""
    metadata = dict(table.schema.metadata or {})
    if made is not None:
        metadata[MADE] = msgspec.json.encode(made)
    schema = pa.schema([*table.schema, *added.schema], metadata=metadata or None)
    return pa.table([*table.columns, *added.columns], schema=schema)


def made_of(schema: Any) -> Made | None:
    """How the training set was made that a table with this schema is; None where it is none.

    Raises `InvalidRequest` for what another build has written.
    """
    told = (schema.metadata or {}).get(MADE)
    if told is None:
        return None
    try:
        return msgspec.json.decode(told, type=Made)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"it was made by another build, which told it so: {error}") from None


def pieces(source: Any) -> Iterator[Any]:
    """The rows of an opened file, as tables."""
    for batch in source.iter_batches(ROWS_A_PIECE):
        yield pa.Table.from_batches([batch])


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A Parquet file. Raises `InvalidRequest` for what is none, and OSError."""
    try:
        # what is buffered ahead takes as much memory as the file has bytes
        source = pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except pa.ArrowInvalid as error:
        raise InvalidRequest(f"{path} is no Parquet file: {error}") from None
    with source:
        yield source


@contextmanager
def written(path: Path) -> Iterator[Callable[[Any], None]]:
    """Writes tables to a Parquet file, which is at `path` at the end."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    writer: Any = None

    def write(table: Any) -> None:
        nonlocal writer
        if writer is None:
            writer = pq.ParquetWriter(name, table.schema, compression="zstd")
        writer.write_table(table)

    try:
        yield write
        writer.close()
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        if writer is not None and writer.is_open:
            writer.close()
        Path(name).unlink(missing_ok=True)
        raise
