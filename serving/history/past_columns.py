"""Columns of features at moments of the past, judged by their age then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.definitions import FeatureVersion
from serving.features.columns import NO_TIME, OK, STALE
from serving.features.prepared import NEVER
from serving.history.found_ticks import FoundTicks

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Ranks = NDArray[np.uint8]
Flags = NDArray[np.bool_]


class Served(NamedTuple):
    """Which version a name meant, of n rows."""

    versions: Sequence[str]
    """The numbers of versions."""
    which: NDArray[np.int32]
    """(n,) Which of them each row has; -1 where the name meant none yet."""


class PastColumn(NamedTuple):
    """A feature of n rows."""

    version: FeatureVersion
    """What is computed; where each row has the version that was served, what the name means now."""
    values: Floats
    """(n,) NaN where there is none."""
    ranks: Ranks
    """(n,) The rank of each status (`registry.formats.status.RANK`)."""
    event_times: Int64s
    """(n,) Nanoseconds UTC, `NO_TIME` where there is none."""
    lacks: Flags
    """(n,) Where there was a tick of which the version was never computed."""
    served: Served | None = None
    """The versions of the rows, where they differ."""


def past_column(version: FeatureVersion, ticks: FoundTicks, moments: Int64s) -> PastColumn:
    """A stored feature, as old as it was at the moments."""
    values, ranks, lacks = ticks.column(version.ref)
    times = np.where(lacks, NO_TIME, ticks.event_times)
    return PastColumn(version, values, judged(ranks, times, moments, version), times, lacks)


def judged(ranks: Ranks, times: Int64s, moments: Int64s, version: FeatureVersion) -> Ranks:
    """The ranks that are left of values that may have been too old."""
    max_age = version.max_age_ns
    if max_age is None or max_age == NEVER:
        return ranks
    known = times != NO_TIME
    age = moments - np.where(known, times, moments)
    least = np.where(age > max_age, STALE, OK).astype(np.uint8)
    worse: Ranks = np.maximum(ranks, least)
    return worse
