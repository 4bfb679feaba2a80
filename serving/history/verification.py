"""Proves a training set again: its rows are joined anew, and every bit is compared.

The file has the entity rows, and says how it was made. What it was made of does not change: rows in
Postgres are only added. So a difference is a file that was changed, a value that was computed
otherwise, or history that was filled in afterwards; where a value was missing that is there now,
that is told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa

from registry.formats.status import Status
from serving.errors import InvalidRequest
from serving.history.entity_rows import TEXTS
from serving.history.files import made_of, opened, pieces
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import Stores, snapshot
from serving.history.stopped import Stopped
from serving.history.training_set import EVENT_TIME, STATUS, VERSION, Form
from serving.history.wanted import SetJoin, wanted_of


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
    stores: Stores, file: Path, progress: Callable[[int, int], None], stop: Event
) -> Verified:
    """Join the rows of a training set anew, with the versions it was made of, and compare.

    `progress` takes the number of rows that are done, and of all. Raises `InvalidRequest` for a
    file that is no training set, `UnknownFeature`, SQLAlchemy's `DBAPIError`, OSError, `Stopped`.
    """
    postgres, lake = stores
    with opened(file) as source, snapshot(postgres, lake=lake) as seen, ExitStack() as stack:
        made = made_of(source.schema_arrow)
        if made is None:
            raise InvalidRequest(f"{file} is no training set: it does not say how it was made")
        wanted, of_pins = wanted_of(made), PointInTimeJoin.of_pins(seen, made.pins)
        check_columns(source.schema_arrow, of_pins.versions, wanted.form)
        join = SetJoin(seen, wanted, of_pins)
        found = Verified(features={name: Differences() for name in made.pins})
        total = source.metadata.num_rows
        progress(0, total)
        stack.enter_context(join.sweeping(join.asked_in(source), total, progress, stop))
        for table in pieces(source, join.rows_a_piece):
            if stop.is_set():
                raise Stopped
            anew = join.added(table)
            for name, differences in found.features.items():
                _compare(name, table, anew, differences, found.rows)
            found.rows += table.num_rows
            progress(join.done, total)
    return found


def check_columns(schema: Any, features: Collection[str], form: Form) -> None:
    """Raises `InvalidRequest` unless a file has the columns of a training set, as they were."""
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
        if form.versions:
            of_version = schema.field(f"{name}{VERSION}").type
            if pa.types.is_dictionary(of_version):
                of_version = of_version.value_type
            if not any(is_text(of_version) for is_text in TEXTS):
                raise InvalidRequest(
                    f"the column {name}{VERSION} is {of_version}, and was made as text"
                )
        if form.event_times:
            of_time = schema.field(f"{name}{EVENT_TIME}").type
            if of_time != pa.timestamp("ns", "UTC"):
                raise InvalidRequest(
                    f"the column {name}{EVENT_TIME} is {of_time}, and was made in nanoseconds UTC"
                )


def _compare(name: str, table: Any, anew: Any, differences: Differences, first: int) -> None:
    """Count the rows of two tables in which a feature differs; the first row has this number."""
    differs = _bits(table, name) != _bits(anew, name)
    if f"{name}{VERSION}" in anew.schema.names:
        differs |= _texts(table, name, VERSION) != _texts(anew, name, VERSION)
    before, now = _texts(table, name, STATUS), _texts(anew, name, STATUS)
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


def _texts(table: Any, name: str, ending: str) -> Any:
    return np.array(table.column(f"{name}{ending}").to_pylist(), object)


def _times(table: Any, name: str) -> Any:
    times = table.column(f"{name}{EVENT_TIME}").cast("int64")
    return times.fill_null(np.iinfo(np.int64).min).to_numpy()
