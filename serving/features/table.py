"""Answers about many entities as a table: for forms that have columns and no object an entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.formats.status import RANK
from serving.features.columns import NO_TIME, AnswerColumns
from serving.features.prepared import PreparedQuestion
from serving.features.reader import Evaluated


class FeatureColumn(NamedTuple):
    """A requested feature of n entities."""

    version: str
    times: str
    """Which of the columns of event times is its own."""
    values: NDArray[np.float64]
    """(n,) NaN where there is none."""
    ranks: NDArray[np.uint8]
    """(n,) The rank of each status (`registry.formats.status.RANK`)."""


class AnswerTable(NamedTuple):
    """The requested features of n entities, by name.

    Features of one source share a column of event times, int64 nanoseconds UTC (n,). It has the
    name of the first of them that was requested; `NO_TIME` is where there is none.
    """

    now_ns: int
    features: Mapping[str, FeatureColumn]
    times: Mapping[str, NDArray[np.int64]]


def prepared_table(question: PreparedQuestion, found: AnswerColumns) -> AnswerTable:
    """The table of a prepared question."""
    features: dict[str, FeatureColumn] = {}
    times: dict[str, NDArray[np.int64]] = {}
    first: dict[int, str] = {}
    for name, (value, time) in question.slots.items():
        if found.absent is not None and found.absent[:, value].any():
            label = name
            times[name] = np.where(found.absent[:, value], NO_TIME, found.times[:, time])
        else:
            label = first.setdefault(time, name)
            times[label] = found.times[:, time]
        version = question.versions[name].version
        values, ranks = found.values[:, value], found.ranks[:, value]
        features[name] = FeatureColumn(version, label, values, ranks)
    return AnswerTable(found.now_ns, features, times)


def evaluated_table(evaluated: Evaluated, requested: Sequence[str]) -> AnswerTable:
    """The table of what the reader has evaluated."""
    features: dict[str, FeatureColumn] = {}
    times: dict[str, NDArray[np.int64]] = {}
    for name in dict.fromkeys(requested):
        identities = [answer.values[name] for answer in evaluated.answers]
        parts = [evaluated.parts[identity] for identity in identities]
        column = [NO_TIME if part.event_time is None else part.event_time for part in parts]
        times[name] = np.array(column, np.int64)
        features[name] = FeatureColumn(
            evaluated.recipes[identities[0]].feature.version,
            name,
            np.array([part.value for part in parts], np.float64),
            np.array([RANK[part.status] for part in parts], np.uint8),
        )
    return AnswerTable(evaluated.now_ns, features, times)
