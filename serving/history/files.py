"""Training sets in Parquet files, read and written a piece at a time.

A file is written beside its place and moved there at the end, so it is whole or not there. It says
in its own metadata how it was made, so that `serving.history.verification` can make it again.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from serving.errors import InvalidRequest
from serving.history.made import Made, made_in

FEWEST_ROWS, MOST_ROWS = 50_000, 500_000
"""Entity rows that are joined at a time, unless features are few or many."""

CELLS_A_PIECE = 2_000_000
"""Values of a piece: about 200 MB. The larger pieces are, the fewer scans there are."""

BUFFER_BYTES = 262_144

LONGEST_PREFIX = 60
"""Characters of a file's name that its temporary one begins with: a name may have 255 bytes."""

MADE = b"tickwell.training_set"
"""The key of the metadata that say how a training set was made."""


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
    return made_in(told)


def rows_a_piece(features: int) -> int:
    """How many entity rows are joined at a time with so many features."""
    return min(MOST_ROWS, max(FEWEST_ROWS, CELLS_A_PIECE // max(1, features)))


def pieces(source: Any, rows: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The rows of an opened file, so many at a time, with some of the columns, or with all.

    Raises `InvalidRequest` for bytes that are no rows.
    """
    batches = source.iter_batches(rows, columns=columns)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise InvalidRequest(
                f"the Parquet file cannot be read to its end: {one_line(error)}"
            ) from None
        if batch is None:
            return
        yield pa.Table.from_batches([batch])


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A Parquet file. Raises `InvalidRequest` for what is none, and OSError."""
    path.open("rb").close()  # its error names the file, Arrow's does not
    try:
        # what is buffered ahead takes as much memory as the file has bytes
        source = pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"{path} is no Parquet file: {one_line(error)}") from None
    with source:
        yield source


@contextmanager
def written(path: Path) -> Iterator[Callable[[Any], None]]:
    """Writes tables to a Parquet file, which is at `path` at the end.

    Raises OSError, which names the path.
    """
    path = path.resolve()  # of a link it is the file that is written
    with _naming(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:LONGEST_PREFIX]}.", dir=path.parent)
    os.close(handle)
    writer: Any = None

    def write(table: Any) -> None:
        nonlocal writer
        with _naming(path):
            if writer is None:
                writer = pq.ParquetWriter(name, table.schema, compression="zstd")
            writer.write_table(table)

    try:
        yield write
        with _naming(path):
            writer.close()
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)
            os.replace(name, path)
    except BaseException:
        if writer is not None and writer.is_open:
            with suppress(OSError):  # as on a disk that is full
                writer.close()
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the system name this path: Arrow's name none, others one beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(errno.EIO, one_line(error), str(path)) from None
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def one_line(error: Exception) -> str:
    """What an error says; Arrow says some in several lines."""
    return " ".join(str(error).split())
