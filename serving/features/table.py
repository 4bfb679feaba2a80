"""Answers about many entities as a table: for forms that have columns and no object an entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from registry.definitions import FeatureVersion
from registry.formats.status import RANK
from serving.features.columns import NO_TIME, AnswerColumns
from serving.features.plan import Identity
from serving.features.prepared import EntityValues, PreparedQuestion
from serving.features.reader import Evaluated
from serving.stores.row_store import Tier

NOT_OF_KIND = 255
"""The rank of a feature of an entity that is of another kind: there is no status."""


class ExperimentColumn(NamedTuple):
    """What an experiment has decided for each of n entities; None where it is of another kind."""

    experiment: str
    versions: list[str | None]
    variants: list[str | None]


class FeatureColumn(NamedTuple):
    """A requested feature of n entities."""

    version: str
    times: str
    """Which of the columns of event times, and of tiers, is its own."""
    values: NDArray[np.float64]
    """(n,) NaN where there is none."""
    ranks: NDArray[np.uint8]
    """(n,) The rank of each status (`registry.formats.status.RANK`), or `NOT_OF_KIND`."""
    deprecated: str | None = None
    """Since when the version is deprecated, RFC 3339; None of one that is not."""
    tested: ExperimentColumn | None = None
    """Where an experiment has decided about versions; `version` is then the active one."""


class AnswerTable(NamedTuple):
    """The requested features of n entities, by name.

    Columns of event times are int64 nanoseconds UTC, (n,), with `NO_TIME` where there is none. The
    stored features of one source share one, under the name of the first that was requested: it has
    the event times of their rows. A feature that a row lacks, as one of an older row schema, has
    none of its own; then it is that of the others. So which columns there are depends on the
    question alone.

    Where a feature is not of an entity's kind it has neither value, status, event time nor tier.
    """

    now_ns: int
    features: Mapping[str, FeatureColumn]
    times: Mapping[str, NDArray[np.int64]]
    tiers: Mapping[str, NDArray[np.uint8]]
    """The `Tier` of what has these event times."""
    are_ok: bool = False
    """Whether all statuses are known to be `ok`."""


class ListedColumn(NamedTuple):
    """A requested feature of n entities, as lists; the event times are those of its table."""

    values: list[float]
    """NaN where there is none."""
    ranks: list[int]
    """The rank of each status (`registry.formats.status.RANK`)."""
    times: list[int]
    """Nanoseconds UTC, `NO_TIME` where there is none."""


def prepared_table(question: PreparedQuestion, found: AnswerColumns) -> AnswerTable:
    """The table of a prepared question."""
    features: dict[str, FeatureColumn] = {}
    times: dict[str, NDArray[np.int64]] = {}
    tiers: dict[str, NDArray[np.uint8]] = {}
    labels = _labels(question.versions)
    for name, (value, time) in question.slots.items():
        label = labels[name]
        if found.absent is not None:
            own = np.where(found.absent[:, value], NO_TIME, found.times[:, time])
            times[label] = np.minimum(times.get(label, NO_TIME), own)
        elif label == name:
            times[label] = found.times[:, time]
        if label == name:
            tiers[label] = found.tiers[:, time]
        version = question.versions[name]
        values, ranks = found.values[:, value], found.ranks[:, value]
        deprecated = question.deprecated.get(version.ref)
        features[name] = FeatureColumn(version.version, label, values, ranks, deprecated)
    return AnswerTable(found.now_ns, features, times, tiers, found.are_ok)


def several_kinds(
    tables: Sequence[tuple[Sequence[int], AnswerTable]], requested: Sequence[str]
) -> AnswerTable:
    """The table of all entities, given those of each kind and which entities they are."""
    n = sum(len(indexes) for indexes, _ in tables)
    of_name = {name: (list(indexes), table) for indexes, table in tables for name in table.features}
    features: dict[str, FeatureColumn] = {}
    times: dict[str, NDArray[np.int64]] = {}
    tiers: dict[str, NDArray[np.uint8]] = {}
    for name in dict.fromkeys(requested):
        indexes, table = of_name[name]
        column = table.features[name]
        label = column.times
        features[name] = column._replace(
            values=_spread(column.values, np.nan, indexes, n),
            ranks=_spread(column.ranks, NOT_OF_KIND, indexes, n),
        )
        if label not in times:
            times[label] = _spread(table.times[label], NO_TIME, indexes, n)
            tiers[label] = _spread(table.tiers[label], Tier.NONE, indexes, n)
    return AnswerTable(tables[0][1].now_ns, features, times, tiers)


Number = TypeVar("Number", bound=np.generic)


def _spread(column: NDArray[Number], nothing: float, indexes: list[int], n: int) -> NDArray[Number]:
    """A column of n entities that has those of some at `indexes`, and else `nothing`."""
    found = np.full(n, nothing, column.dtype)
    found[indexes] = column
    return found


def evaluated_table(evaluated: Evaluated, requested: Sequence[str]) -> AnswerTable:
    """The table of what the reader has evaluated."""
    features: dict[str, FeatureColumn] = {}
    times: dict[str, NDArray[np.int64]] = {}
    tiers: dict[str, NDArray[np.uint8]] = {}
    one: dict[str, Identity] = {}
    for answer in evaluated.answers:
        one |= answer.values
    versions = {
        name: evaluated.names.feature(name)
        if name in evaluated.tested
        else evaluated.recipes[one[name]].feature
        for name in requested
    }
    labels = _labels(versions)
    n = len(evaluated.answers)
    for name, feature in versions.items():
        of_kind = [i for i, answer in enumerate(evaluated.answers) if name in answer.values]
        identities = [evaluated.answers[i].values[name] for i in of_kind]
        parts = [evaluated.parts[identity] for identity in identities]
        column = [NO_TIME if part.event_time is None else part.event_time for part in parts]
        label = labels[name]
        known = times.setdefault(label, np.full(n, NO_TIME, np.int64))
        known[of_kind] = np.minimum(known[of_kind], np.array(column, np.int64))
        own_tiers = np.array([evaluated.tiers[identity] for identity in identities], np.uint8)
        tiers[label] = _spread(own_tiers, Tier.NONE, of_kind, n)
        values = np.array([part.value for part in parts], np.float64)
        ranks = np.array([RANK[part.status] for part in parts], np.uint8)
        features[name] = FeatureColumn(
            feature.version,
            label,
            _spread(values, np.nan, of_kind, n),
            _spread(ranks, NOT_OF_KIND, of_kind, n),
            evaluated.names.deprecated.get(feature.ref),
            _tested(evaluated, name),
        )
    return AnswerTable(evaluated.now_ns, features, times, tiers)


def _tested(evaluated: Evaluated, name: str) -> ExperimentColumn | None:
    """What an experiment has decided of a name."""
    experiment = evaluated.tested.get(name)
    if experiment is None:
        return None
    variants = {arm.version: arm.variant for arm in experiment.arms}
    versions = [
        evaluated.recipes[answer.values[name]].feature.version if name in answer.values else None
        for answer in evaluated.answers
    ]
    of_versions = [None if version is None else variants[version] for version in versions]
    return ExperimentColumn(experiment.name, versions, of_versions)


def listed_table(table: AnswerTable) -> dict[str, ListedColumn]:
    """The columns of a table as lists."""
    times = {label: column.tolist() for label, column in table.times.items()}
    return {
        name: ListedColumn(column.values.tolist(), column.ranks.tolist(), times[column.times])
        for name, column in table.features.items()
    }


def listed_entities(
    question: PreparedQuestion, found: Sequence[EntityValues]
) -> dict[str, ListedColumn]:
    """The columns of entities that were answered one by one: of few this takes less."""
    return {
        name: ListedColumn(
            [entity.values[value] for entity in found],
            [RANK[entity.statuses[value]] for entity in found],
            [NO_TIME if (t := entity.times[time]) is None else t for entity in found],
        )
        for name, (value, time) in question.slots.items()
    }


def _labels(versions: Mapping[str, FeatureVersion]) -> dict[str, str]:
    """Of each requested name that of its column of event times."""
    first: dict[str, str] = {}
    return {
        name: name if feature.source is None else first.setdefault(feature.source, name)
        for name, feature in versions.items()
    }
