"""Reads single values of stored features, as they were at a moment, or of a tick."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from registry.definitions import FeatureVersion
from registry.formats.entity_name import entity_id
from registry.formats.loaded_rows import loaded
from registry.formats.row import ValueStatus
from registry.formats.status import Status
from registry.language.terms import Part
from serving.errors import InvalidRequest
from serving.features.columns import NO_TIME, RANK_OF
from serving.features.times import to_rfc_3339
from serving.features.values import STATUS
from serving.history.entity_rows import LAST_MOMENT
from serving.history.found_ticks import Asked, Backfills, FoundTicks, backfilled_values
from serving.history.let_go import check_in_postgres
from serving.history.past_columns import past_column
from serving.history.reasons import Read
from serving.history.sources import Sources
from serving.history.window_ticks import TickKey, Window, stored_tick

STORED_STATUS = {int(RANK_OF[one]): one.name.lower() for one in ValueStatus}
"""How a row names a status, by the rank that it is served with before its age counts."""

STATUSES = list(Status)

UNKNOWN_STATUS = "unknown"
"""What a status is called that no row should have."""


class When(NamedTuple):
    """Which ticks count, and when their age is judged; nanoseconds UTC."""

    at: int | None
    """The moment that was asked for, None for now: then all that is stored counts."""
    judged: int

    @property
    def as_of(self) -> int:
        """By when a tick had to have happened, and to be known."""
        return LAST_MOMENT if self.at is None else self.at


class StoredReads:
    """Reads values in one snapshot of the database."""

    def __init__(self, sources: Sources, backfills: Backfills) -> None:
        self._snapshot = sources.snapshot
        self._names = sources.names
        self._sources = sources
        self._backfills = backfills

    def read(
        self, version: FeatureVersion, keys: Sequence[tuple[str, ...]], when: When
    ) -> list[Read]:
        """A stored feature of entities, each named by the key fields of its source.

        Raises as `ticks`.
        """
        assert version.source is not None
        names = [entity_id(key) for key in keys]
        ticks = self.ticks(version.source, names, when, [version.ref])
        column = past_column(version, ticks, np.full(len(names), when.judged, np.int64))
        _, ranks, _ = ticks.column(version.ref)
        return [
            Read(
                version,
                key,
                Part(value, _status(rank), None if lacks or time == NO_TIME else time),
                None if time == NO_TIME else TickKey(time, sequence),
                closed,
                lacks,
                value,
                STORED_STATUS.get(stored, UNKNOWN_STATUS),
                is_loaded,
            )
            for key, value, rank, lacks, time, sequence, closed, stored, is_loaded in zip(
                keys,
                column.values.tolist(),
                column.ranks.tolist(),
                column.lacks.tolist(),
                ticks.event_times.tolist(),
                ticks.sequences.tolist(),
                ticks.closed.tolist(),
                ranks.tolist(),
                ticks.loaded.tolist(),
                strict=True,
            )
        ]

    def ticks(
        self, source: str, names: Sequence[str], when: When, refs: Collection[str]
    ) -> FoundTicks:
        """The newest ticks of entities in a source, with what they have of `refs`.

        Raises `StoresUnavailable` for files of the lake that cannot be read, and, where no lake is
        known, `InvalidRequest` for a moment of which it alone has the ticks.
        """
        # where Postgres lets go of ticks, it keeps the newest ones of each entity
        stored_only = when.at is None or self._snapshot.lake.folder is None
        if stored_only and when.at is not None:
            check_in_postgres(self._snapshot, source, when.at)
        unique = list(dict.fromkeys(names))
        numbers = {name: number for number, name in enumerate(unique)}
        entity = np.array([numbers[name] for name in names], np.int32)
        moments = np.full(len(names), when.as_of, np.int64)
        asked = Asked(unique, entity, moments, moments, stored_only=stored_only)
        return self._sources.ticks(source, asked, refs)

    def read_tick(self, version: FeatureVersion, key: tuple[str, ...], tick: TickKey) -> Read:
        """The feature of a tick, which has no age.

        Raises `InvalidRequest` for one that is not known, or is in the lake alone.
        """
        assert version.source is not None
        check_in_postgres(self._snapshot, version.source, tick.event_time)
        source, name = self._names.catalog.sources[version.source], entity_id(key)
        found = stored_tick(self._snapshot, source, Window(name, tick), any_kind=True)
        if found is None:
            raise InvalidRequest(
                f"no tick of {'/'.join(key)} is stored at {to_rfc_3339(tick.event_time)} with the "
                f"sequence {tick.sequence}"
            )
        stored = self._of_rows(version, found.values)
        stored = stored or self._of_blocks(version, name, tick, found.loaded)
        if stored is None:
            part = Part(math.nan, Status.MISSING, None)
            nothing = math.nan, UNKNOWN_STATUS
            return Read(version, key, part, tick, found.closed, True, *nothing, found.loaded)
        value, code = stored
        known = code in STATUS
        status = ValueStatus(code).name.lower() if known else UNKNOWN_STATUS
        part = Part(value, STATUS.get(code, Status.UNAVAILABLE), tick.event_time)
        return Read(version, key, part, tick, found.closed, False, value, status, found.loaded)

    def _of_rows(
        self, version: FeatureVersion, values: Mapping[int, tuple[Sequence[float], bytes]]
    ) -> tuple[float, int] | None:
        for schema, (features, statuses) in values.items():
            index = self._names.index(schema, version.ref)
            if index is not None:
                return features[index], statuses[index]
        return None

    def _of_blocks(
        self, version: FeatureVersion, name: str, tick: TickKey, is_loaded: bool
    ) -> tuple[float, int] | None:
        backfill = self._backfills.get(version.ref)
        if backfill is None:
            return None
        asked = {
            "backfills": [loaded(backfill) if is_loaded else backfill],
            "numbers": [0],
            "entities": [name],
            "event_times": [tick.event_time],
            "sequences": [tick.sequence],
        }
        rows = backfilled_values(self._snapshot, [asked])
        return (float(rows["value"][0]), int(rows["status"][0])) if len(rows) else None


def _status(rank: int) -> Status:
    return STATUSES[rank] if rank < len(STATUSES) else Status.UNAVAILABLE
