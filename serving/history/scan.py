"""Reads the rows of a stretch of time, and finds in them what was known at each of many moments.

A look-up of each question in the index (`serving.history.ticks_as_of`) takes Postgres some 16 µs.
Where there are many questions for each tick, it is quicker to send the ticks: they come unsorted by
binary COPY, some questions' at a time, are sorted, and searched by event time; from there the
search steps back to the newest row that was known by then. A question that finds none is looked up
after all: its tick is older than what was read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from registry.resources import sql
from serving.history.snapshot import Snapshot

BETWEEN, ESTIMATED = sql(__package__, "ticks_between"), sql(__package__, "estimated_rows")

MARGIN_TICKS = 16
"""Ticks before the first question of an entity that are read, on average."""

LONGEST_MARGIN = 64 * 86_400 * 10**9
"""Nanoseconds."""

LONGEST_KEYS = 2**62
"""Nanoseconds of all entities of a piece together: keys of a search are below it."""

LEVELS = (18, 12, 6, 0)
"""Powers of two: rows of blocks that are skipped at once where none of them was known."""

BEFORE_ALL = -(2**63)
HEADER_BYTES, TRAILER_BYTES = 19, 2

Int64s = NDArray[np.int64]


class Questions(NamedTuple):
    """n questions that differ, by entity, moment and when ticks had to be known."""

    names: Sequence[str]
    """The entities, in order."""
    entity: NDArray[np.int32]
    """(n,) Which of the names each is about."""
    moments: Int64s
    """(n,) Nanoseconds UTC."""
    known: Int64s
    """(n,) Nanoseconds UTC."""

    def entities(self, which: NDArray[np.intp]) -> list[str]:
        """The entities that some are about."""
        return [self.names[i] for i in self.entity[which].tolist()]

    def some(self, which: slice | NDArray[np.intp]) -> Questions:
        """Some of them."""
        return Questions(self.names, self.entity[which], self.moments[which], self.known[which])


class Planned(NamedTuple):
    """A scan that is worth it: its questions at a time, and how far before the first one."""

    questions: int
    margin: int
    """Nanoseconds."""


def planned(
    snapshot: Snapshot, source: str, schemas: Sequence[int], asked: Questions, most_rows: int
) -> Planned | None:
    """How to scan, or None where looking up each question is quicker.

    The rows are as many as Postgres' own statistics say. Where they are wrong, it takes longer: a
    scan reads no more than `most_rows` at a time, and is given up where there are more.
    """
    n, limits = len(asked.moments), snapshot.scans
    if n < max(1, limits.fewest_questions):
        return None
    first, last = int(asked.moments.min()), int(asked.moments.max())
    count = "SELECT count(*) FROM tickwell.entities WHERE source = %(source)s"
    entities = max(1, int(snapshot.rows(count, {"source": source})[0][0]))
    plan = snapshot.rows(ESTIMATED, {"schemas": list(schemas), "first": first, "last": last})
    told = plan[0][0] if isinstance(plan[0][0], list) else json.loads(plan[0][0])
    asked_entities = len(np.unique(asked.entity))
    rows = max(1, told[0]["Plan"]["Plan Rows"]) * min(1.0, asked_entities / entities)
    is_old = rows < asked_entities * limits.rows_an_entity
    if is_old or rows > n * limits.rows_a_question:
        return None
    margin = min(LONGEST_MARGIN, int(MARGIN_TICKS * asked_entities * (last - first) / rows))
    at_a_time = int(most_rows / 2 / max(1.0, rows / n))
    return Planned(max(1, at_a_time), margin)


def scanned(
    snapshot: Snapshot,
    schemas: Sequence[int],
    features: int,
    asked: Questions,
    limits: tuple[Planned, int],
) -> Iterator[Any]:
    """The rows of the ticks that are found, numbered as the questions, some at a time.

    The questions are in the order of entities and moments. `limits` are the plan, and the most rows
    that are read at a time: where there are more, what is left is not scanned.
    """
    plan, most_rows = limits
    dtype = _dtype(features)
    shared = {
        "schemas": list(schemas),
        "features": features,
        "padding": bytes(20 + 12 * features),
        "most": most_rows + 1,
    }
    begins = list(_pieces(asked, plan))
    for number in range(0, len(begins) - 1, snapshot.sessions):
        cut = begins[number : number + snapshot.sessions + 1]
        pieces = [slice(begin, end) for begin, end in pairwise(cut)]
        stretches = [_stretches(asked.some(piece), plan.margin) for piece in pieces]
        sent = snapshot.copied(BETWEEN, [{**shared, **one.parameters()} for one in stretches])
        for piece, stretch, raw in zip(pieces, stretches, sent, strict=True):
            rows: Any = np.frombuffer(raw[HEADER_BYTES:-TRAILER_BYTES], dtype)
            if len(rows) > most_rows:
                return
            question, row = _search(rows, asked.some(piece), stretch)
            found = rows[row]
            found["number"] = piece.start + question
            yield found


class _Stretches(NamedTuple):
    """What is read of the entities of a piece, each between its own two moments."""

    names: Sequence[str]
    numbers: NDArray[np.int32]
    """(e,) The entities, as questions are about them."""
    since: Int64s
    """(e,) Exclusive."""
    until: Int64s
    """(e,)"""

    def parameters(self) -> Mapping[str, Any]:
        """Those of the statement."""
        return {
            "numbers": list(range(len(self.numbers))),
            "entities": [self.names[number] for number in self.numbers.tolist()],
            "since": self.since.tolist(),
            "until": self.until.tolist(),
            "first": int(self.since.min()),
            "last": int(self.until.max()),
        }


def _pieces(asked: Questions, plan: Planned) -> Iterator[int]:
    """Where pieces of questions begin, and the end of the last one."""
    n, begin = len(asked.moments), 0
    while begin < n:
        yield begin
        end = min(n, begin + plan.questions)
        while end - begin > 1 and _span(_stretches(asked.some(slice(begin, end)), plan.margin)):
            end = begin + (end - begin) // 2
        begin = end
    yield n


def _span(stretches: _Stretches) -> bool:
    """Whether the stretches are too long to have keys."""
    lengths = stretches.until.astype(np.float64) - stretches.since.astype(np.float64) + 1
    return bool(lengths.sum() > LONGEST_KEYS)


def _stretches(asked: Questions, margin: int) -> _Stretches:
    starts = np.flatnonzero(np.diff(asked.entity, prepend=asked.entity[0] - 1))
    ends = np.append(starts[1:], len(asked.entity)) - 1
    since = np.maximum(asked.moments[starts], BEFORE_ALL + margin + 1) - margin - 1
    return _Stretches(asked.names, asked.entity[starts], since, asked.moments[ends])


def _search(rows: Any, asked: Questions, stretches: _Stretches) -> tuple[Any, Any]:
    """Which questions have a tick among the rows, and the rows of that tick, one a row schema."""
    lengths = stretches.until - stretches.since + 1
    offsets = np.cumsum(lengths) - lengths - stretches.since
    entity, times = rows["number"].astype(np.int64), rows["event_time"].astype(np.int64)
    sequences, known = rows["sequence"].astype(np.int64), rows["known_at"].astype(np.int64)
    keys = offsets[entity] + times
    # of one event time the ticks from Kafka stand behind those that were loaded (`ticks_as_of.sql`)
    of_kafka = rows["schema_id"] > 0
    order = np.lexsort((rows["schema_id"], sequences, of_kafka, keys))
    keys, known, sequences = keys[order], known[order], sequences[order]
    of_kafka = of_kafka[order]
    own = np.searchsorted(stretches.numbers, asked.entity)
    begins = np.searchsorted(keys, offsets[own] + stretches.since[own], "right")
    newest = np.searchsorted(keys, offsets[own] + asked.moments, "right") - 1
    newest = _stepped_back(newest, begins, asked.known, known)
    question = np.flatnonzero(newest >= begins)
    at = newest[question]
    questions, found = [question], [at]
    while len(question):  # the same tick in other row schemas stands before it
        before = at - 1
        same = before >= begins[question]
        question, at, before = question[same], at[same], before[same]
        same = (keys[before] == keys[at]) & (sequences[before] == sequences[at])
        same &= of_kafka[before] == of_kafka[at]
        question, at = question[same], before[same]
        is_known = known[at] <= asked.known[question]
        questions.append(question[is_known])
        found.append(at[is_known])
    return np.concatenate(questions), order[np.concatenate(found)]


def _stepped_back(newest: Int64s, begins: Int64s, by: Int64s, known: Int64s) -> Int64s:
    """The last rows up to `newest` that were known, below `begins` where none was.

    Blocks of rows none of which was known are stepped over at once, so that history that was all
    loaded later takes few steps.
    """
    least = {0: known}
    for level in sorted(LEVELS)[1:]:
        below = least[level - 6]
        padded = np.full(-(-len(below) // 64) * 64, np.iinfo(np.int64).max)
        padded[: len(below)] = below
        least[level] = padded.reshape(-1, 64).min(axis=1)
    found = newest.copy()
    left = np.flatnonzero(found >= begins)
    while len(left):
        at, when = found[left], by[left]
        stepped = at.copy()
        waits = np.ones(len(left), np.bool_)
        for level in LEVELS:
            block = at >> level
            skips = waits & (least[level][block] > when)
            stepped[skips] = (block[skips] << level) - 1
            waits &= ~skips
        found[left] = stepped
        left = left[~waits & (stepped >= begins[left])]
    return found


def _dtype(features: int) -> np.dtype[np.void]:
    """A row of `ticks_between.sql` in PostgreSQL's binary COPY format."""
    value = np.dtype([("size", ">i4"), ("value", ">f8")])
    return np.dtype(
        [
            ("columns", ">i2"),
            *(("number_size", ">i4"), ("number", ">i4")),
            *(("schema_size", ">i4"), ("schema_id", ">i4")),
            *(("event_time_size", ">i4"), ("event_time", ">i8")),
            *(("sequence_size", ">i4"), ("sequence", ">i8")),
            *(("known_size", ">i4"), ("known_at", ">i8")),
            *(("status_size", ">i4"), ("status", "u1", (features,))),
            *(("values_size", ">i4"), ("values", value, (features,))),
        ]
    )
