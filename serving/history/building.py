"""Training sets from files to files: entity rows of any number, a piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

from serving.history.files import MOST_ROWS, beside, opened, pieces, written
from serving.history.named import Keeper, Keeping, check_name
from serving.history.snapshot import Stores, snapshot
from serving.history.stopped import Stopped
from serving.history.training_set import Report, check_columns
from serving.history.wanted import SetJoin, Wanted


def build(
    stores: Stores,
    files: tuple[Path, Path],
    wanted: Wanted,
    progress: Callable[[int, int], None],
    stop: Event,
    keeping: Keeping | None = None,
) -> Report:
    """Write the rows of the first Parquet file, with features joined to them, to the second one.

    `progress` takes the number of rows that are done, and of all; `keeping` keeps the set by its
    name, before the file is there. Raises `InvalidRequest`, `OpenTrainingSet`, `UnknownFeature`,
    `RegistryError`, SQLAlchemy's `DBAPIError`, OSError, and `Stopped`.
    """
    (postgres, lake), (entities, out) = stores, files
    if keeping is not None:
        check_name(postgres, keeping.name)
    with (
        opened(entities) as source,
        snapshot(postgres, lake=lake) as seen,
        ExitStack() as stack,
    ):
        join = SetJoin(seen, wanted)
        keeper = None if keeping is None else stack.enter_context(Keeper(join))
        present = source.schema_arrow.names
        check_columns(present, list(join.join.versions), wanted.form, wanted.added)
        check_moments(join, source)
        report, total, made = join.report, source.metadata.num_rows, join.made()
        progress(0, total)
        asked = join.asked_in(source)
        stack.enter_context(join.sweeping(asked, total, progress, stop, out.resolve().parent))
        with written(out) as write:
            for table in pieces(source, join.rows_a_piece):
                if stop.is_set():
                    raise Stopped
                write(beside(table, join.added(table), made))
                progress(join.done, total)
            if total == 0:
                table = source.schema_arrow.empty_table()
                write(beside(table, join.added(table), made))
            if keeper is not None and keeping is not None:
                keeper.save(postgres, keeping)
    return report


def check_moments(join: SetJoin, source: Any) -> None:
    """Look at the moments of an opened file before any of its rows is joined.

    Raises `OpenTrainingSet` and `InvalidRequest`.
    """
    column = join.wanted.time_column
    if column not in source.schema_arrow.names:  # says what there is
        join.check([source.schema_arrow.empty_table()])
    join.check(pieces(source, MOST_ROWS, [column]))
