"""What readers saw while the run went on, held against what was true at that time.

An observation is a line of JSON:

    at, until    nanoseconds UTC just before the question and just after the answer
    reader       who asked
    via          "http" or "redis": a value may not step back as seen by one way; "cold" for a value
                 that is said to be Postgres', which may
    source       of which source the value is
    entity       its key field values, a list
    feature      its name, null for a whole row
    version      of the feature, null where there was no answer
    event_time   nanoseconds UTC, null where the answer has none
    sequence     null where the answer has none (over HTTP)
    value        a double, null for none
    status       as it was served, "stored" for a row in Redis, null where there was no answer;
                 "missing" with an event time is of an entity that is closed
    http         the code of the answer; 0 for none; null for Redis
    row          the packed row, in hex, for Redis

What it must hold against: a row's value is exact; `ok` is not older than the feature's `max_age`;
and `ok` is not served while a newer accepted tick was in Kafka for longer than the pipeline may be
behind without saying so.
"""

from __future__ import annotations

import heapq
import json
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checker.arithmetic import STATUS
from tests.checker.findings import Findings, NotCheckable, shown_time
from tests.checker.packed import Corrupt, PackedRow, doubles, entity_name, read_row, shown
from tests.checker.sources import Source
from tests.checker.stored import StoredRow
from tests.oracle.features import Accepted

WITH_VALUE = ("ok", "stale", "lagging")
OF_A_ROW = (*WITH_VALUE, "warming", "undefined", "stored")
NOTHING_SEEN = "missing"
COLD = "cold"
SERVED_AS = {"closed": "missing"}
"""The status that is served of a stored one, where it is another."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One line; `entity` is the name, `row` the bytes."""

    at: int
    until: int
    reader: str
    via: str
    source: str
    entity: str
    feature: str | None
    version: str | None
    event_time: int | None
    sequence: int | None
    value: float | None
    status: str | None
    http: int | None
    row: bytes | None

    @property
    def is_of_a_closed(self) -> bool:
        """Whether it says that the entity is closed."""
        return self.status == NOTHING_SEEN and self.event_time is not None


@dataclass(slots=True)
class WatchedRow:
    """A row that somebody may have seen; `followed_at` is when Kafka had its entity's next tick."""

    sequence: int
    values: dict[str, tuple[str, float]]
    packed: set[tuple[int, bytes, bytes]]
    followed_at: int | None = None


