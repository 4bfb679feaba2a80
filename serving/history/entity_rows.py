"""The rows that a training set is asked for: entities at moments, checked before anything is read.

They come as a table of Arrow, which pandas, polars and DuckDB give without a copy. A moment has to
say in which time zone it is: naive times are read as UTC by some tools and as local time by others,
and a join that is hours off looks like any other.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from registry.formats.entity_name import SEPARATOR
from serving.errors import InvalidRequest

Int64s = NDArray[np.int64]

NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""In a unit of Arrow's stamps."""

TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)

MOST_KEY_BYTES = 1_020
"""Of a key: 255 characters of four bytes."""

FIRST_MOMENT, LAST_MOMENT = -(2**63) + 1, 2**63 - 2
"""Nanoseconds UTC: the years 1677 to 2262. The numbers beside them stand for no time."""


class EntityRows(NamedTuple):
    """n entities, each named by key fields, at n moments."""

    keys: Mapping[str, Any]
    """By the name of a key field, its texts as an array of Arrow, (n,)."""
    moments: Int64s
    """(n,) Nanoseconds UTC."""

    def __len__(self) -> int:
        return len(self.moments)

    def entities(self, fields: Sequence[str]) -> tuple[list[str], NDArray[np.int32]]:
        """The entities that these key fields name, each once, and which of them each row has."""
        columns = [self.keys[field] for field in fields]
        names = columns[0]
        if len(columns) > 1:
            names = pc.binary_join_element_wise(*columns, SEPARATOR)
        encoded = names.dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def entity_rows(
    table: Any,
    fields: Collection[str],
    time_column: str,
    timezone: str | None = None,
    first: int = 0,
) -> EntityRows:
    """The rows of a table, of which `fields` are key fields.

    Naive stamps are read as local times of `timezone`, an IANA name as "UTC", where one is given.
    Raises `InvalidRequest`, which names the column, the row where there is one, and the cure; rows
    are counted from `first`.
    """
    keys = {field: _key(_column(table, field), field, first) for field in fields}
    moments = stamps(table, time_column, timezone, first)
    late = moments > time.time_ns()
    if late.any():
        row = int(late.argmax())
        raise InvalidRequest(
            f"{time_column} in row {first + row} lies in the future: nobody knows what will be "
            "served then"
        )
    return EntityRows(keys, moments)


def stamps(table: Any, name: str, timezone: str | None = None, first: int = 0) -> Int64s:
    """The moments in a column, nanoseconds UTC. Raises `InvalidRequest`, as `entity_rows`."""
    return _moments(_column(table, name), name, timezone, first)


def _column(table: Any, name: str) -> Any:
    found = [index for index, own in enumerate(table.schema.names) if own == name]
    if not found:
        columns = ", ".join(table.schema.names) or "none"
        raise InvalidRequest(f"the entity rows have no column {name!r}; they have {columns}")
    if len(found) > 1:
        raise InvalidRequest(f"the entity rows have {len(found)} columns {name!r}: keep one")
    column = table.column(found[0])
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _key(column: Any, name: str, first: int) -> Any:
    if pa.types.is_dictionary(column.type):
        _check_lengths(column.dictionary, name)  # each may stand in all rows
        column = column.dictionary_decode()
    if pa.types.is_null(column.type) and len(column):
        raise InvalidRequest(f"{name} is null in row {first}: an entity needs all its key fields")
    if not any(is_text(column.type) for is_text in TEXTS):
        if len(column):
            raise InvalidRequest(
                f"{name} is {column.type}, not text: entities are named by text, so make it that, "
                f"as with astype(str)"
            )
        column = pa.array([], pa.string())
    if column.null_count:
        row = first + pc.index(column.is_null(), True).as_py()
        raise InvalidRequest(f"{name} is null in row {row}: an entity needs all its key fields")
    _check_lengths(column, name)
    texts = column.cast(pa.string())
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InvalidRequest(f"{name} is no text: {error}") from None
    odd = pc.match_substring_regex(texts, "^$|[\\x00-\\x1f]")
    if pc.any(odd).as_py():
        row = pc.index(odd, True).as_py()
        raise InvalidRequest(
            f"{name} in row {first + row} is {texts[row].as_py()!r}: a key is a text without "
            "control characters"
        )
    return texts


def _check_lengths(column: Any, name: str) -> None:
    """Raises `InvalidRequest` for a text that is too long: it may be that of many rows at once."""
    if not any(is_text(column.type) for is_text in TEXTS):
        return
    if pa.types.is_string_view(column.type):  # Arrow has no function for them
        views = np.frombuffer(column.buffers()[1] or b"", np.int32).reshape(-1, 4)
        sizes = views[column.offset : column.offset + len(column), 0]
        most = int(sizes.max(initial=0, where=column.is_valid().to_numpy(zero_copy_only=False)))
    else:
        most = pc.max(pc.binary_length(column)).as_py() or 0
    if most > MOST_KEY_BYTES:
        raise InvalidRequest(
            f"{name} has a text of {most:,} bytes: a key has at most {MOST_KEY_BYTES:,}"
        )


def _moments(column: Any, name: str, timezone: str | None, first: int) -> Int64s:
    if any(is_text(column.type) for is_text in TEXTS):
        column = _read(column, name)
    if not pa.types.is_timestamp(column.type):
        raise InvalidRequest(
            f"{name} is {column.type}, no stamp: give stamps with a time zone, as "
            f"pandas.to_datetime({name}, utc=True, unit=...) makes them"
        )
    if column.null_count:
        row = first + pc.index(column.is_null(), True).as_py()
        raise InvalidRequest(f"{name} is null in row {row}: each row needs its moment")
    if column.type.tz is None:
        if timezone is None:
            raise InvalidRequest(
                f"{name} has no time zone: say in which one it is, timezone='UTC', or make it "
                "known to the column, as with dt.tz_localize('UTC')"
            )
        try:
            column = pc.assume_timezone(column, timezone)
        except pa.ArrowInvalid as error:
            raise InvalidRequest(f"{name} in the time zone {timezone!r}: {error}") from None
    numbers = column.cast(pa.int64()).to_numpy()
    factor = NANOSECONDS[column.type.unit]
    beyond = (numbers < -(-FIRST_MOMENT // factor)) | (numbers > LAST_MOMENT // factor)
    if beyond.any():
        row = first + int(beyond.argmax())
        raise InvalidRequest(
            f"{name} in row {row} is outside the years 1677 to 2262, which nanoseconds reach"
        )
    moments: Int64s = numbers * factor
    return moments


def _read(column: Any, name: str) -> Any:
    """Stamps of texts. Arrow reads RFC 3339 with up to nine digits, and asks for a zone."""
    try:
        return column.cast(pa.timestamp("ns", "UTC"))
    except pa.ArrowInvalid as error:
        raise InvalidRequest(
            f"{name}: {error}. Write moments as 2026-11-24T14:30:00.000000000Z"
        ) from None
