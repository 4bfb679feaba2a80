"""Whether the features that are served now are distributed as those that a model was trained on.

The rows of a training set ask their questions again: each entity at the same time of the day, in
the last day or days. So both sides have the same entities, as often, at the same hours, and what
differs is the features. Values are compared as `serving.history.distribution` says; what has none
is counted by its status, as a share of all rows.

A level, as a price or a mean of prices, differs from year to year by its nature. Its index is
shown, and is no drift unless levels are asked for (`registry.language.degree`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from registry.definitions import FeatureVersion
from registry.formats.loaded_rows import loaded
from registry.formats.status import Status
from registry.language.degree import Degree, degree
from registry.language.program import lookback
from registry.resources import sql
from serving.errors import InvalidRequest
from serving.features.columns import NO_TIME, STALE
from serving.features.lookup import Names
from serving.history.distribution import (
    DAY_NS,
    LEAST_VALUES,
    Bins,
    Threshold,
    bins_of,
    index_threshold,
    share_threshold,
    stability_index,
    thinned,
)
from serving.history.entity_rows import EntityRows, entity_rows
from serving.history.files import made_of, opened, pieces, rows_a_piece
from serving.history.made import Made
from serving.history.named import kept_set
from serving.history.past_columns import PastColumn
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import Snapshot, Stores, snapshot
from serving.history.stopped import Stopped
from serving.history.training_set import EVENT_TIME, STATUS, STATUSES
from serving.history.verification import check_columns
from serving.history.wanted import SetJoin, wanted_of

WINDOW_SPANS = sql(__package__, "window_spans")

MOST_ROWS = 200_000
"""Rows of a training set that are looked at, drawn at random from more."""

MOST_ASKED = 50_000
"""Questions that are asked again, drawn at random from those."""

ROWS_A_PIECE = 10_000
SPANS_MEASURED = 500
"""Ticks of which the length of their window is looked up, of each side."""

SEED = 20_130_301
"""Of what is drawn, so that the same command finds the same."""

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]


class Verdict(StrEnum):
    """What the index of a feature says."""

    ALIKE = "alike"
    DRIFT = "drift"
    LEVEL = "level"
    """Differs by its nature, so it is not judged."""
    TOO_FEW = "too few"
    """One side has fewer than 500 values that are independent of each other."""


class Share(NamedTuple):
    """The share of rows with a status, in training and now, and how far it may be off."""

    training: float
    now: float
    threshold: Threshold

    @property
    def has_grown(self) -> bool:
        """Whether it is more than in training by more than the threshold."""
        return self.now - self.training > self.threshold.value


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """A feature, as it was in training and as it is now."""

    version: str
    verdict: Verdict
    index: float | None
    """The population stability index; None where a side has too few values."""
    threshold: Threshold | None
    training: int
    now: int
    """Independent values of each side."""
    shares: Mapping[str, Share]
    """Of all rows, by status."""
    bins: Bins
    training_counts: Int64s
    now_counts: Int64s

    @property
    def worse(self) -> list[str]:
        """The statuses other than `ok` that are more frequent than they should be."""
        return [s for s, one in self.shares.items() if s != Status.OK.value and one.has_grown]

    @property
    def has_drifted(self) -> bool:
        """Whether its values, or its statuses, are others now."""
        return self.verdict is Verdict.DRIFT or bool(self.worse)


class _Side(NamedTuple):
    """What one side has of a feature."""

    values: Floats
    """(n,) NaN where there is none."""
    statuses: NDArray[Any]
    """(n,) Texts."""
    times: Int64s
    """(n,) Event times, of training moments where the set has no event times."""


def drift(
    stores: Stores,
    training_set: Path | str,
    since: int,
    until: int,
    levels: bool,
    progress: Callable[[int, int], None],
    stop: Event,
) -> dict[str, FeatureDrift]:
    """Compare the features of a training set with what was served between two moments.

    The set is a file, or the name of one that is kept, whose features are joined anew. `since` and
    `until` are nanoseconds UTC; with `levels` these are judged, too. `progress` takes the number of
    questions that are answered, and of all. Raises `InvalidRequest` for a file that is no training
    set, `UnknownVersion`, `UnknownFeature`, SQLAlchemy's `DBAPIError`, OSError and `Stopped`.
    """
    if since >= until:
        raise InvalidRequest("nothing lies between the two moments: name an earlier one as since")
    postgres, lake = stores
    with snapshot(postgres, lake=lake) as seen:
        if isinstance(training_set, Path):
            made, table = _of_file(seen, training_set)
        else:
            made, table = _of_name(seen, training_set)
        join = PointInTimeJoin.of_pins(seen, made.pins)
        trained = entity_rows(table, join.key_fields, made.time_column, made.timezone)
        asked = _asked_again(trained, since, until)
        served = replace(wanted_of(made), as_known_at=None)
        now: dict[str, list[_Side]] = {name: [] for name in join.versions}
        progress(0, len(asked))
        for piece in _pieces(asked):
            if stop.is_set():
                raise Stopped
            for name, column in join.columns(piece, served.known(piece.moments)).items():
                now[name].append(_served(column, made))
            progress(sum(len(one.values) for one in next(iter(now.values()))), len(asked))
        compared = _Compared(seen, join, trained, asked, levels)
        return {
            name: compared.feature(
                version, _trained(table, name, made, trained), _joined(now[name])
            )
            for name, version in join.versions.items()
        }


def _of_file(seen: Snapshot, file: Path) -> tuple[Made, Any]:
    """How a training set was made that is in a file, and some of its rows."""
    with opened(file) as source:
        made = made_of(source.schema_arrow)
        if made is None:
            raise InvalidRequest(f"{file} is no training set: it does not say how it was made")
        versions = PointInTimeJoin.of_pins(seen, made.pins).versions
        check_columns(source.schema_arrow, versions, wanted_of(made).form)
        return made, _drawn(source)


def _of_name(seen: Snapshot, name: str) -> tuple[Made, Any]:
    """The same of a set that is kept: its features are joined to some of its rows."""
    with kept_set(seen, name) as (kept, source):
        made = msgspec.convert(kept.made, Made)
        if source is None:
            raise InvalidRequest(f"the training set {name} has no rows")
        table = _drawn(source)
    wanted = replace(wanted_of(made), event_times=True)
    join = SetJoin(seen, wanted, PointInTimeJoin.of_pins(seen, made.pins))
    added = join.added(table)
    for number, column in enumerate(added.column_names):
        table = table.append_column(added.schema.field(number), added.column(column))
    return msgspec.structs.replace(made, event_times=True), table


def _drawn(source: Any) -> Any:
    """Rows of a file, at random where it has many: of rows in an order every tenth may be alike."""
    share = MOST_ROWS / max(1, source.metadata.num_rows)
    random = np.random.default_rng(SEED)

    def drawn(table: Any) -> Any:
        return table.filter(pa.array(random.random(len(table)) < share))

    read = pieces(source, rows_a_piece(1))
    return pa.concat_tables([source.schema_arrow.empty_table(), *map(drawn, read)])


def _asked_again(trained: EntityRows, since: int, until: int) -> EntityRows:
    """The questions at moments after `since`, up to `until`, at the same times of the day.

    Of less than a day only the distances between them stay.
    """
    which = np.arange(len(trained))
    if len(which) > MOST_ASKED:
        which = np.sort(np.random.default_rng(SEED).choice(which, MOST_ASKED, replace=False))
    period = until - since
    if period >= DAY_NS:
        period = period // DAY_NS * DAY_NS
    moments = until - np.mod(until - trained.moments[which], period)
    keys = {field: column.take(pa.array(which)) for field, column in trained.keys.items()}
    return EntityRows(keys, moments)


def _pieces(rows: EntityRows) -> Iterator[EntityRows]:
    for begin in range(0, len(rows), ROWS_A_PIECE):
        keys = {field: column.slice(begin, ROWS_A_PIECE) for field, column in rows.keys.items()}
        yield EntityRows(keys, rows.moments[begin : begin + ROWS_A_PIECE])


def _joined(sides: Sequence[_Side]) -> _Side:
    if not sides:
        return _Side(np.empty(0), np.empty(0, object), np.empty(0, np.int64))
    return _Side(*(np.concatenate(columns) for columns in zip(*sides, strict=True)))


def _trained(table: Any, name: str, made: Made, rows: EntityRows) -> _Side:
    """A feature of the training set's rows."""
    values = table.column(name).to_numpy()
    statuses = np.array(table.column(f"{name}{STATUS}").to_pylist(), object)
    times = rows.moments
    if made.event_times:
        column = table.column(f"{name}{EVENT_TIME}").cast("int64")
        times = column.fill_null(NO_TIME).to_numpy()
    return _Side(values, statuses, times)


