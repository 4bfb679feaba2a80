"""Answers in Arrow (`serving.api.arrow` says what is in them), read into columns."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tickwell.client.columns import NO_TIME, NONE, Columns, FeatureColumn, Texts
from tickwell.client.values import nanoseconds

EVENT_TIME = b"event_time"
"""What the metadata of a feature's field have, and those of no other one."""


class _Origin(NamedTuple):
    """What the features of one source share."""

    event_times: NDArray[np.int64]
    ages: NDArray[np.float64]
    tiers: Texts


def columns(body: bytes) -> Columns:
    """The columns of an answer. Raises `msgspec.ValidationError` for what is none."""
    try:
        with pa.ipc.open_stream(body) as stream:
            (batch,) = stream
        answered_at = nanoseconds(batch.schema.metadata[b"answered_at"].decode())
        origin = cache(lambda label: _origin(batch, label, answered_at))
        # The name of a set is that of several features, so it is the answer that says which.
        names = [field.name for field in batch.schema if EVENT_TIME in (field.metadata or {})]
        first = batch.schema.get_field_index(names[0])  # before it stand the key fields
        return Columns(
            keys={field: batch[field].to_pylist() for field in batch.schema.names[:first]},
            features={name: _feature(batch, name, origin) for name in names},
            rows=batch.num_rows,
        )
    except (pa.ArrowException, KeyError, IndexError, TypeError, ValueError) as error:
        raise msgspec.ValidationError(f"it is no answer in Arrow: {error}") from None


def _feature(batch: Any, name: str, origin: Any) -> FeatureColumn:
    metadata = batch.schema.field(name).metadata
    statuses = _texts(batch[f"{name}.status"])
    shared: _Origin = origin(metadata[EVENT_TIME].decode().removesuffix(".event_time"))
    none = Texts(np.full(batch.num_rows, NONE, np.int32), ())
    if b"experiment" in metadata:
        versions = Texts.of(batch[f"{name}.version"].to_pylist())
        variants = Texts.of(batch[f"{name}.variant"].to_pylist())
    else:
        codes = np.where(statuses.codes == NONE, NONE, 0).astype(np.int32)
        versions, variants = Texts(codes, (metadata[b"version"].decode(),)), none
    return FeatureColumn(
        values=batch[name].to_numpy(zero_copy_only=False),  # NaN for null
        statuses=statuses,
        versions=versions,
        event_times=shared.event_times,
        ages=shared.ages,
        tiers=shared.tiers,
        variants=variants,
        experiment=_text(metadata.get(b"experiment")),
        deprecated=_text(metadata.get(b"deprecated")),
    )


def _text(said: bytes | None) -> str | None:
    return None if said is None else said.decode()


def _origin(batch: Any, label: str, answered_at: int) -> _Origin:
    event_times = _integers(batch[f"{label}.event_time_ns"], NO_TIME)
    known = event_times != NO_TIME
    ages = np.where(known, (answered_at - np.where(known, event_times, 0)) / 1e9, np.nan)
    if f"{label}.tier" in batch.schema.names:
        return _Origin(event_times, ages, _texts(batch[f"{label}.tier"]))
    unknown = np.full(batch.num_rows, NONE, np.int32)  # of a server that knows no tiers
    return _Origin(event_times, ages, Texts(unknown, ()))


def _texts(column: Any) -> Texts:
    """A column of a dictionary's texts."""
    codes = _integers(column.indices, NONE).astype(np.int32)
    return Texts(codes, tuple(column.dictionary.to_pylist()))


def _integers(column: Any, null: int) -> NDArray[Any]:
    """The integers of a column, `null` where it has none: numpy's own way makes floats of them."""
    filled = pc.fill_null(column, null) if column.null_count else column
    found: NDArray[Any] = filled.to_numpy()
    return found
