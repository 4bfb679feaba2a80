"""Rows of files to messages: which column is which field, and what is wrong with a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.produce import cell_columns, cells
from pipelines.produce.arrow_arrays import booleans, int64s, integers, mask, repeated, strings
from pipelines.produce.arrow_arrays import text as scalar
from pipelines.produce.cell_columns import Tokens, texts
from pipelines.produce.errors import Problem
from pipelines.produce.event_times import UNKNOWN, TimeReader, day
from pipelines.produce.field_columns import KNOWN_AT, FieldColumns, fields_of
from pipelines.produce.local_times import LocalTimes
from pipelines.produce.messages import Batch, Member, Messages, messages
from pipelines.produce.options import FileOptions
from pipelines.produce.table_files import Rows, Table, open_table
from pipelines.runtime.array_types import Int64s
from pipelines.ticks.event_time import NANOSECONDS
from registry.definitions import Source
from registry.formats.entity_name import SEPARATOR, entity_id

SEPARATOR_TEXT = scalar(SEPARATOR)


@dataclass(frozen=True, slots=True)
class TickRows:
    """Good rows of a file in its order, as the members of their messages, and the other rows.

    `numbers` are those of the good rows in the file, `times` their event times in nanoseconds.
    `problems` are rows that are no ticks; `empty` is how many were passed over because they hold no
    value. `original` are the rows' own columns, where they are kept, with `original_numbers`.
    `unclear` are rows, also of earlier blocks, of which nothing tells the time.
    """

    source: Source
    numbers: Int64s
    keys: Any
    members: Sequence[Member]
    times: Int64s | None
    problems: Sequence[Problem]
    empty: int
    plan: FieldColumns
    original: Rows | None = None
    unclear: Sequence[Problem] = ()
    known_at: Int64s | None = None
    """When the good rows became known, nanoseconds, where a column says so."""
    entities: Any = None
    """The entities of the good rows, an Arrow array of text, where they are asked for."""

    def __len__(self) -> int:
        return len(self.numbers)

    def slice(self, start: int, end: int) -> TickRows:
        """Some of the good rows, by index, without the others."""

        def kept(column: Any) -> Any:
            return column.slice(start, end - start)

        return self._of(self.numbers[start:end], kept, slice(start, end))

    def only(self, which: Any) -> TickRows:
        """The good rows that a mask names, without the others."""
        bits = booleans(which)
        return self._of(self.numbers[which], lambda column: pc.filter(column, bits), which)

    def _of(self, numbers: Int64s, kept: Callable[[Any], Any], which: Any) -> TickRows:
        return replace(
            self,
            numbers=numbers,
            keys=kept(self.keys),
            members=[member._replace(tokens=kept(member.tokens)) for member in self.members],
            times=None if self.times is None else self.times[which],
            known_at=None if self.known_at is None else self.known_at[which],
            entities=None if self.entities is None else kept(self.entities),
            problems=(),
            empty=0,
            unclear=(),
        )

    def messages(self, now_ns: int) -> Messages:
        """The messages to send. Rows without a time of their own get `now_ns`, in whole units."""
        times = self.times
        if times is None:
            factor = NANOSECONDS[self.source.ts_unit]
            times = np.full(len(self), now_ns // factor * factor, np.int64)
        return messages(self.keys, [*self.members, Member("ts", _time_tokens(times, self.source))])

    def batch(self) -> Batch:
        """The messages to send, with the ticks of one key together."""
        codes = integers(pc.dictionary_encode(self.keys).indices, np.int32)
        return self.messages(0).joined(codes)


class _Field(NamedTuple):
    """A field of all rows of a block: its text, its tokens, and the column that they come from."""

    name: str
    column: str
    text: Any
    tokens: Tokens


class TickFile:
    """One file as ticks of a source. Raises `BadFile`, `ColumnMissing` and `Mistaken`."""

    def __init__(self, file: Path, source: Source, options: FileOptions) -> None:
        self.file = file
        self._source = source
        self._options = options
        self._earliest = source.earliest_ns
        self._times = TimeReader(options, source.ts_unit, self._earliest)
        self.local_times = LocalTimes(options.tz, source.skew_ns)
        self._local_known = LocalTimes(options.tz, source.skew_ns)
        self.table: Table = open_table(file, options)
        try:
            self._plan: FieldColumns = fields_of(self.table, source, options)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.table.close()

    def blocks(self) -> Iterator[TickRows]:
        """The rows of the file, a block at a time."""
        width = len(self.table.names)
        wanted = range(width) if self._options.keep_rows else self._plan.indexes
        position = {index: place for place, index in enumerate(wanted)}
        with closing(self.table):
            for rows in self.table.rows(list(wanted)):
                yield self._block(rows, position)
        unclear = [
            Problem(one.row, self._plan.column_of(name), one.text)
            for name, found in (("ts", self.local_times), (KNOWN_AT, self._local_known))
            for one in sorted(found.finish())
        ]
        if unclear:
            none = np.empty(0, np.int64)
            nothing = strings([])
            last = TickRows(self._source, none, nothing, (), none, (), 0, self._plan)
            yield replace(last, unclear=unclear)

    def _block(self, rows: Rows, position: Mapping[int, int]) -> TickRows:
        n = len(rows.numbers)
        numbers = rows.numbers

        def column(index: int) -> Any:
            return rows.columns[position[index]]

        judged = _Judged(self._options.skip_empty)
        fields = {name: self._field(name, column, n) for name in self._plan.names if name != "ts"}
        times = known_at = None
        if not self._options.as_if_now:
            times = self._times_of("ts", fields, column, numbers, judged)
        if KNOWN_AT in self._plan.columns:
            known_at = self._times_of(KNOWN_AT, fields, column, numbers, judged)
        for field in fields.values():
            empty = field.tokens.empty
            if self._options.skip_empty and field.name not in self._plan.required:
                empty = {}  # the field is left out, as where its cell is empty
            judged.add(field.column, field.tokens.wrong, empty)
        self._find_absent(fields, {"ts": times, KNOWN_AT: known_at}, judged)
        good = judged.good(n)
        whole = bool(good.all())
        bits = None if whole else booleans(good)

        def kept(tokens: Any) -> Any:
            return tokens if bits is None else pc.filter(tokens, bits)

        problems = [
            Problem(int(numbers[index]), column_name, text)
            for index, (column_name, text) in sorted(judged.wrong.items())
        ]
        return TickRows(
            source=self._source,
            numbers=numbers if whole else numbers[good],
            keys=kept(fields[self._source.key[0]].text),
            members=[
                Member(field.name, kept(field.tokens.tokens), field.tokens.suffix)
                for field in fields.values()
            ],
            times=times if times is None or whole else times[good],
            problems=[*rows.broken, *problems],
            empty=len(judged.empty),
            plan=self._plan,
            original=rows if self._options.keep_rows else None,
            known_at=known_at if known_at is None or whole else known_at[good],
            entities=kept(self._entities(fields)) if self._options.names_entities else None,
        )

    def _entities(self, fields: Mapping[str, _Field]) -> Any:
        """The names of the rows' entities, as `formats.entity_name` makes them."""
        keys = [fields[name].text for name in self._source.key]
        return keys[0] if len(keys) == 1 else pc.binary_join_element_wise(*keys, SEPARATOR_TEXT)

    def _field(self, name: str, column: Callable[[int], Any], rows: int) -> _Field:
        """A field other than the time."""
        shown, is_key = self._plan.column_of(name), name in self._source.key
        text = self._plan.constant(name, rows)
        if text is None:
            given = column(self._plan.columns[name][0])
            if is_key and not cell_columns.may_be_key(given):
                nothing = repeated("", rows)
                wrong = {
                    index: f"{cell} is neither text nor an integer"
                    for index, cell in enumerate(given.to_pylist())
                    if cell is not None
                }
                return _Field(name, shown, nothing, Tokens(nothing, wrong))
            text = texts(given, name)
        return _Field(name, shown, text, self._tokens(name, text))

    def _tokens(self, name: str, text: Any) -> Tokens:
        if name in self._source.key:
            return cell_columns.strings(text, cells.key)
        if name == "op":
            return cell_columns.strings(text, cells.text)
        if name == "seq":
            return cell_columns.integers(text)
        return cell_columns.numbers(text, self._options.scales.get(name))

    def _times_of(
        self,
        name: str,
        fields: Mapping[str, _Field],
        column: Callable[[int], Any],
        numbers: Int64s,
        judged: _Judged,
    ) -> Int64s:
        """The times of all rows in `ts`, or when they became known; `UNKNOWN` without one."""
        shown = self._plan.column_of(name)
        constant = self._plan.constant(name, len(numbers))
        given = [column(index) for index in self._plan.columns.get(name, ())]
        times = self._times.read([constant] if constant is not None else given, shown)
        keys = [fields[name].text for name in self._source.key]
        local = self.local_times if name == "ts" else self._local_known
        local.to_utc(
            times.nanoseconds,
            times.local,
            lambda index: entity_id([key[index].as_py() for key in keys]),
            lambda index: int(numbers[index]),
            times.wrong,
        )
        early = (times.nanoseconds < self._earliest) & (times.nanoseconds != UNKNOWN)
        for index in np.flatnonzero(early).tolist():
            times.wrong[index] = (
                f"{day(int(times.nanoseconds[index]))} is before {day(self._earliest)}, the first "
                "day that is taken for a time"
            )
        judged.add(shown, times.wrong, times.empty)
        return times.nanoseconds

    def _find_absent(
        self,
        fields: Mapping[str, _Field],
        times: Mapping[str, Int64s | None],
        judged: _Judged,
    ) -> None:
        """Find the rows that lack a field which a tick needs."""
        judged_already = judged.wrong.keys() | judged.empty
        trades: Any = True
        if "op" in fields:
            trades = _is_any(fields["op"].text, ("", "trade"))
        for field in fields.values():
            needed: Any = field.name in self._source.key
            if field.name in self._plan.required:
                needed = trades  # a reset has no values
            if needed is False:
                continue
            absent = np.flatnonzero(_is_any(field.tokens.tokens, ("",)) & needed).tolist()
            judged.absent(field.column, field.name, set(absent) - judged_already)
        for name, found in times.items():
            if found is not None:
                absent = np.flatnonzero(found == UNKNOWN).tolist()
                judged.absent(self._plan.column_of(name), name, set(absent) - judged_already)


