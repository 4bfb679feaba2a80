"""Answers about many entities as JSON by columns, about a fifth of the bytes of objects.

    {"answered_at": "…Z",
     "entities": [{"symbol": "AAPL"}, …],
     "event_time": {"current_price": ["…Z", null, …], …},
     "tier": {"current_price": "warm", …},
     "features": {"price_sma_5": {"version": "1.0.0", "event_time": "current_price",
                                  "status": "ok", "value": [189.1, …]}, …}}

A feature says which of the lists of event times is its own: features of one source share a list,
which has the name of the first of them. (What is missing because its row is from before the feature
was recorded has the event time of the others.) Beside each list stands the tier of what has these
event times. A tier or a status is one text where all entities have the same, else a list. The age
of a value is `answered_at` less its event time. Of entities of several kinds each is in all lists:
where a feature is not of its kind, status, value, event time and tier are null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from registry.formats.status import Status
from serving.api.memo import TimeTexts
from serving.features.columns import are_alike
from serving.features.table import NOT_OF_KIND, AnswerTable, FeatureColumn
from serving.features.values import TIER_NAMES

STATUSES: list[str | None] = [status.value for status in Status]
STATUSES += [None] * (NOT_OF_KIND + 1 - len(STATUSES))
"""By their ranks."""


class CompactFeature(Struct):
    """A feature of all entities; `event_time` is the name of the list that has its event times.

    A status that all entities have is one text. Where an experiment has decided about the versions
    each entity has its own, and a variant. Null stands for a feature that is not of the
    entity's kind, and for a value where there is none.
    """

    version: str | list[str | None]
    event_time: str
    status: Status | list[Status | None]
    value: list[float | None]
    deprecated: str | UnsetType = UNSET
    experiment: str | UnsetType = UNSET
    variant: list[str | None] | UnsetType = UNSET


class CompactAnswer(Struct):
    """Features of many entities by columns, each in the order of `entities`."""

    answered_at: str
    entities: list[dict[str, str]]
    event_time: dict[str, list[str | None]]
    tier: dict[str, str | list[str | None] | None]
    features: dict[str, CompactFeature]


def compact(entities: Sequence[bytes], table: AnswerTable, times: TimeTexts) -> bytes:
    """The answer; `entities` are their texts."""
    features = {}
    for name, feature in table.features.items():
        features[name] = {
            **_version(feature),
            "event_time": feature.times,
            "status": Status.OK if table.are_ok else _texts(feature.ranks, STATUSES),
            "value": feature.values.tolist(),
        }
    return msgspec.json.encode(
        {
            "answered_at": msgspec.Raw(times(table.now_ns)),
            "entities": msgspec.Raw(b"[%b]" % b",".join(entities)),
            "event_time": _event_times(table, times),
            "tier": {name: _texts(column, TIER_NAMES) for name, column in table.tiers.items()},
            "features": features,
        }
    )


def _version(feature: FeatureColumn) -> dict[str, Any]:
    """What a feature says of its version, or of its versions."""
    if feature.tested is not None:
        experiment, versions, variants = feature.tested
        return {"version": versions, "experiment": experiment, "variant": variants}
    if feature.deprecated is not None:
        return {"version": feature.version, "deprecated": feature.deprecated}
    return {"version": feature.version}


def _event_times(table: AnswerTable, times: TimeTexts) -> dict[str, msgspec.Raw]:
    """The lists of event times; a derived feature often has those of its parts."""
    columns: list[list[int]] = [column.tolist() for column in table.times.values()]
    first = [columns.index(own) for own in columns]
    made = {
        index: msgspec.Raw(b"[%b]" % b",".join(times.each(columns[index]))) for index in set(first)
    }
    return {name: made[index] for name, index in zip(table.times, first, strict=True)}


def _texts(numbers: NDArray[np.uint8], names: Sequence[str | None]) -> Any:
    """The names of all numbers, one where they are the same."""
    if are_alike(numbers):
        return names[int(numbers[0])]
    return [names[number] for number in numbers.tolist()]
