"""Proves a training set again: its rows are joined anew, and every bit is compared.

The file has the entity rows, and says how it was made. What it was made of does not change: rows in
Postgres are only added. So a difference is a file that was changed, a value that was computed
otherwise, or history that was filled in afterwards; where a value was missing that is there now,
that is told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa

from registry.formats.status import Status
from serving.errors import InvalidRequest
from serving.history.building import Stopped, Wanted
from serving.history.entity_rows import TEXTS
from serving.history.files import Made, made_of, opened, pieces
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import snapshot
from serving.history.training_set import EVENT_TIME, STATUS, Form, Report


@dataclass
class Differences:
    """What differs of a feature: how many rows, the first of them, and those that were filled in.

    `filled` rows were missing, and have another status now: ticks or values that came afterwards.
    """

    rows: int = 0
    filled: int = 0
    first: int | None = None


@dataclass
class Verified:
    """The result: of `rows` rows, what differs of each feature."""

    rows: int = 0
    features: dict[str, Differences] = field(default_factory=dict)

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not any(one.rows for one in self.features.values())


def verify(
    postgres: str, file: Path, progress: Callable[[int, int], None], stop: Event
) -> Verified:
    """Join the rows of a training set anew, with the versions it was made of, and compare.

    `progress` takes the number of rows that are done, and of all. Raises `InvalidRequest` for a
    file that is no training set, `UnknownFeature`, SQLAlchemy's `DBAPIError`, OSError, `Stopped`.
    """
    with opened(file) as source, snapshot(postgres) as seen:
        made = made_of(source.schema_arrow)
        if made is None:
            raise InvalidRequest(f"{file} is no training set: it does not say how it was made")
        form = Form(made.stale, made.event_times)
        join = PointInTimeJoin.of_pins(seen, made.pins)
        check_columns(source.schema_arrow, join.versions, made)
        wanted = Wanted((), made.time_column, made.timezone, made.as_known_at, form)
        found = Verified(features={name: Differences() for name in made.pins})
        progress(0, source.metadata.num_rows)
        for table in pieces(source):
            if stop.is_set():
                raise Stopped
            anew = wanted.joined(join, table, Report(), found.rows)
            for name, differences in found.features.items():
                _compare(name, table, anew, differences, found.rows)
            found.rows += table.num_rows
            progress(found.rows, source.metadata.num_rows)
    return found


def check_columns(schema: Any, features: Collection[str], made: Made) -> None:
    """Raises `InvalidRequest` unless a file has the columns of a training set, as they were."""
    form = Form(made.stale, made.event_times)
    if not features:
        raise InvalidRequest("the training set has no features that could be compared")
    for name in features:
        for column in form.columns(name):
            times = schema.names.count(column)
            if times != 1:
                raise InvalidRequest(
                    f"the training set has {times} columns {column}, and was made with one"
                )
        of_value, of_status = schema.field(name).type, schema.field(f"{name}{STATUS}").type
        if not pa.types.is_float64(of_value):
            raise InvalidRequest(f"the column {name} is {of_value}, and was made as double")
        if pa.types.is_dictionary(of_status):
            of_status = of_status.value_type
        if not any(is_text(of_status) for is_text in TEXTS):
            raise InvalidRequest(f"the column {name}{STATUS} is {of_status}, and was made as text")
        if form.event_times:
            of_time = schema.field(f"{name}{EVENT_TIME}").type
            if of_time != pa.timestamp("ns", "UTC"):
                raise InvalidRequest(
                    f"the column {name}{EVENT_TIME} is {of_time}, and was made in nanoseconds UTC"
                )


def _compare(name: str, table: Any, anew: Any, differences: Differences, first: int) -> None:
    """Count the rows of two tables in which a feature differs; the first row has this number."""
    differs = _bits(table, name) != _bits(anew, name)
    before, now = _texts(table, name), _texts(anew, name)
    differs |= before != now
    if f"{name}{EVENT_TIME}" in anew.schema.names:
        differs |= _times(table, name) != _times(anew, name)
    if differs.any():
        differences.rows += int(differs.sum())
        differences.filled += int((differs & (before == Status.MISSING.value)).sum())
        if differences.first is None:
            differences.first = first + int(differs.argmax())


def _bits(table: Any, name: str) -> Any:
    """The bits of values; all that are null have the same."""
    values = table.column(name).to_numpy()
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def _texts(table: Any, name: str) -> Any:
    return np.array(table.column(f"{name}{STATUS}").to_pylist(), object)


def _times(table: Any, name: str) -> Any:
    times = table.column(f"{name}{EVENT_TIME}").cast("int64")
    return times.fill_null(np.iinfo(np.int64).min).to_numpy()
