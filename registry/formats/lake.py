"""The lake: where its files are, and what their columns are called.

    rows/source=price/schema=1/day=2026-11-24/part-0.parquet
    rows/source=price/schema=1/day=2026-11-24/part-1.parquet
    unfinished/

Under `rows` is nothing but whole files, for engines read whatever they find there. A file has the
rows of one source, row schema and day, by event time in UTC, of live in the first part and loaded
ones in the second; so all files of a `schema=` folder have the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path, PurePosixPath

from registry.errors import DefinitionError
from registry.formats.loaded_rows import row_schema_of

DAY_NS = 86_400 * 10**9
"""Nanoseconds of a day."""

ROWS, UNFINISHED = "rows", "unfinished"
EPOCH = date(1970, 1, 1)

OWN_COLUMNS = (
    *("entity", "event_time", "sequence", "revision", "ts", "known_at"),
    *("tick_time", "seq", "seq_text", "op"),
)
"""The columns of every file that say what tick a row is of."""

ORIGIN_COLUMNS = ("topic_id", "partition", "offset", "index")
FOLDERS = ("source", "schema", "day")
"""Columns that engines make of the folders' names."""

TAKEN = frozenset((*OWN_COLUMNS, *ORIGIN_COLUMNS, *FOLDERS))
SORTED_BY = ("entity", "event_time", "sequence", "revision")
"""The columns by whose values the rows of a file are sorted."""

GUESSED = frozenset("true false inf nan null".split())  # noqa: SIM905
"""Names that an engine may read as something else than text in the name of a folder."""


def file_path(source: str, schema_id: int, day: date) -> PurePosixPath:
    """The path of a file, relative to the lake; loaded rows have a negative `schema_id`."""
    folders = f"source={source}", f"schema={row_schema_of(schema_id)}", f"day={day.isoformat()}"
    return PurePosixPath(ROWS, *folders, f"part-{int(schema_id < 0)}.parquet")


def unfinished(lake: Path) -> Path:
    """The folder in which files are written; it is on the file system of the others."""
    return lake / UNFINISHED


def day_number(day: date) -> int:
    """The number of a day; 1970-01-01 has 0."""
    return (day - EPOCH).days


def day_of(number: int) -> date:
    """The day of a number."""
    return EPOCH + timedelta(days=number)


def value_column(ref: str) -> str:
    """The column of the values of a version, which is given as `name@version`."""
    name, _, version = ref.partition("@")
    return f"{name}__v{version.replace('.', '_')}"


def status_column(ref: str) -> str:
    """The column of the statuses of a version's values."""
    return f"{value_column(ref)}__status"


def tick_columns(names: Iterable[str]) -> dict[str, str]:
    """The columns of the key and of the fields of a source, by their names.

    One that is called as a column of the lake itself has `_` behind its name.
    """
    return {name: f"{name}_" if name in TAKEN else name for name in names}


def check_source_name(name: str, where: str) -> None:
    """Raises `DefinitionError`, naming `where`, for a source whose folder is no text."""
    if name in GUESSED:
        raise DefinitionError(
            where,
            f"{name!r} cannot be the name of a source: programs that read the lake guess types "
            f"from the names of its folders, and would not read it as text; name it {name}_ticks, "
            "for instance",
        )