@dataclass
class Watched:
    """The rows that were observed, collected while the log is walked."""

    wanted: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    rows: dict[tuple[str, str, int], list[WatchedRow]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _open: dict[tuple[str, str], WatchedRow] = field(default_factory=dict)

    @classmethod
    def of(cls, observations: Iterable[Observation]) -> Watched:
        watched = cls()
        for seen in observations:
            if seen.event_time is not None:
                watched.wanted[seen.source, seen.entity].add(seen.event_time)
        return watched

    def row(
        self, source: Source, entity: str, found: Accepted, stored: Mapping[int, StoredRow]
    ) -> None:
        """An accepted tick, with what is stored of it."""
        key = (source.name, entity)
        wanted = self.wanted.get(key)
        if wanted is None:
            return
        last = self._open.pop(key, None)
        if last is not None:
            last.followed_at = found.known_at
        if found.event_time not in wanted:
            return
        row = WatchedRow(found.sequence, {}, set())
        for number, each in stored.items():
            row.packed.add((number, doubles(each.features), each.status))
            for feature, value, status in zip(
                source.schemas[number], each.features, each.status, strict=False
            ):
                row.values[feature.name] = (STATUS.get(status, "?"), value)
        self._open[key] = row
        self.rows[source.name, entity, found.event_time].append(row)


def read_observations(files: Sequence[Path]) -> list[Observation]:
    """Every line of the files, in the order of the questions. Raises `NotCheckable`."""
    found = [seen for file in files for seen in _lines(file)]
    found.sort(key=lambda seen: seen.at)
    return found


def check_observations(
    observations: Sequence[Observation],
    watched: Watched,
    sources: Sequence[Source],
    behind_ns: int,
    findings: Findings,
) -> None:
    """Hold every observation against the rows. `behind_ns`: so long may `ok` be behind Kafka."""
    _steps_back(observations, findings)
    by_name = {source.name: source for source in sources}
    for seen in observations:
        findings.count(f"observations via {seen.via}")
        if seen.status is None:
            findings.count("questions without an answer")
            continue
        findings.count(f"served as {seen.status}")
        if seen.status not in OF_A_ROW and not seen.is_of_a_closed:
            continue
        if seen.event_time is None or seen.source not in by_name:
            findings.differ(
                "value without a row", f"{_told(seen)}: no event time, or no such source"
            )
            continue
        rows = watched.rows.get((seen.source, seen.entity, seen.event_time), [])
        matching = [row for row in rows if _matches(seen, row, by_name[seen.source])]
        if not matching:
            findings.differ(
                "value without a row", f"{_told(seen)}: {len(rows)} rows, of no such value"
            )
        elif seen.status == "ok" and seen.feature is not None:
            _check_ok(seen, matching, by_name[seen.source], behind_ns, findings)


def _check_ok(
    seen: Observation,
    rows: Sequence[WatchedRow],
    source: Source,
    behind_ns: int,
    findings: Findings,
) -> None:
    """`ok` is neither too old nor behind; judged at the earliest moment that it can be of."""
    assert seen.event_time is not None
    max_age = source.max_age_ns.get(f"{seen.feature}@{seen.version}")
    age = seen.at - seen.event_time
    findings.count("ok, held against age and lag")
    if max_age is not None and age > max_age:
        findings.differ(
            "stale served as ok",
            f"{_told(seen)}: {age / 1e9:.3f} s old, its max_age is {max_age / 1e9:g} s",
        )
    followed = [row.followed_at for row in rows]
    if None in followed:
        return
    behind = seen.at - max(at for at in followed if at is not None)
    if behind > behind_ns:
        findings.differ(
            "behind served as ok",
            f"{_told(seen)}: Kafka had a newer tick for {behind / 1e9:.3f} s, at most "
            f"{behind_ns / 1e9:g} s may pass",
        )


def _agrees(packed: PackedRow, row: WatchedRow, source: Source) -> bool:
    """Whether a row in a row schema that Postgres has not of the tick says the same as those."""
    features = source.schemas.get(packed.schema, ())
    if len(features) != len(packed.status):
        return False
    values = struct.unpack(f">{len(features)}d", packed.features)
    common = [
        (found, row.values[feature.name])
        for feature, *found in zip(features, packed.status, values, strict=True)
        if feature.name in row.values
    ]
    return bool(common) and all(
        STATUS.get(status, "?") == stored_status and doubles([value]) == doubles([stored_value])
        for (status, value), (stored_status, stored_value) in common
    )


def _matches(seen: Observation, row: WatchedRow, source: Source) -> bool:
    if seen.row is not None:
        try:
            packed = read_row(seen.row)
        except Corrupt:
            return False
        here = (packed.schema, packed.features, packed.status)
        if packed.sequence != row.sequence:
            return False
        return here in row.packed or _agrees(packed, row, source)
    if f"{seen.feature}@{seen.version}" not in row.values:
        # The two sinks take a new version over at moments of their own: Postgres may have the tick
        # in a row schema that lacks it.
        return source.has(f"{seen.feature}@{seen.version}")
    status, value = row.values[f"{seen.feature}@{seen.version}"]
    if seen.value is None:
        return seen.status not in WITH_VALUE and SERVED_AS.get(status, status) == seen.status
    return status == "ok" and doubles([value]) == doubles([seen.value])


def _steps_back(observations: Sequence[Observation], findings: Findings) -> None:
    """An answer that follows another one is not older, for all readers together.

    Questions that overlap may be answered in any order.
    """
    newest: dict[tuple[str, str, str], tuple[int, ...]] = {}
    answered: dict[tuple[str, str, str], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for seen in observations:
        if seen.via == COLD:
            continue
        key = (seen.via, seen.source, seen.entity)
        waiting = answered[key]
        while waiting and waiting[0][0] < seen.at:
            place = heapq.heappop(waiting)[1]
            newest[key] = max(newest.get(key, place), place)
        if seen.status == NOTHING_SEEN and not seen.is_of_a_closed:
            if key in newest:
                findings.differ(
                    "stepped back", f"{_told(seen)}: gone; {_place(newest[key])} was there"
                )
            continue
        if seen.event_time is None:
            continue
        place = (seen.event_time,) if seen.sequence is None else (seen.event_time, seen.sequence)
        findings.count("held against earlier answers", key in newest)
        if key in newest and place < newest[key]:
            findings.differ(
                "stepped back", f"{_told(seen)}: {_place(newest[key])} was there before"
            )
        heapq.heappush(waiting, (seen.until, place))


def _place(place: tuple[int, ...]) -> str:
    return " / ".join([shown_time(place[0]), *map(str, place[1:])])


def _told(seen: Observation) -> str:
    what = f" {seen.feature}@{seen.version} = {seen.value!r}" if seen.feature else ""
    when = "" if seen.event_time is None else f" of {shown_time(seen.event_time)}"
    return (
        f"{seen.reader} at {shown_time(seen.at)} via {seen.via}: {seen.source} "
        f"{shown(seen.entity)}{what} [{seen.status}]{when}"
    )


def _lines(file: Path) -> Iterator[Observation]:
    with file.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _observation(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise NotCheckable(f"{file}, line {number} is no observation: {error!r}") from None


def _observation(given: dict[str, Any]) -> Observation:
    row = given.get("row")
    return Observation(
        at=int(given["at"]),
        until=int(given["until"]),
        reader=given["reader"],
        via=given["via"],
        source=given["source"],
        entity=entity_name(given["entity"]),
        feature=given["feature"],
        version=given["version"],
        event_time=given["event_time"],
        sequence=given["sequence"],
        value=given["value"],
        status=given["status"],
        http=given["http"],
        row=None if row is None else bytes.fromhex(row),
    )
