"""The status of a served value, from best to worst."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Status(StrEnum):
    """Of the statuses that apply a value gets the worst, so the order of the members matters."""

    OK = "ok"
    STALE = "stale"
    """Older than the feature's `max_age`."""
    LAGGING = "lagging"
    """The pipeline itself is behind; a quiet market is not."""
    WARMING = "warming"
    """The window is not full yet."""
    UNDEFINED = "undefined"
    """The arithmetic has no value."""
    MISSING = "missing"
    """Nothing is known of the entity, or of a part of a derived feature."""
    UNAVAILABLE = "unavailable"
    """The store did not answer."""


RANK = {status: rank for rank, status in enumerate(Status)}


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of `statuses`, `ok` of none."""
    return max(statuses, key=RANK.__getitem__, default=Status.OK)


def has_value(status: Status) -> bool:
    """Whether a value with this status is a number."""
    return RANK[status] <= RANK[Status.LAGGING]
