"""Which columns of a table hold which fields of a source's ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.produce import cells
from pipelines.produce.arrow_arrays import repeated
from pipelines.produce.errors import ColumnMissing, Mistaken
from pipelines.produce.options import FileOptions
from pipelines.produce.table_files import Table
from registry.definitions import Source

KNOWN_AT = "known_at"
"""The name of the column of when a row became known, which is no field of a tick."""


class FieldColumns(NamedTuple):
    """The fields of a tick in their order (`names`): columns by index, or constants.

    Of `ts` there may be two columns, of dates and of times of day. `required` are the numeric
    fields that a trade needs; `shown` names each field's column in messages. `table` are the names
    of all columns.
    """

    table: Sequence[str]
    names: Sequence[str]
    columns: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, str]
    required: frozenset[str]
    shown: Mapping[str, str]

    @property
    def indexes(self) -> list[int]:
        """The columns to read, each once."""
        return list(dict.fromkeys(index for found in self.columns.values() for index in found))

    def constant(self, field: str, rows: int) -> Any:
        """The text of a constant field in each row; None for a field that is not constant."""
        value = self.constants.get(field)
        return None if value is None else repeated(value, rows)

    def column_of(self, field: str) -> str:
        """The column of a field, as it is to be named in a message."""
        return self.shown.get(field, field)


def fields_of(table: Table, source: Source, options: FileOptions) -> FieldColumns:
    """The columns of each field.

    Raises `ColumnMissing`, and `Mistaken` for options that cannot be meant.
    """
    known = [*source.key, *source.field_names, "ts", "seq", "op"]
    _check_options(source, options, known)
    needed = {*source.key, "ts"} | {field.name for field in source.fields if field.required}
    if "op" in options.columns or "op" in options.constants or "op" in table.names:
        needed = {*source.key, "ts"}  # a reset has no values
    names, columns, shown = [], {}, {}
    missing: dict[str, str] = {}
    by_number = False
    for field in known:
        if field in options.constants:
            names.append(field)
            shown[field] = f"--set {field}"
            continue
        if field == "ts" and options.as_if_now:
            continue
        wanted = options.columns.get(field, field)
        found = _find(table, wanted, field)
        if found is None:
            if field in needed or field in options.columns:
                missing[field] = wanted
            continue
        by_number = by_number or wanted.startswith("#")
        names.append(field)
        columns[field] = found
        shown[field] = wanted
    if options.known_at is not None:
        known_at = _find(table, options.known_at, KNOWN_AT)
        if known_at is None:
            raise Mistaken(f"{table.file} has no column {options.known_at} (--known-at)")
        columns[KNOWN_AT], shown[KNOWN_AT] = known_at, options.known_at
    if missing:
        raise ColumnMissing(table.file, missing, source.key, table.names, _data_hint(table))
    if by_number and table.looks_like_data and options.header is None:
        raise Mistaken(
            f"{table.file}: its first row looks like data ({', '.join(table.names)[:60]}): say "
            "--no-header if it is, or --header if these are the names of columns"
        )
    required = {field.name for field in source.fields if field.required}
    return FieldColumns(table.names, names, columns, options.constants, frozenset(required), shown)


def _check_options(source: Source, options: FileOptions, known: Sequence[str]) -> None:
    named = {"--map": options.columns, "--set": options.constants, "--scale": options.scales}
    for flag, fields in named.items():
        for field in fields:
            if field not in known:
                raise Mistaken(
                    f"{flag} {field}: {source.name} has no field {field}; it has {', '.join(known)}"
                )
            if flag == "--scale" and field not in source.field_names:
                raise Mistaken(f"--scale {field}: only numbers have a scale")
            if flag == "--set" and field in options.columns:
                raise Mistaken(f"{field} is given twice: by --map and by --set")
    for field, value in options.constants.items():
        check = cells.key if field in source.key else cells.text
        if field in source.field_names:
            check = cells.number
        if field == "seq":
            raise Mistaken("--set seq: ticks with one sequence number are duplicates")
        try:
            check(value)
        except ValueError as error:
            raise Mistaken(f"--set {field}={value}: {value!r} {error}") from None


def _find(table: Table, wanted: str, field: str) -> tuple[int, ...] | None:
    """The column, or for `ts` the two columns, of a name or a number; None for none."""
    one = _index(table, wanted)
    if one is None and field == "ts" and "+" in wanted:
        day, _, clock = wanted.partition("+")
        both = _index(table, day), _index(table, clock)
        return None if None in both else tuple(index for index in both if index is not None)
    return None if one is None else (one,)


def _index(table: Table, wanted: str) -> int | None:
    times = Counter(table.names)[wanted]
    if times > 1:
        raise Mistaken(
            f"{table.file} has the column {wanted} more than once: name it by its number, as "
            f"#{table.names.index(wanted) + 1}"
        )
    if times == 1:
        return table.names.index(wanted)
    if wanted.startswith("#") and wanted[1:].isdecimal():
        number = int(wanted[1:])
        return number - 1 if 0 < number <= len(table.names) else None
    return None


def _data_hint(table: Table) -> str:
    if not table.looks_like_data:
        return ""
    return (
        ". Its first row looks like data: --no-header says that it has no names of columns, and "
        "--columns a,b,c gives them"
    )
