"""Columns of cells to columns of JSON tokens, many at a time.

A cell is text; an empty one is a field that the tick does not have. A number keeps the digits that
the file has, so the topic holds the number that the file holds; a float of a Parquet file is
written with the fewest digits that give it back. What these functions do not take is explained by
`produce.cells`, one cell at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.produce import arrow_arrays, cells
from pipelines.produce.arrow_arrays import mask
from pipelines.produce.arrow_arrays import text as scalar
from pipelines.produce.errors import Mistaken

ABSENT = pa.nulls(1, pa.float64())[0]
encode = msgspec.json.Encoder().encode

JSON_NUMBER = r"^(-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?)?$"
"""What JSON takes as a number, or nothing at all."""

INTEGER = r"^(-?(0|[1-9][0-9]{0,17}))?$"
"""An integer of 64 bits whatever its digits, or nothing at all."""

FORMS = (
    (r"^\+([0-9.])", r"\1"),
    (r"^(-?)0+([0-9])", r"\1\2"),
    (r"^(-?)\.([0-9])", r"\10.\2"),
    (r"^(-?[0-9]+)\.([eE].*)?$", r"\1\2"),
)
"""Forms of numbers that JSON does not have, and what they are in JSON."""

NO_VALUE = str(2**63 - 1)
"""What databento writes where there is no price."""

WORDS_FOR_NO_VALUE = ("NaN", "nan", "NA", "N/A", "null", "NULL", "None", ".")
"""What other programs write where there is no number; the dot is FRED's and SAS'."""

NO_TIME = str(2**64 - 1)
"""What databento writes where there is no time."""

FIXED_POINT_BYTES = (8, 16)
"""The sizes of Nautilus' prices and quantities in Parquet."""


class Tokens(NamedTuple):
    """JSON tokens, "" for an absent cell; by index, what is wrong with those that have none.

    `suffix` belongs to every token that is not "".
    """

    tokens: Any
    wrong: dict[int, str]
    empty: dict[int, str] = {}  # noqa: RUF012
    """By index, cells that hold what a format uses for no value."""
    suffix: bytes = b""


