"""How the rows of files are to be read as ticks of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, get_args

from registry.definitions import TimeUnit

FileUnit = TimeUnit | Literal["yyyymmdd"]
"""What an integer of a file's time counts, or that its digits are a date."""

FILE_UNITS: tuple[str, ...] = (*get_args(TimeUnit), "yyyymmdd")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What a person says about files, beyond what they say themselves.

    `columns` names the column of a field where the two differ: by its name, by its number as `#1`,
    or for `ts` two columns as `Date+Time`. `constants` are fields that all rows share, as text.
    `header` says whether the first row has names, None to see; `names` gives names to a file
    without them. `scales` are factors of numbers.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    header: bool | None = None
    names: Sequence[str] = ()
    delimiter: str | None = None
    ts_unit: FileUnit | None = None
    ts_format: str | None = None
    tz: str | None = None
    scales: Mapping[str, Decimal] = field(default_factory=dict)
    skip_empty: bool = False
    as_if_now: bool = False
    keep_rows: bool = False
    """Whether every column is read, so that a refused row can be written elsewhere."""
    known_at: str | None = None
    """The column of when a row became known, for a load; None for none."""
    names_entities: bool = False
    """Whether each row's entity is named, for a load."""
