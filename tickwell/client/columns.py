"""The values of many entities by columns: a few arrays a feature, and no object a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickwell.client.values import FeatureValue, rfc_3339

NO_TIME = np.iinfo(np.int64).min
"""Where there is no event time; numpy's NaT has this number too."""

NONE = -1
"""The code of no text."""


class Texts(NamedTuple):
    """Few different texts of n entities, as a column of codes."""

    codes: NDArray[np.int32]
    """(n,) Indexes into `names`, `NONE` where there is no text."""
    names: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Texts:
        """The column of texts."""
        known: dict[str | None, int] = {None: NONE}
        codes = [known.setdefault(text, len(known) - 1) for text in texts]
        return cls(np.array(codes, np.int32), tuple(name for name in known if name is not None))

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """One column of several, one under the other."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        new = {name: code for code, name in enumerate(names)}
        codes = []
        for part in parts:
            moved = np.array([*(new[name] for name in part.names), NONE], np.int32)
            codes.append(moved[part.codes])  # -1 is the last one, which stays -1
        return cls(np.concatenate(codes), names)

    def texts(self) -> list[str | None]:
        """The text of each entity."""
        names = [*self.names, None]
        return [names[code] for code in self.codes.tolist()]

    def text(self, index: int) -> str | None:
        """The text of one entity."""
        code = int(self.codes[index])
        return None if code == NONE else self.names[code]


class FeatureColumn(NamedTuple):
    """One feature of n entities. An entity of another kind than the feature's has no status."""

    values: NDArray[np.float64]
    """(n,) NaN where there is none."""
    statuses: Texts
    versions: Texts
    event_times: NDArray[np.int64]
    """(n,) Nanoseconds UTC, `NO_TIME` where there is none."""
    ages: NDArray[np.float64]
    """(n,) Seconds since the event time when the server answered, NaN where there is none."""
    tiers: Texts
    variants: Texts
    """Where an experiment has decided about the versions."""
    experiment: str | None = None
    deprecated: str | None = None

    @classmethod
    def of(cls, values: Sequence[FeatureValue | None]) -> FeatureColumn:
        """The column of values; None is of an entity of another kind."""
        known = [value or ABSENT for value in values]
        times = [value.event_time_ns for value in known]
        return cls(
            values=np.array([value.value for value in known], np.float64),
            statuses=Texts.of(value.status or None for value in known),
            versions=Texts.of(value.version or None for value in known),
            event_times=np.array([NO_TIME if t is None else t for t in times], np.int64),
            ages=np.array([value.age_seconds for value in known], np.float64),
            tiers=Texts.of(value.tier for value in known),
            variants=Texts.of(value.variant for value in known),
            experiment=next(filter(None, (value.experiment for value in known)), None),
            deprecated=next(filter(None, (value.deprecated for value in known)), None),
        )

    @classmethod
    def joined(cls, parts: Sequence[FeatureColumn]) -> FeatureColumn:
        """One column of several, one under the other."""
        return cls(
            values=np.concatenate([part.values for part in parts]),
            statuses=Texts.joined([part.statuses for part in parts]),
            versions=Texts.joined([part.versions for part in parts]),
            event_times=np.concatenate([part.event_times for part in parts]),
            ages=np.concatenate([part.ages for part in parts]),
            tiers=Texts.joined([part.tiers for part in parts]),
            variants=Texts.joined([part.variants for part in parts]),
            experiment=next(filter(None, (part.experiment for part in parts)), None),
            deprecated=next(filter(None, (part.deprecated for part in parts)), None),
        )

    def value(self, index: int) -> FeatureValue | None:
        """The value of one entity, None where it is of another kind."""
        status = self.statuses.text(index)
        if status is None:
            return None
        number, time, age = (
            column[index].item() for column in (self.values, self.event_times, self.ages)
        )
        return FeatureValue(
            value=None if np.isnan(number) else number,
            status=status,
            version=self.versions.text(index) or "",
            event_time=None if time == NO_TIME else rfc_3339(time),
            age_seconds=None if np.isnan(age) else age,
            tier=self.tiers.text(index),
            deprecated=self.deprecated,
            experiment=self.experiment,
            variant=self.variants.text(index),
        )


ABSENT = FeatureValue(None, "", "")
"""Stands for the value of an entity that has no such feature."""


class Columns(NamedTuple):
    """The answer about n entities: their key fields, and their features, by name."""

    keys: dict[str, list[str | None]]
    features: dict[str, FeatureColumn]
    rows: int

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """One answer of several, one under the other.

        What one of them lacks, as of a set with features of several kinds, is not of its entities.
        """
        if len(parts) == 1:
            return parts[0]
        fields = dict.fromkeys(field for part in parts for field in part.keys)
        keys: dict[str, list[str | None]] = {
            field: [key for part in parts for key in part.keys.get(field, [None] * part.rows)]
            for field in fields
        }
        names = dict.fromkeys(name for part in parts for name in part.features)
        features = {
            name: FeatureColumn.joined(
                [part.features.get(name) or FeatureColumn.of([None] * part.rows) for part in parts]
            )
            for name in names
        }
        return cls(keys, features, sum(part.rows for part in parts))
