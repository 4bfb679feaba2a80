"""The entities of decoded ticks, by name."""

from __future__ import annotations

from pipelines.runtime.array_types import Bytes, Int64s
from pipelines.ticks.columns import Ticks
from registry.formats.entity_name import entity_id


def name_of(data: Bytes, keys: Int64s) -> str:
    """The name of the entity whose key fields are at `keys` (key fields, 2) in `data`."""
    return entity_id([data[start:end].tobytes().decode() for start, end in keys.tolist()])


def entities_of(ticks: Ticks) -> list[str]:
    """The distinct entities, in order of appearance."""
    return list(dict.fromkeys(name_of(ticks.data, keys) for keys in ticks.keys))
