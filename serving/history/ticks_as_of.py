"""What was an entity's newest tick at a moment, and what its row says.

A tick counts at a moment if it happened by then (`event_time`) and had arrived by then
(`known_at`): a tick that came late changes nothing that was served before. Which tick it is does
not depend on the features that are asked for. A feature that its row lacks has the value that a
backfill computed of this tick, or none: never that of an older one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.database.repair_tables import CANCELLED
from registry.formats.loaded_rows import loaded, row_schema_of
from registry.formats.row import ValueStatus
from registry.resources import sql
from serving.features.columns import MISSING, NO_TIME, RANK_OF
from serving.features.lookup import Names
from serving.history.scan import Questions, planned, scanned
from serving.history.snapshot import Snapshot

TICKS_AS_OF, TICKS_AS_KNOWN = sql(__package__, "ticks_as_of"), sql(__package__, "ticks_as_known")
BACKFILLED = sql(__package__, "backfilled_values")

LOADED = "SELECT DISTINCT -schema_id FROM tickwell.loads WHERE source = %(source)s ORDER BY 1 DESC"
"""The ids under which a source has loaded rows: in a database without loads nobody looks there."""

DAY_NS = 86_400 * 10**9
SPANS = (DAY_NS, 8 * DAY_NS, 64 * DAY_NS, None)
"""Nanoseconds back from the moment that are looked at, one after the other: most entities tick in
the last of them, and each month that is opened costs an entity about 12 µs. None is all."""

BEFORE_ALL = -(2**63)
HEADER_BYTES, TRAILER_BYTES = 19, 2
"""Bytes around the rows of a binary COPY."""

ARRAY_HEADER_BYTES = 20
"""Bytes before the elements of an array."""

Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]
Ranks = NDArray[np.uint8]


class Asked(NamedTuple):
    """n questions: an entity at a moment, by what was known at another one (or the same)."""

    names: Sequence[str]
    """The entities."""
    entity: NDArray[np.int32]
    """(n,) Which of `names` each question is about."""
    moments: Int64s
    """(n,) Nanoseconds UTC."""
    known: Int64s
    """(n,) Nanoseconds UTC."""
    repaired: bool = False
    """Whether repairs count that were known by then; else it is what was served."""


class _Distinct(NamedTuple):
    """The questions that differ, in the order of entities and moments."""

    questions: Questions
    of: NDArray[np.intp]
    """(n,) Which of them each question is."""

    @property
    def moments(self) -> Int64s:
        return self.questions.moments

    @property
    def known(self) -> Int64s:
        return self.questions.known

    def entities(self, which: NDArray[np.intp]) -> list[str]:
        """The entities that some are about."""
        names = self.questions.names
        return [names[i] for i in self.questions.entity[which].tolist()]


class _Wanted(NamedTuple):
    """What is looked up of each question: by a statement, in row schemas of so many features."""

    statement: str
    schemas: Sequence[int]
    features: int


Plan = Literal["lateral", "scan"]


class _Column(NamedTuple):
    """What rows say of a version, of each of the questions that differ."""

    values: Floats
    ranks: Ranks
    lacks: NDArray[np.bool_]


class TicksAsOf:
    """The ticks of n questions in one source, and columns of what their rows say.

    Of the rows only `refs` are kept, versions as `name@version`: others may be many.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        names: Names,
        source: str,
        asked: Asked,
        refs: Collection[str],
        backfills: Backfills,
    ) -> None:
        self._snapshot = snapshot
        self._names = names
        self._backfills = backfills
        self._distinct = _distinct(asked)
        m = len(self._distinct.moments)
        self._times = np.full(m, NO_TIME, np.int64)
        self._sequences = np.zeros(m, np.int64)
        self._closed = np.zeros(m, np.bool_)
        self._revised = np.zeros(m, np.bool_)
        self._loaded = np.zeros(m, np.bool_)
        self._columns = {
            ref: _Column(np.full(m, np.nan), np.full(m, MISSING, np.uint8), np.ones(m, np.bool_))
            for ref in refs
        }
        self.plan: Plan = "lateral"
        """How they were read: looked up one by one, or in a scan of the rows of their time."""
        schemas = sorted(one.id for one in names.catalog.schemas.values() if one.source == source)
        if schemas:
            of_loads = [number for (number,) in snapshot.rows(LOADED, {"source": source})]
            self._read(source, [*of_loads, *schemas], asked.repaired)

    def _read(self, source: str, schemas: Sequence[int], repaired: bool) -> None:
        own = {row_schema_of(one) for one in schemas}
        features = max(len(self._snapshot.catalog.schemas[one].features) for one in own)
        most = max(1, self._snapshot.row_bytes // _dtype(features).itemsize)
        asked, left = self._distinct, np.ones(len(self._times), np.bool_)
        scan = None  # of what was served alone
        if not repaired:
            scan = planned(self._snapshot, source, schemas, asked.questions, most)
        if scan is not None:
            self.plan = "scan"
            for rows in scanned(self._snapshot, schemas, features, asked.questions, (scan, most)):
                self._keep(rows)
                left[rows["number"]] = False
        wanted = _Wanted(TICKS_AS_KNOWN if repaired else TICKS_AS_OF, schemas, features)
        for rows in _found(self._snapshot, asked, wanted, np.flatnonzero(left)):
            self._keep(rows)

    def _keep(self, rows: Any) -> None:
        which = rows["number"]
        self._times[which] = rows["event_time"]
        self._sequences[which] = rows["sequence"]
        if "revision" in rows.dtype.names:  # a scan is of what was served
            self._revised[which] = rows["revision"] > 0
        if rows["status"].shape[1]:
            self._closed[which[rows["status"][:, 0] == ValueStatus.CLOSED]] = True
        for schema in np.unique(rows["schema_id"]):  # a tick that is in several has equal values
            of_schema = rows["schema_id"] == schema
            numbers = which[of_schema]
            self._loaded[numbers] = schema < 0
            for ref, column in self._columns.items():
                index = self._names.index(row_schema_of(int(schema)), ref)
                if index is not None:
                    column.values[numbers] = rows["values"]["value"][of_schema, index]
                    column.ranks[numbers] = RANK_OF[rows["status"][of_schema, index]]
                    column.lacks[numbers] = False

    @property
    def event_times(self) -> Int64s:
        """(n,) Nanoseconds UTC, `NO_TIME` where there is no tick yet."""
        return self._times[self._distinct.of]

    @property
    def sequences(self) -> Int64s:
        """(n,) The sequence of each tick, 0 where there is none yet."""
        return self._sequences[self._distinct.of]

    @property
    def closed(self) -> NDArray[np.bool_]:
        """(n,) Whether the entity was closed."""
        return self._closed[self._distinct.of]

    @property
    def loaded(self) -> NDArray[np.bool_]:
        """(n,) Whether each tick came from files."""
        return self._loaded[self._distinct.of]

    def column(self, ref: str) -> tuple[Floats, Ranks, NDArray[np.bool_]]:
        """Values of a version, the ranks of their statuses, and where it has none of the tick.

        Each is (n,). A value is NaN where there is none. The version is one of `refs`.
        """
        values, ranks, lacks = self._columns[ref]
        lacks &= self._times != NO_TIME
        backfill = self._backfills.get(ref)
        # what a backfill computed of a tick is of what was served
        blocks = lacks & ~self._revised
        if backfill is not None and blocks.any():
            which, found, statuses = self._backfilled(backfill, np.flatnonzero(blocks))
            values[which], ranks[which] = found, RANK_OF[statuses]
            lacks[which] = False
        of = self._distinct.of
        return values[of], ranks[of], lacks[of]

    def _backfilled(self, backfill: int, lacking: NDArray[np.intp]) -> tuple[Any, Any, Any]:
        """Which of the ticks a backfill has, with values and statuses."""
        asked = self._distinct
        parts = [
            {
                "numbers": part.tolist(),
                "backfills": np.where(self._loaded[part], loaded(backfill), backfill).tolist(),
                "entities": asked.entities(part),
                "event_times": self._times[part].tolist(),
                "sequences": self._sequences[part].tolist(),
            }
            for part in self._snapshot.shares(lacking)
        ]
        rows = backfilled_values(self._snapshot, parts)
        return rows["number"], rows["value"], rows["status"]


def backfilled_values(snapshot: Snapshot, asked: Sequence[Mapping[str, Any]]) -> Any:
    """The rows of `backfilled_values.sql` for parameters, as many as sessions read at once."""
    found = [_rows(one, BACKFILLED_ROW) for one in snapshot.copied(BACKFILLED, asked)]
    return np.concatenate(found)


Backfills = Mapping[str, int]
"""The ids of backfills that are complete, by `name@version`."""


def backfills_of(snapshot: Snapshot) -> Backfills:
    """The complete backfills."""
    complete = "SELECT name || '@' || version, id FROM tickwell.backfills WHERE state = 'complete'"
    return {str(ref): int(number) for ref, number in snapshot.rows(complete, {})}


def _distinct(asked: Asked) -> _Distinct:
    n = len(asked.moments)
    sorted_names = sorted(range(len(asked.names)), key=asked.names.__getitem__)
    rank = np.empty(len(asked.names), np.int32)
    rank[sorted_names] = np.arange(len(rank))
    columns = asked.known, asked.moments, rank[asked.entity]
    order = np.lexsort(columns)
    differs = np.ones(n, np.bool_)
    if n:
        differs[1:] = np.logical_or.reduce([np.diff(column[order]) != 0 for column in columns])
    of = np.empty(n, np.intp)
    of[order] = np.cumsum(differs) - 1
    first = order[differs]
    names = [asked.names[i] for i in sorted_names]
    entity = rank[asked.entity[first]]
    return _Distinct(Questions(names, entity, asked.moments[first], asked.known[first]), of)


def _found(
    snapshot: Snapshot, asked: _Distinct, wanted: _Wanted, left: NDArray[np.intp]
) -> Iterator[Any]:
    """The rows of the ticks of those that are left, numbered as the questions, some at a time."""
    features = wanted.features
    dtype = _dtype(features)
    shared = {
        "schemas": list(wanted.schemas),
        "features": features,
        "cancelled": CANCELLED,
        "padding": bytes(ARRAY_HEADER_BYTES + 12 * features),
    }
    most = max(1, snapshot.row_bytes // dtype.itemsize)
    for span in SPANS:
        answered = np.zeros(len(asked.moments), np.bool_)
        for begin in range(0, len(left), most):
            shares = snapshot.shares(left[begin : begin + most])
            parts = [{**shared, **_question(asked, part, span)} for part in shares]
            for sent in snapshot.copied(wanted.statement, parts):
                rows = _rows(sent, dtype)
                answered[rows["number"]] = True
                yield rows
        left = left[~answered[left]]


def _question(asked: _Distinct, part: NDArray[np.intp], span: int | None) -> dict[str, Any]:
    moments = asked.moments[part]
    if span is None:
        since = np.full(len(part), BEFORE_ALL)
    else:
        since = np.maximum(moments, BEFORE_ALL + span) - span
    return {
        "numbers": part.tolist(),
        "entities": asked.entities(part),
        "moments": moments.tolist(),
        "known": asked.known[part].tolist(),
        "since": since.tolist(),
    }


def _dtype(features: int) -> np.dtype[np.void]:
    """A row of `ticks_as_of.sql` in PostgreSQL's binary COPY format."""
    value = np.dtype([("size", ">i4"), ("value", ">f8")])
    return np.dtype(
        [
            ("columns", ">i2"),
            *(("number_size", ">i4"), ("number", ">i4")),
            *(("schema_size", ">i4"), ("schema_id", ">i4")),
            *(("event_time_size", ">i4"), ("event_time", ">i8")),
            *(("sequence_size", ">i4"), ("sequence", ">i8")),
            *(("revision_size", ">i4"), ("revision", ">i2")),
            *(("status_size", ">i4"), ("status", "u1", (features,))),
            *(("values_size", ">i4"), ("values", value, (features,))),
        ]
    )


BACKFILLED_ROW = np.dtype(
    [
        ("columns", ">i2"),
        *(("number_size", ">i4"), ("number", ">i4")),
        *(("value_size", ">i4"), ("value", ">f8")),
        *(("status_size", ">i4"), ("status", ">i2")),
    ]
)
"""A row of `backfilled_values.sql` in PostgreSQL's binary COPY format."""


def _rows(sent: memoryview, dtype: np.dtype[np.void]) -> Any:
    return np.frombuffer(sent[HEADER_BYTES:-TRAILER_BYTES], dtype)
