"""The dialect of a CSV, from its first bytes: delimiter, names of columns, where its rows begin."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pipelines.produce.errors import BadFile, Mistaken
from pipelines.produce.options import FileOptions

SAMPLE_BYTES = 64 * 1024
SAMPLE_ROWS = 100
DELIMITERS = ",\t;|"
"""In the order in which they are preferred where they fit equally."""

DATA = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*|\d{4}-\d\d-\d\d.*", re.ASCII)
"""A cell that is hardly the name of a column."""


class Dialect(NamedTuple):
    """How a CSV is read; its rows begin at the byte `start`."""

    delimiter: str
    names: Sequence[str]
    start: int
    looks_like_data: bool

    def cells(self, line: str) -> Sequence[str]:
        """The cells of one line; all of it as one where it cannot be taken apart."""
        try:
            return next(csv.reader(_Lines(line), delimiter=self.delimiter), ())
        except csv.Error:
            return (line,)


def dialect_of(file: Path, sample: bytes, options: FileOptions) -> Dialect:
    """The dialect of a CSV that begins with `sample`.

    Without a header its columns have the names that the options give, or none. Raises `BadFile`
    for what is not text, and `Mistaken` where the options do not fit.
    """
    mark = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(sample[mark:])
    except UnicodeDecodeError as error:
        wide = sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise BadFile(
            file,
            0,
            f"{error.reason} at byte {error.start}: it is not text in UTF-8; convert it, as by "
            f"iconv -f {'UTF-16' if wide else 'WINDOWS-1252'} -t UTF-8",
        ) from None
    if not text.strip():
        raise BadFile(file, 0, "it is empty")
    delimiter = options.delimiter or sniffed(text)
    lines = _Lines(text)
    records = csv.reader(lines, delimiter=delimiter)
    first = [cell.strip() for cell in next(filter(None, records), [])]
    end = lines.characters
    rows = list(islice(filter(None, records), SAMPLE_ROWS))
    headed = options.header if options.header is not None else not options.names
    width = _width([*([] if headed and rows else [first]), *rows], len(options.names or first))
    given = list(options.names) or (first if headed else [""] * width)
    if headed and not options.names and width == len(given) + 1:
        if any(row[len(given)].strip() for row in rows if len(row) == width):
            given = ["", *given]  # as R writes them: the names of rows have no name
        else:
            given = [*given, ""]  # each row ends in a delimiter
    if len(given) != width:
        raise Mistaken(
            f"{file} has {width} columns, and {len(given)} names: "
            f"{', '.join(name or '(none)' for name in given)}. Is its delimiter {delimiter!r}? "
            "--delimiter sets it, --columns gives the names"
        )
    start = mark + len(text[:end].encode()) if headed else mark
    looks_like_data = headed and any(DATA.fullmatch(cell) for cell in first)
    return Dialect(delimiter, given, start, looks_like_data)


def _width(rows: Sequence[Sequence[str]], named: int) -> int:
    """The number of cells of most rows; of several the number of names, else the first one's."""
    sizes = Counter(map(len, rows))
    return max(sizes, key=lambda size: (sizes[size], size == named))


def sniffed(text: str) -> str:
    """The delimiter with which most of the first rows have the same number of cells, above one."""

    def fit(delimiter: str) -> tuple[int, int]:
        rows = islice(csv.reader(_Lines(text), delimiter=delimiter), SAMPLE_ROWS)
        try:
            sizes = Counter(len(row) for row in rows if row)
        except csv.Error:
            return 0, 0
        sizes.pop(1, None)
        return max(((many, size) for size, many in sizes.items()), default=(0, 0))

    return max(DELIMITERS, key=fit)


class _Lines:
    """The lines of a text, and how many characters were taken so far."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.characters += len(line)
        return line