def texts(column: Any, field: str) -> Any:
    """A column as text, "" where a cell is empty, null or NaN. Raises `Mistaken`."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width in FIXED_POINT_BYTES:
        raise Mistaken(
            f"{field} is in a column of {8 * kind.byte_width}-bit fixed-point numbers, as "
            "Nautilus writes prices and quantities; their precision is in its catalog: export the "
            "column as decimals or doubles"
        )
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), ABSENT, column).cast(pa.string())
        column = pc.if_else(pc.equal(column, scalar("-0")), scalar("-0.0"), column)
    elif pa.types.is_nested(kind):
        raise Mistaken(f"{field} is in a column of {kind}, which holds no single value")
    elif pa.types.is_date(kind):
        column = column.cast(pa.date32())
    try:
        column = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise Mistaken(f"{field} cannot be read from a column of {kind}: {error}") from None
    return column.fill_null(scalar("")) if column.null_count else column


def numbers(text: Any, scale: Decimal | None = None) -> Tokens:
    """Numbers, times `scale`: the product is exact, and the reader of the message rounds it once.

    A power of ten is written as the exponent of each number.
    """
    wrong: dict[int, str] = {}
    suffix = b""
    empty: dict[int, str] = {}
    signs = mask(pc.is_in(text, arrow_arrays.strings((NO_VALUE, *WORDS_FOR_NO_VALUE))))
    for index in np.flatnonzero(signs).tolist():
        cell = text[index].as_py()
        writer = "what databento writes for no value" if cell == NO_VALUE else "no number"
        empty[index] = f"{cell} is {writer}; --skip-empty passes over such rows"
    text = _without(text, empty)
    if not _all_match(text, JSON_NUMBER):
        text = pc.utf8_trim_whitespace(text)
        for form, instead in FORMS:
            text = pc.replace_substring_regex(text, form, instead)
        for index in np.flatnonzero(~mask(pc.match_substring_regex(text, JSON_NUMBER))).tolist():
            wrong[index] = _problem(cells.number, text[index].as_py())
        text = _without(text, wrong)
    if scale is not None:
        exponents = pc.any(pc.match_substring(text, "e", ignore_case=True)).as_py()
        if scale.as_tuple().digits == (1,) and not exponents:
            suffix = f"e{scale.as_tuple().exponent}".encode()
        else:
            text = _scaled(text, scale, wrong)
    return Tokens(text, wrong, empty, suffix)


def integers(text: Any) -> Tokens:
    """Sequence numbers. A whole float is one: gaps make pandas turn integers into floats."""
    wrong: dict[int, str] = {}
    if not _all_match(text, INTEGER):
        given = text.to_pylist()
        for index in np.flatnonzero(~mask(pc.match_substring_regex(text, INTEGER))).tolist():
            try:
                given[index] = str(cells.integer(given[index]))
            except ValueError as error:
                wrong[index] = f"{given[index][:60]!r} {error}"
                given[index] = ""
        text = arrow_arrays.strings(given)
    return Tokens(text, wrong)


def strings(text: Any, check: Callable[[str], object]) -> Tokens:
    """Texts as JSON strings; `check` raises ValueError for one that may not be."""
    coded = pc.dictionary_encode(text)
    tokens, wrong_values = [], {}
    for value in coded.dictionary.to_pylist():
        try:
            if value:
                check(value)
            tokens.append(encode(value).decode() if value else "")
        except ValueError as error:
            wrong_values[len(tokens)] = f"{value[:60]!r} {error}"
            tokens.append("")
    wrong = {}
    if wrong_values:
        indices = arrow_arrays.integers(coded.indices, np.int32)
        wrong = {
            index: wrong_values[int(indices[index])]
            for index in np.flatnonzero(np.isin(indices, list(wrong_values))).tolist()
        }
    taken = pc.take(arrow_arrays.strings(tokens), coded.indices)
    return Tokens(taken, wrong)


def may_be_key(column: Any) -> bool:
    """Whether a key can be made of a column's cells: not of floats or booleans."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return not (pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _all_match(text: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, pattern), min_count=0).as_py())


def _without(text: Any, indexes: Any) -> Any:
    """A column whose cells at some indexes are empty."""
    if not indexes:
        return text
    gone = np.zeros(len(text), np.bool_)
    gone[list(indexes)] = True
    return pc.if_else(arrow_arrays.booleans(gone), scalar(""), text)


def _scaled(text: Any, scale: Decimal, wrong: dict[int, str]) -> Any:
    """A column of numbers times `scale`, each distinct cell once; `wrong` gets what is too large.

    A product has no more digits than its factors together, so none is rounded.
    """
    coded = pc.dictionary_encode(text)
    digits = len(scale.as_tuple().digits)
    values, refused = [], []
    for value in coded.dictionary.to_pylist():
        exact = Context(prec=digits + len(value) + 1, Emin=MIN_EMIN, Emax=MAX_EMAX)
        try:
            values.append(f"{exact.multiply(Decimal(value), scale):e}".lower() if value else "")
        except ArithmeticError:
            refused.append(len(values))
            values.append("")
    if refused:
        indices = arrow_arrays.integers(coded.indices, np.int32)
        for index in np.flatnonzero(np.isin(indices, refused)).tolist():
            wrong[index] = f"{text[index].as_py()[:60]!r} is out of range of --scale"
    return pc.take(arrow_arrays.strings(values), coded.indices)


def _problem(value: Callable[[Any], object], cell: str) -> str:
    try:
        value(cell)
    except ValueError as error:
        return f"{cell[:60]!r} {error}"
    return f"{cell[:60]!r} is not a number"
