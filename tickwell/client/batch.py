"""The features of many entities, and their conversion: all forms are made of the same columns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from tickwell.client.columns import NO_TIME, Columns, FeatureColumn, Texts
from tickwell.client.errors import ClientError
from tickwell.client.values import EntityFeatures, rfc_3339

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Detail = Literal[
    "status", "event_time", "event_time_ns", "age_seconds", "tier", "version", "variant"
]
STATUS: tuple[Detail, ...] = ("status",)
INTEGERS = "event_time_ns"


class BatchFeatures(Sequence[EntityFeatures]):
    """The features of entities, in the order in which these were named.

    As a sequence it has an `EntityFeatures` for each entity. The conversions have a column for each
    key field, for each feature its values under its name, and beside them what `include` names, as
    `price_sma_5.status`: also `event_time` (a stamp with a time zone, or text in `to_dict`),
    `event_time_ns` (integers, UTC), `age_seconds`, `tier`, `version` and `variant` (that of an
    experiment). What has no value is null, and its status says why.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    @property
    def features(self) -> list[str]:
        """The names of the features."""
        return list(self._columns.features)

    def __len__(self) -> int:
        return self._columns.rows

    @overload
    def __getitem__(self, index: int) -> EntityFeatures: ...
    @overload
    def __getitem__(self, index: slice) -> list[EntityFeatures]: ...
    def __getitem__(self, index: int | slice) -> EntityFeatures | list[EntityFeatures]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # raises IndexError
        keys = {field: keys[number] for field, keys in self._columns.keys.items()}
        values = {name: column.value(number) for name, column in self._columns.features.items()}
        return EntityFeatures(
            {field: key for field, key in keys.items() if key is not None},
            {name: value for name, value in values.items() if value is not None},
        )

    def __iter__(self) -> Iterator[EntityFeatures]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        return f"BatchFeatures({len(self)} entities, features {', '.join(self.features)})"

    def to_dict(self, include: Collection[Detail] = STATUS) -> dict[str, list[Any]]:
        """A list for each column, None for null."""
        found: dict[str, list[Any]] = {field: list(keys) for field, keys in self._keys().items()}
        for name, column in self._columns.features.items():
            found[name] = _numbers(column.values)
            for detail in _checked(include):
                found[f"{name}.{detail}"] = _listed(column, detail)
        return found

    def to_numpy(self, detail: Literal["value"] | Detail = "value") -> np.ndarray[Any, Any]:
        """One thing of all features as a matrix of entities × features, in the order of `features`.

        Values and ages are float64 with NaN for null, `event_time` datetime64[ns] in UTC with NaT,
        `event_time_ns` int64 with the smallest integer, and texts objects with None.
        """
        columns = self._columns.features.values()
        found = [_array(column, detail) for column in columns]
        return np.stack(found, axis=1) if found else np.empty((len(self), 0))

    def to_arrow(self, include: Collection[Detail] = STATUS) -> pa.Table:
        """A table of pyarrow; the metadata of a feature's field names its versions."""
        pa = imported("pyarrow", "pyarrow")
        fields, arrays = [], []
        for field, keys in self._keys().items():
            fields.append(pa.field(field, pa.string()))
            arrays.append(pa.array(keys, pa.string()))
        for name, column in self._columns.features.items():
            versions = ", ".join(column.versions.names)
            fields.append(pa.field(name, pa.float64(), metadata={"version": versions}))
            arrays.append(pa.array(column.values, mask=np.isnan(column.values)))
            for detail in _checked(include):
                array = _arrow(pa, column, detail)
                fields.append(pa.field(f"{name}.{detail}", array.type))
                arrays.append(array)
        return pa.table(arrays, schema=pa.schema(fields))

    def to_pandas(self, include: Collection[Detail] = STATUS) -> pd.DataFrame:
        """A DataFrame: NaN for null, texts as categories, `event_time_ns` as nullable integers."""
        pandas = imported("pandas", "pandas")
        kinds = {imported("pyarrow", "pyarrow").int64(): pandas.Int64Dtype()}
        frame: pd.DataFrame = self.to_arrow(include).to_pandas(types_mapper=kinds.get)
        return frame

    def to_polars(self, include: Collection[Detail] = STATUS) -> pl.DataFrame:
        """A DataFrame of polars, null for null."""
        polars = imported("polars", "polars")
        frame: pl.DataFrame = polars.from_arrow(self.to_arrow(include))
        return frame

    def _keys(self) -> dict[str, list[str | None]]:
        """The key fields. Raises `ClientError` where one has the name of a column of a feature."""
        for field in self._columns.keys:
            if field.partition(".")[0] in self._columns.features:
                raise ClientError(f"{field} is a key field and a feature: ask for one at a time")
        return self._columns.keys


def _checked(include: Collection[Detail]) -> Collection[Detail]:
    if isinstance(include, str):
        raise TypeError(f"include={include!r}: name a tuple or list of details, as ({include!r},)")
    return include


def _texts(column: FeatureColumn, detail: str) -> Texts:
    found = {
        "status": column.statuses,
        "tier": column.tiers,
        "version": column.versions,
        "variant": column.variants,
    }
    try:
        return found[detail]
    except KeyError:
        known = "status, event_time, event_time_ns, age_seconds, tier, version and variant"
        raise ValueError(f"{detail!r} is no detail of a value: there are {known}") from None


def _numbers(column: np.ndarray[Any, Any]) -> list[float | None]:
    """The numbers, None for NaN."""
    return [None if number != number else number for number in column.tolist()]


def _listed(column: FeatureColumn, detail: Detail) -> list[Any]:
    if detail == "age_seconds":
        return _numbers(column.ages)
    if detail in ("event_time", INTEGERS):
        write = rfc_3339 if detail == "event_time" else int
        return [None if time == NO_TIME else write(time) for time in column.event_times.tolist()]
    return _texts(column, detail).texts()


def _array(column: FeatureColumn, detail: str) -> np.ndarray[Any, Any]:
    if detail == "value":
        return column.values
    if detail == "age_seconds":
        return column.ages
    if detail in ("event_time", INTEGERS):
        times = column.event_times
        return times.view("datetime64[ns]") if detail == "event_time" else times
    return np.array(_texts(column, detail).texts(), object)


def _arrow(pa: Any, column: FeatureColumn, detail: Detail) -> Any:
    if detail == "age_seconds":
        return pa.array(column.ages, mask=np.isnan(column.ages))
    if detail in ("event_time", INTEGERS):
        unknown = column.event_times == NO_TIME
        times = pa.array(np.where(unknown, 0, column.event_times), mask=unknown)
        return times.cast(pa.timestamp("ns", "UTC")) if detail == "event_time" else times
    texts = _texts(column, detail)
    codes = pa.array(texts.codes, mask=texts.codes < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(texts.names, pa.string()))


def imported(module: str, extra: str) -> Any:
    """A library that not every user of the client has. Raises `ClientError` where it is missing."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise ClientError(
            f"{module} is not installed, and this conversion needs it: pip install "
            f"'tickwell[{extra}]'"
        ) from None
