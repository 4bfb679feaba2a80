"""Answers about many entities as a table: for forms that have columns and no object an entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.definitions import FeatureVersion
from registry.formats.status import RANK
from serving.features.columns import NO_TIME, AnswerColumns
from serving.features.prepared import PreparedQuestion
from serving.features.reader import Evaluated


class FeatureColumn(NamedTuple):
    """A requested feature of n entities."""

    version: str
    times: str
    """Which of the columns of event times, and of tiers, is its own."""
    values: NDArray[np.float64]
    """(n,) NaN where there is none."""
    ranks: NDArray[np.uint8]
    """(n,) The rank of each status (`registry.formats.status.RANK`)."""


class AnswerTable(NamedTuple):
    """The requested features of n entities, by name.

    Columns of event times are int64 nanoseconds UTC, (n,), with `NO_TIME` where there is none. The
    stored features of one source share one, under the name of the first that was requested: it has
    the event times of their rows. A feature that a row lacks, as one of an older row schema, has
    none of its own; then it is that of the others. So which columns there are depends on the
    question alone.
    """

    now_ns: int
    features: Mapping[str, FeatureColumn]
    times: Mapping[str, NDArray[np.int64]]
    tiers: Mapping[str, NDArray[np.uint8]]
    """The `Tier` of what has these event times."""


def prepared_table(question: PreparedQuestion, found: AnswerColumns) -> AnswerTable:
    """The table of a prepared question."""
    features: dict[str, FeatureColumn] = {}
    times: dict[str, NDArray[np.int64]] = {}
    tiers: dict[str, NDArray[np.uint8]] = {}
    labels = _labels(question.versions)
    for name, (value, time) in question.slots.items():
        label, own = labels[name], found.times[:, time]
        if found.absent is not None:
            own = np.where(found.absent[:, value], NO_TIME, own)
        times[label] = np.minimum(times.get(label, NO_TIME), own)
        tiers[label] = found.tiers[:, time]
        version = question.versions[name].version
        values, ranks = found.values[:, value], found.ranks[:, value]
        features[name] = FeatureColumn(version, label, values, ranks)
    return AnswerTable(found.now_ns, features, times, tiers)


def evaluated_table(evaluated: Evaluated, requested: Sequence[str]) -> AnswerTable:
    """The table of what the reader has evaluated."""
    features: dict[str, FeatureColumn] = {}
    times: dict[str, NDArray[np.int64]] = {}
    tiers: dict[str, NDArray[np.uint8]] = {}
    first = evaluated.answers[0].values
    versions = {name: evaluated.recipes[first[name]].feature for name in requested}
    labels = _labels(versions)
    for name, feature in versions.items():
        identities = [answer.values[name] for answer in evaluated.answers]
        parts = [evaluated.parts[identity] for identity in identities]
        column = [NO_TIME if part.event_time is None else part.event_time for part in parts]
        known = times.setdefault(labels[name], np.full(len(parts), NO_TIME, np.int64))
        np.minimum(known, np.array(column, np.int64), out=known)
        tiers[labels[name]] = np.array([evaluated.tiers[one] for one in identities], np.uint8)
        features[name] = FeatureColumn(
            feature.version,
            labels[name],
            np.array([part.value for part in parts], np.float64),
            np.array([RANK[part.status] for part in parts], np.uint8),
        )
    return AnswerTable(evaluated.now_ns, features, times, tiers)


def _labels(versions: Mapping[str, FeatureVersion]) -> dict[str, str]:
    """Of each requested name that of its column of event times."""
    first: dict[str, str] = {}
    return {
        name: name if feature.source is None else first.setdefault(feature.source, name)
        for name, feature in versions.items()
    }