def _served(column: PastColumn, made: Made) -> _Side:
    """A feature as a training set of the same form would have it."""
    statuses = np.array(STATUSES, object)[column.ranks]
    values = column.values
    if made.stale == "null":
        values = np.where(column.ranks == STALE, np.nan, values)
    return _Side(values, statuses, column.event_times)


class _Compared:
    """The comparison of one training set with now, feature by feature."""

    def __init__(
        self,
        snapshot: Snapshot,
        join: PointInTimeJoin,
        trained: EntityRows,
        asked: EntityRows,
        levels: bool,
    ) -> None:
        self._snapshot = snapshot
        self._join = join
        self._names = Names(snapshot.catalog)
        self._trained, self._asked = trained, asked
        self._levels = levels

    def feature(self, version: FeatureVersion, trained: _Side, now: _Side) -> FeatureDrift:
        """A feature of both sides."""
        kept = self._kept(version, trained, self._trained)
        kept_now = self._kept(version, now, self._asked)
        values, values_now = trained.values[kept], now.values[kept_now]
        times = trained.times[kept]
        bins = bins_of(values) if len(values) else Bins(np.empty(0), np.empty(0))
        counts, counts_now = bins.counts(values), bins.counts(values_now)
        index, threshold, verdict = None, None, Verdict.TOO_FEW
        if min(len(values), len(values_now)) >= LEAST_VALUES:
            index = stability_index(counts, counts_now)
            threshold = index_threshold(values, times, len(values_now))
            verdict = Verdict.DRIFT if index > threshold.value else Verdict.ALIKE
            if not self._levels and self._degree(version) != 0:
                verdict = Verdict.LEVEL
        return FeatureDrift(
            version=version.ref,
            verdict=verdict,
            index=index,
            threshold=threshold,
            training=len(values),
            now=len(values_now),
            shares=_shares(trained, now, self._trained.moments),
            bins=bins,
            training_counts=counts,
            now_counts=counts_now,
        )

    def _kept(self, version: FeatureVersion, side: _Side, rows: EntityRows) -> NDArray[np.intp]:
        """The values that are independent of each other."""
        has = np.flatnonzero(~np.isnan(side.values) & (side.times != NO_TIME))
        _, entity = rows.entities(version.entity)
        spans = self._spans(version, side, rows, has)
        return has[thinned(entity[has], side.times[has], spans)]

    def _spans(
        self, version: FeatureVersion, side: _Side, rows: EntityRows, has: NDArray[np.intp]
    ) -> Int64s:
        """How long the window of each value is about, in nanoseconds: of each entity its median.

        A sum over entities has no window; its values are taken for independent.
        """
        spans = np.zeros(len(has), np.int64)
        if version.over is not None or len(has) == 0:
            return spans
        some = has
        if len(some) > SPANS_MEASURED:
            some = np.random.default_rng(SEED).choice(has, SPANS_MEASURED, replace=False)
        for source, ticks in self._windows(version).items():
            if ticks > 1:
                spans = np.maximum(spans, self._measured(source, ticks, side, rows, some)[has])
        return spans

    def _windows(self, version: FeatureVersion) -> dict[str, int]:
        """The ticks of a feature's longest window in each source."""
        parts = [version]
        if version.source is None:
            parts = list(self._names.derived[version.ref].parts.values())
        found: dict[str, int] = {}
        for part in parts:
            assert part.source is not None
            source = self._snapshot.catalog.sources[part.source]
            ticks = lookback(part.expression, source, part.ref)
            found[part.source] = max(found.get(part.source, 1), ticks)
        return found

    def _measured(
        self, source: str, ticks: int, side: _Side, rows: EntityRows, some: NDArray[np.intp]
    ) -> Int64s:
        """The span of so many ticks for every row, as it was at some of them."""
        names, entity = rows.entities(self._snapshot.catalog.sources[source].key)
        of_source = [one for one in self._snapshot.catalog.schemas.values() if one.source == source]
        schemas = [number for one in of_source for number in (one.id, loaded(one.id))]
        asked = {
            "numbers": some.tolist(),
            "entities": [names[one] for one in entity[some].tolist()],
            "event_times": side.times[some].tolist(),
            "schemas": schemas,
            "lookback": ticks,
        }
        begins = self._snapshot.rows(WINDOW_SPANS, asked)
        found = [(entity[i], side.times[i] - begin) for i, begin in begins if begin is not None]
        if not found:
            return np.zeros(len(entity), np.int64)
        of, spans = (np.array(column, np.int64) for column in zip(*found, strict=True))
        by_entity = np.full(len(names), np.median(spans).astype(np.int64))
        for one in np.unique(of).tolist():
            by_entity[one] = np.median(spans[of == one])
        return by_entity[entity]

    def _degree(self, version: FeatureVersion) -> Degree:
        of_names: dict[str, Degree] = {}
        if version.source is None:
            parts = self._names.derived[version.ref].parts
            of_names = {name: degree(part.expression, part.ref) for name, part in parts.items()}
        return degree(version.expression, version.ref, of_names)


def _shares(trained: _Side, now: _Side, moments: Int64s) -> dict[str, Share]:
    found = {}
    for status in STATUSES:
        before, after = trained.statuses == status, now.statuses == status
        if before.any() or after.any():
            threshold = share_threshold(before, moments)
            found[status] = Share(_mean(before), _mean(after), threshold)
    return found


def _mean(has: NDArray[np.bool_]) -> float:
    return float(has.mean()) if len(has) else 0.0
