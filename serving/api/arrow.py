"""Answers about many entities as a stream of Arrow IPC.

The columns are the key fields of the entities; of each feature its value, null where there is none,
and under `<feature>.status` its status; and the event times, as stamps under
`<feature>.event_time` and as integers, nanoseconds UTC, under `<feature>.event_time_ns`: some
readers have no stamps of nanoseconds. The tier that it is from stands under `<feature>.tier`.
Features of one source share these, under the name of the first of them: the metadata of a value's
field says which one, and its version. The metadata of the schema says when it was answered.

Of entities of several kinds each has the key fields of all, and all features: where one is not its
own, or not of its kind, there is null, and so is the status.

Under each null there is NaN, and a value that is not served stands nowhere: some readers, as
JavaScript's `toArray()`, show what lies under nulls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.formats.status import RANK, Status, has_value
from serving.features.columns import NO_TIME
from serving.features.table import NOT_OF_KIND, AnswerTable, FeatureColumn
from serving.features.times import to_rfc_3339
from serving.features.values import TIER_NAMES
from serving.stores.row_store import Tier

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
STATUSES = [status.value for status in Status]
TIERS = TIER_NAMES[Tier.HOT :]
LAST_WITH_VALUE = max(RANK[status] for status in Status if has_value(status))


def arrow(entities: Sequence[Mapping[str, str]], table: AnswerTable) -> bytes:
    """The answer."""
    import pyarrow as pa  # takes tens of megabytes, which a server that is not asked for it saves

    statuses, tiers = _texts(STATUSES), _texts(TIERS)
    fields: list[pa.Field] = []
    arrays: list[pa.Array] = []

    def add(name: str, array: pa.Array, **metadata: str) -> None:
        fields.append(pa.field(name, array.type, metadata=metadata or None))
        arrays.append(array)

    for name in dict.fromkeys(chain.from_iterable(entities)):
        add(name, _texts([entity.get(name) for entity in entities]))
    for name, feature in table.features.items():
        values = np.where(feature.ranks > LAST_WITH_VALUE, np.nan, feature.values)
        time = f"{feature.times}.event_time"
        column = _numbers(values, np.isnan(values))
        add(name, column, event_time=time, **_said(feature))
        if feature.tested is not None:
            add(f"{name}.version", pa.array(feature.tested.versions, pa.string()))
            add(f"{name}.variant", pa.array(feature.tested.variants, pa.string()))
        of_other = feature.ranks == NOT_OF_KIND
        ranks = np.where(of_other, RANK[Status.MISSING], feature.ranks).astype(np.int8)
        indices = _numbers(ranks, of_other)
        add(f"{name}.status", pa.DictionaryArray.from_arrays(indices, statuses))
    for name, times in table.times.items():
        unknown = times == NO_TIME
        known = np.where(unknown, 0, times)
        add(f"{name}.event_time", _numbers(known, unknown, pa.timestamp("ns", "UTC")))
        add(f"{name}.event_time_ns", _numbers(known, unknown))
        of_tier = table.tiers[name]
        indices = _numbers(of_tier.astype(np.int8) - Tier.HOT, of_tier == Tier.NONE)
        add(f"{name}.tier", pa.DictionaryArray.from_arrays(indices, tiers))
    schema = pa.schema(fields, {"answered_at": to_rfc_3339(table.now_ns)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    written: bytes = sink.getvalue().to_pybytes()
    return written


# Of whatever else arrays are made, pyarrow looks whether it is pandas', and imports pandas where it
# is installed: that takes 60 MB.


def _numbers(numbers: NDArray[Any], nulls: NDArray[np.bool_], kind: Any = None) -> Any:
    """An array of numbers; `kind` is its type, of the same size, where that is not theirs."""
    import pyarrow as pa

    kind = kind or pa.from_numpy_dtype(numbers.dtype)
    data = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(kind, len(numbers), [_known(nulls), data])


def _texts(texts: Sequence[str | None]) -> Any:
    """An array of texts."""
    import pyarrow as pa

    encoded = [b"" if text is None else text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    nulls = np.array([text is None for text in texts])
    buffers = [_known(nulls), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


def _known(nulls: NDArray[np.bool_]) -> Any:
    """The bits that say what is no null; None where there is none."""
    import pyarrow as pa

    return pa.py_buffer(np.packbits(~nulls, bitorder="little")) if nulls.any() else None


def _said(feature: FeatureColumn) -> dict[str, str]:
    """What the metadata of a field say of a feature's version; of several there are columns."""
    if feature.tested is not None:
        return {"experiment": feature.tested.experiment}
    if feature.deprecated is not None:
        return {"version": feature.version, "deprecated": feature.deprecated}
    return {"version": feature.version}
