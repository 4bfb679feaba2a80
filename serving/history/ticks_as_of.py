"""What was an entity's newest tick at a moment, and what its row says.

A tick counts at a moment if it happened by then (`event_time`) and had arrived by then
(`known_at`): a tick that came late changes nothing that was served before. Which tick it is does
not depend on the features that are asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.database.repair_tables import CANCELLED
from registry.formats.loaded_rows import row_schema_of
from registry.resources import sql
from serving.features.columns import NO_TIME
from serving.features.lookup import Names
from serving.history.found_ticks import About, Asked, Backfills, FoundTicks
from serving.history.lake.days import Dropped, loaded_schemas
from serving.history.lake.questions import HeldQuestions
from serving.history.scan import Questions, planned, scanned
from serving.history.snapshot import Snapshot

TICKS_AS_OF, TICKS_AS_KNOWN = sql(__package__, "ticks_as_of"), sql(__package__, "ticks_as_known")
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


class _Distinct(NamedTuple):
    """The questions that differ, in the order of entities and moments."""

    questions: Questions
    of: NDArray[np.intp]
    """(n,) Which of them each question is."""


class _Wanted(NamedTuple):
    """What is looked up of each question: by a statement, in row schemas of so many features."""

    statement: str
    schemas: Sequence[int]
    features: int


def ticks_as_of(
    snapshot: Snapshot,
    names: Names,
    source: str,
    asked: Asked,
    refs: Collection[str],
    backfills: Backfills,
) -> FoundTicks:
    """The ticks of questions in one source, with what their rows have of `refs`, `name@version`.

    They are looked up in Postgres, or in a scan of it; where Postgres has let go of a day that may
    have the tick, in the lake. Raises `StoresUnavailable` for files that cannot be read, and
    SQLAlchemy's `DBAPIError`.
    """
    reading = _TicksAsOf(snapshot, names, source, asked, refs, backfills)
    schemas = sorted(one.id for one in names.catalog.schemas.values() if one.source == source)
    if schemas:
        of_loads = loaded_schemas(snapshot, source)
        reading.read([*of_loads, *schemas], asked.repaired, asked.stored_only)
    return reading.found


class _TicksAsOf:
    """Finds the ticks of questions."""

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
        self._source = source
        self._backfills = backfills
        distinct = _distinct(asked)
        self._asked = distinct.questions
        about = About(distinct.questions.names, distinct.questions.entity, distinct.of)
        self.found = FoundTicks(snapshot, names, backfills, about, refs)

    def read(self, schemas: Sequence[int], repaired: bool, stored_only: bool) -> None:
        """Find them in rows of these row schemas."""
        dropped = None if stored_only else Dropped(self._snapshot, self._source)
        left = np.ones(len(self._asked.moments), np.bool_)
        if dropped:
            left = ~dropped.between(self._asked.moments, self._asked.moments)
        if left.any():
            self._read_stored(schemas, repaired, np.flatnonzero(left))
        if dropped:
            # newer ticks than the one that was found may be in files alone
            times = self.found.times
            since = np.where(times == NO_TIME, BEFORE_ALL, times)
            in_lake = ~left | dropped.between(since, self._asked.moments)
            if in_lake.any():
                self._read_lake(repaired, np.flatnonzero(in_lake))

    def _read_stored(self, schemas: Sequence[int], repaired: bool, which: NDArray[np.intp]) -> None:
        own = {row_schema_of(one) for one in schemas}
        features = max(len(self._snapshot.catalog.schemas[one].features) for one in own)
        most = max(1, self._snapshot.row_bytes // _dtype(features).itemsize)
        asked = self._asked.some(which)
        left = np.ones(len(which), np.bool_)
        scan = None  # of what was served alone
        if not repaired:
            scan = planned(self._snapshot, self._source, schemas, asked, most)
        if scan is not None:
            self.found.plan = "scan"
            for rows in scanned(self._snapshot, schemas, features, asked, (scan, most)):
                left[rows["number"]] = False
                self.found.keep(_numbered(rows, which))
        wanted = _Wanted(TICKS_AS_KNOWN if repaired else TICKS_AS_OF, schemas, features)
        for rows in _found(self._snapshot, asked, wanted, np.flatnonzero(left)):
            self.found.keep(_numbered(rows, which))

    def _read_lake(self, repaired: bool, which: NDArray[np.intp]) -> None:
        """Find the ticks of some questions by the days, as a sweep does, and forget others."""
        # it compiles what it needs, which most processes never do
        from serving.history.lake.source_sweep import SourceSweep

        self.found.plan = "sweep"
        asked, refs = self._asked.some(which), self.found.refs
        own, entity = np.unique(asked.entity, return_inverse=True)
        questions = HeldQuestions(entity.astype(np.int32), asked.moments, asked.known, len(refs))
        of_source = SourceSweep(self._snapshot, self._source, refs, self._backfills, repaired)
        parts = of_source.parts(questions)
        of_source.run([asked.names[number] for number in own.tolist()], questions, parts)
        self.found.take(which, questions.answers)


def _numbered(rows: Any, which: NDArray[np.intp]) -> Any:
    """Rows with the numbers of all questions, of which they have those of some."""
    numbered = rows.copy()
    numbered["number"] = which[rows["number"]]
    return numbered


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
    snapshot: Snapshot, asked: Questions, wanted: _Wanted, left: NDArray[np.intp]
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


def _question(asked: Questions, part: NDArray[np.intp], span: int | None) -> dict[str, Any]:
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


def _rows(sent: memoryview, dtype: np.dtype[np.void]) -> Any:
    return np.frombuffer(sent[HEADER_BYTES:-TRAILER_BYTES], dtype)