class _Judged:
    """What is found of the rows of a block, by their indexes."""

    def __init__(self, skip_empty: bool) -> None:
        self._skip_empty = skip_empty
        self.wrong: dict[int, tuple[str, str]] = {}
        """Rows that are no ticks: a column, and what is wrong there."""
        self.empty: set[int] = set()
        """Rows that are passed over because they hold no value."""

    def add(self, column: str, wrong: Mapping[int, str], empty: Mapping[int, str]) -> None:
        """Note cells that are wrong, and cells that hold a format's sign for no value."""
        for index, text in wrong.items():
            self.wrong.setdefault(index, (column, text))
        for index, text in empty.items():
            self._note_empty(index, column, text)

    def absent(self, column: str, field: str, indexes: Iterable[int]) -> None:
        """Note rows whose cell of a needed field is empty."""
        for index in indexes:
            text = f"is empty, and a tick needs its {field}; --skip-empty passes over such rows"
            self._note_empty(index, column, text)

    def good(self, rows: int) -> Any:
        """A mask of the rows that nothing was found of."""
        good = np.ones(rows, np.bool_)
        good[[*self.wrong, *self.empty]] = False
        return good

    def _note_empty(self, index: int, column: str, text: str) -> None:
        if self._skip_empty:
            self.empty.add(index)
            self.wrong.pop(index, None)
        elif index not in self.empty:
            self.wrong.setdefault(index, (column, text))


def _is_any(text: Any, values: Sequence[str]) -> Any:
    """A mask of the cells that are one of some values."""
    return mask(pc.is_in(text, strings(values)))


def _time_tokens(times: Int64s, source: Source) -> Any:
    """Times as JSON: integers of the source's unit, or where it is too coarse RFC 3339."""
    factor = NANOSECONDS[source.ts_unit]
    counts = times // factor
    fine = counts * factor != times
    tokens = int64s(counts).cast(pa.string())
    if not fine.any():
        return tokens
    moments = int64s(times).cast(pa.timestamp("ns")).cast(pa.string())
    text = pc.binary_join_element_wise(
        *(scalar('"'), pc.replace_substring(moments, " ", "T"), scalar('Z"')), scalar("")
    )
    return pc.if_else(booleans(fine), text, tokens)
