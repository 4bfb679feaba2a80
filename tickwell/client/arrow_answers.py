"""Answers in Arrow (`serving.api.arrow` says what is in them), read into columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickwell.client.columns import NO_TIME, NONE, Columns, FeatureColumn, Texts
from tickwell.client.values import nanoseconds


def columns(body: bytes, names: Sequence[str]) -> Columns:
    """The columns of an answer. Raises `msgspec.ValidationError` for what is none."""
    try:
        table = pa.ipc.open_stream(body).read_all().combine_chunks()
        answered_at = nanoseconds(table.schema.metadata[b"answered_at"].decode())
        first = table.schema.names.index(names[0])  # before it stand the key fields
        return Columns(
            keys={field: table[field].to_pylist() for field in table.schema.names[:first]},
            features={name: _feature(table, name, answered_at) for name in names},
            rows=table.num_rows,
        )
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise msgspec.ValidationError(f"it is no answer in Arrow: {error}") from None


def _feature(table: Any, name: str, answered_at: int) -> FeatureColumn:
    metadata = table.schema.field(name).metadata
    version, times = metadata[b"version"].decode(), metadata[b"event_time"].decode()
    statuses = _texts(table[f"{name}.status"])
    event_times = pc.fill_null(table[f"{times}_ns"], NO_TIME).to_numpy()
    known = event_times != NO_TIME
    ages = np.where(known, (answered_at - np.where(known, event_times, 0)) / 1e9, np.nan)
    tier = f"{times.removesuffix('.event_time')}.tier"
    has_tier = tier in table.schema.names  # a server before tiers has none
    unknown = np.full(table.num_rows, NONE, np.int32)
    return FeatureColumn(
        values=pc.fill_null(table[name], np.nan).to_numpy(),
        statuses=statuses,
        versions=Texts(np.where(statuses.codes == NONE, NONE, 0).astype(np.int32), (version,)),
        event_times=event_times,
        ages=ages,
        tiers=_texts(table[tier]) if has_tier else Texts(unknown, ()),
    )


def _texts(column: Any) -> Texts:
    """A dictionary's column."""
    (chunk,) = column.chunks or [column.combine_chunks()]
    codes = pc.fill_null(chunk.indices.cast(pa.int32()), NONE).to_numpy()
    return Texts(codes, tuple(chunk.dictionary.to_pylist()))
