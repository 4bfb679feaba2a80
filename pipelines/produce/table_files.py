"""Files as tables: CSV of any delimiter and compression, and Parquet, told apart by their bytes.

Nothing is typed by guess: the cells of a CSV are text, those of a Parquet have the types that it
declares. Memory is bounded whatever the size of the file and of its row groups: a block of
`BLOCK_BYTES` of a CSV, or `BATCH_ROWS` rows of a Parquet file with a buffer of `BUFFER_BYTES` and
one page for each column that is read.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipelines.produce.arrow_arrays import strings
from pipelines.produce.csv_dialect import SAMPLE_BYTES, Dialect, dialect_of
from pipelines.produce.errors import BadFile, Mistaken, Problem
from pipelines.produce.options import FileOptions
from pipelines.runtime.array_types import Int64s

BLOCK_BYTES = 1 << 18
"""Arrow reads up to 32 blocks ahead, by a constant of its own."""
BATCH_ROWS = 16_384
BUFFER_BYTES = 256 * 1024

UNREADABLE = (
    *(pa.ArrowException, OSError, EOFError, UnicodeError),
    *(zlib.error, zipfile.BadZipFile, csv.Error),
)
"""Errors that readers raise for a file that is damaged, or not what its first bytes say."""

COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}
PARQUET, ZIP = b"PAR1", b"PK\x03\x04"

DATABENTO = "Databento's binary format: write it as CSV or Parquet, as by its DBNStore.to_csv"

OTHERS = {
    **dict.fromkeys((b"DBN\x01", b"DBN\x02", b"DBN\x03"), DATABENTO),
    b"ARROW1\x00": "an Arrow or Feather file: write it as Parquet",
    b"\xfd7zXZ\x00": "compressed by xz: unpack it, as by unxz",
    b"\x04\x22\x4d\x18": "compressed by lz4: unpack it, as by unlz4",
    b"7z\xbc\xaf": "a 7z archive: unpack it",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of Excel: save it as CSV",
    b"\x89HDF": "an HDF5 file: write it as Parquet",
}
"""First bytes of what is not read, and what to do."""

TAR = slice(257, 262), b"ustar"
"""Where an archive of tar says what it is."""


class Rows(NamedTuple):
    """Consecutive rows: their columns as they were asked for, and what is no row of the table."""

    columns: Sequence[Any]
    """Arrow arrays."""
    numbers: Int64s
    """Of each row in its file, from 1."""
    broken: Sequence[Problem]
    """Lines between them that do not have as many cells as the table has columns."""


class Table(Protocol):
    """An open file. `names` are those of its columns, "" for one without a name."""

    file: Path
    names: Sequence[str]
    looks_like_data: bool
    """Whether the row that names the columns looks like a row of data."""

    def rows(self, columns: Sequence[int]) -> Iterator[Rows]:
        """The rows of the file, with some columns, by index. Raises `BadFile`."""
        ...

    def done(self) -> float:
        """How much of the file was read, 0 to 1."""
        ...

    def close(self) -> None: ...


def open_table(file: Path, options: FileOptions) -> Table:
    """Open a file. Raises `BadFile`, and `Mistaken` where the options do not fit it."""
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
        if magic == PARQUET:
            return _Parquet(file)
        return _Csv(file, magic, options)
    except UNREADABLE as error:
        raise BadFile(file, 0, error) from None


class _Csv:
    def __init__(self, file: Path, magic: bytes, options: FileOptions) -> None:
        self.file = file
        self._size = max(1, file.stat().st_size)
        self._raw = file.open("rb")
        self._broken: list[Any] = []
        try:
            self._stream = _decompressed(self._raw, magic)
            sample = _read(self._stream, SAMPLE_BYTES)
            _check_kind(file, sample)
            self._dialect: Dialect = dialect_of(file, sample, options)
        except BaseException:
            self.close()
            raise
        self.names = self._dialect.names
        self.looks_like_data = self._dialect.looks_like_data
        self._behind = _Behind(sample[self._dialect.start :], self._stream)
        self._text = io.BufferedReader(self._behind)
        self._blocks = 0

    def rows(self, columns: Sequence[int]) -> Iterator[Rows]:
        following = 1
        try:
            if not self._text.peek(1):
                return
            for batch in self._reader(sorted(set(columns))):
                self._blocks += 1
                numbers, broken = self._numbered(following, len(batch))
                arrays = [batch.column(str(index)) for index in columns]
                following += len(batch) + len(broken)
                yield Rows(arrays, numbers, broken)
            _, broken = self._numbered(following, 0)
            if broken:
                none = np.empty(0, np.int64)
                yield Rows([strings([])] * len(columns), none, broken)
        except UNREADABLE as error:
            raise BadFile(self.file, following - 1, _explained(error)) from None

    def done(self) -> float:
        taken = min(1.0, self._blocks * BLOCK_BYTES / max(1, self._behind.read_bytes))
        try:
            return taken * min(1.0, self._raw.tell() / self._size)
        except (ValueError, OSError):
            # the thread that reads ahead has come to the end and closed it, before or in this call
            return 1.0

    def close(self) -> None:
        self._raw.close()

    def _reader(self, columns: Sequence[int]) -> Any:
        names = [str(index) for index in range(len(self.names))]
        asked = [str(index) for index in columns] or names[:1]
        return pyarrow.csv.open_csv(
            pa.PythonFile(self._text, "r"),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
            pyarrow.csv.ParseOptions(
                delimiter=self._dialect.delimiter,
                newlines_in_values=True,
                invalid_row_handler=self._note,
            ),
            pyarrow.csv.ConvertOptions(
                include_columns=asked,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        )

    def _note(self, row: Any) -> str:
        self._broken.append(row)
        return "skip"

    def _numbered(self, following: int, rows: int) -> tuple[Int64s, list[Problem]]:
        """The numbers of the next rows, and the broken lines up to the last of them."""
        end = following + rows
        broken = []
        while self._broken and (self._broken[0].number <= end or rows == 0):
            broken.append(self._broken.pop(0))
            end += 1
        numbers = np.arange(following, end)
        return np.setdiff1d(numbers, [row.number for row in broken]) if broken else numbers, [
            Problem(
                row.number,
                "",
                f"has {row.actual_columns} cells and the table {row.expected_columns} columns: "
                f"{' '.join(row.text[:60].split())}",
                self._dialect.cells(row.text),
            )
            for row in broken
        ]


class _Parquet:
    looks_like_data = False

    def __init__(self, file: Path) -> None:
        import pyarrow.parquet  # 9 MB that a CSV does not need

        self.file = file
        # without a buffer, or with pre_buffer, a row group's columns are read whole
        self._file = pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        self.names: Sequence[str] = self._file.schema_arrow.names
        self._rows = 0

    def rows(self, columns: Sequence[int]) -> Iterator[Rows]:
        asked = [self.names[index] for index in columns]
        try:
            for batch in self._file.iter_batches(
                BATCH_ROWS, columns=list(dict.fromkeys(asked)), use_threads=False
            ):
                numbers = np.arange(self._rows + 1, self._rows + 1 + len(batch))
                self._rows += len(batch)
                yield Rows([batch.column(name) for name in asked], numbers, ())
        except UNREADABLE as error:
            raise BadFile(self.file, self._rows, error) from None

    def done(self) -> float:
        return float(self._rows / max(1, self._file.metadata.num_rows))

    def close(self) -> None:
        self._file.close()


class _Behind(io.RawIOBase):
    """A stream with some bytes before it."""

    def __init__(self, before: bytes, stream: Any) -> None:
        self._before = before
        self._stream = stream
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        piece = self._before[: len(view)] or self._stream.read(len(view))
        self._before = self._before[len(piece) :]
        view[: len(piece)] = piece
        self.read_bytes += len(piece)
        return len(piece)


def _decompressed(raw: Any, magic: bytes) -> Any:
    for begins, kind in COMPRESSIONS.items():
        if magic.startswith(begins):
            return pa.CompressedInputStream(pa.PythonFile(raw, "r"), kind)
    if magic == ZIP:
        return _of_archive(raw)
    return raw


def _of_archive(raw: Any) -> Any:
    """The one file of a ZIP archive, without what macOS adds to it."""
    archive = zipfile.ZipFile(raw)
    inside = [
        entry
        for entry in archive.infolist()
        if not entry.is_dir() and not entry.filename.startswith("__MACOSX/")
    ]
    if any(entry.filename == "xl/workbook.xml" for entry in inside):
        raise BadFile(Path(raw.name), 0, "it is a spreadsheet of Excel: save it as CSV")
    if len(inside) != 1:
        raise Mistaken(
            f"{raw.name} holds {len(inside)} files: unpack it, and name those that are meant"
        )
    try:
        return archive.open(inside[0])
    except (RuntimeError, NotImplementedError) as error:  # a password, or an unusual compression
        raise BadFile(Path(raw.name), 0, f"{error}; unpack it") from None


def _check_kind(file: Path, sample: bytes) -> None:
    """Raises `BadFile` for a format that is known, and not read."""
    position, name = TAR
    if sample[position] == name:
        raise BadFile(file, 0, "it is an archive of tar: unpack it")
    for begins, what in OTHERS.items():
        if sample.startswith(begins):
            raise BadFile(file, 0, f"it is {what}")


def _read(stream: Any, many: int) -> bytes:
    """So many bytes of a stream, fewer only at its end."""
    pieces, size = [], 0
    while size < many and (piece := stream.read(many - size)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _explained(error: BaseException) -> object:
    if "straddl" in str(error):
        return f"a line has more than {BLOCK_BYTES:,} bytes, or a quote is never closed"
    if "invalid UTF8" in str(error):
        return f"{error}: it is not text in UTF-8; convert it, as by iconv -f WINDOWS-1252 -t UTF-8"
    return error
