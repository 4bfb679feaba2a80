"""Frames of entity rows, of whatever library, and the columns that are put beside theirs.

What comes back is of the caller's kind: the rows in their order, with their index and their
columns as they were, and the features behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickwell.client.batch import imported
from tickwell.client.errors import ClientError


class EntityFrame(NamedTuple):
    """Entity rows: `columns` has those columns that were asked for as a table of Arrow."""

    rows: int
    names: list[str]
    columns: Callable[[Sequence[str]], Any]
    beside: Callable[[Any], Any]
    """The frame, with the columns of a table of Arrow beside its own."""
    only: Callable[[NDArray[np.bool_]], Any]
    """The rows of the frame that are flagged."""


def entity_frame(frame: Any) -> EntityFrame:
    """The entity rows of a frame of pandas, polars, DuckDB or Arrow.

    Raises TypeError for what is none, and `ClientError` where a library is missing.
    """
    library = type(frame).__module__.partition(".")[0]
    name = type(frame).__name__
    if library == "pandas" and name == "DataFrame":
        return _of_pandas(frame)
    if library == "polars" and name == "DataFrame":
        return _of_polars(frame)
    if library in ("duckdb", "_duckdb") and name == "DuckDBPyRelation":
        duckdb = imported("duckdb", "duckdb")
        return _of_arrow(frame, lambda table: duckdb.from_arrow(table))
    if hasattr(frame, "__arrow_c_stream__"):
        return _of_arrow(frame, lambda table: table)
    raise TypeError(
        f"entity_df is a {library}.{name}: give a DataFrame of pandas or polars, a relation of "
        "DuckDB, or a table of Arrow (a LazyFrame is collected first)"
    )


def check_free(names: Collection[str], added: Collection[str]) -> None:
    """Raises ValueError where a frame has a column of a name that is added."""
    twice = [name for name in added if name in names]
    if twice:
        raise ValueError(f"entity_df has a column {twice[0]} already: rename it, or leave it out")


def _of_arrow(frame: Any, back: Callable[[Any], Any]) -> EntityFrame:
    pa = imported("pyarrow", "pyarrow")
    table = pa.table(frame)  # once: the order of a relation's rows may be another one each time

    def beside(added: Any) -> Any:
        fields = [*table.schema, *added.schema]
        schema = pa.schema(fields, metadata=table.schema.metadata)
        return back(pa.table([*table.columns, *added.columns], schema=schema))

    def only(flags: NDArray[np.bool_]) -> Any:
        return back(table.filter(pa.array(flags)))

    return EntityFrame(table.num_rows, table.schema.names, table.select, beside, only)


def _of_polars(frame: Any) -> EntityFrame:
    polars = imported("polars", "polars")

    def columns(names: Sequence[str]) -> Any:
        return frame.select(names).to_arrow()

    def beside(added: Any) -> Any:
        return frame.with_columns(polars.from_arrow(added).get_columns())

    def only(flags: NDArray[np.bool_]) -> Any:
        return frame.filter(polars.Series(flags))

    return EntityFrame(frame.height, frame.columns, columns, beside, only)


def _of_pandas(frame: Any) -> EntityFrame:
    pa, pandas = imported("pyarrow", "pyarrow"), imported("pandas", "pandas")

    def columns(names: Sequence[str]) -> Any:
        taken = frame[list(names)]
        try:
            table = pa.Table.from_pandas(taken, preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ClientError(f"entity_df: {error}") from None
        for name, type_ in zip(table.schema.names, table.schema.types, strict=True):
            if pa.types.is_timestamp(type_) and taken[name].dtype == object:
                # Arrow takes those without a zone for UTC, and cuts them to microseconds
                raise ClientError(
                    f"entity_df: {name} has objects of Python, which may be of several kinds: make "
                    f"stamps of them, as pandas.to_datetime({name}, utc=True) does"
                )
        return table

    def beside(added: Any) -> Any:
        made = {}
        for name in added.schema.names:
            column = added.column(name).combine_chunks()
            if pa.types.is_floating(column.type):
                values: Any = column.to_numpy(zero_copy_only=False)  # NaN for null
            elif pa.types.is_dictionary(column.type):
                codes, texts = column.indices.to_numpy(), column.dictionary.to_pylist()
                values = pandas.Categorical.from_codes(codes, texts)
            else:
                known = column.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
                values = pandas.DatetimeIndex(known.view("datetime64[ns]"), tz="UTC")
            made[name] = pandas.Series(values, index=frame.index, name=name)
        return pandas.concat([frame, pandas.DataFrame(made, index=frame.index)], axis=1)

    def only(flags: NDArray[np.bool_]) -> Any:
        return frame[flags]

    return EntityFrame(len(frame), [str(name) for name in frame.columns], columns, beside, only)
