"""One topic's log held against its rows and rejected ticks in Postgres, side by side.

Log and tables are walked in the same order, so that memory holds what is known of each entity and
no tick twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.checker.arithmetic import STATUS, explain
from tests.checker.findings import Findings, shown_time
from tests.checker.observations import Watched
from tests.checker.packed import entity_name, groups_of, shown, split_member
from tests.checker.relayed import Relayed
from tests.checker.sources import Source
from tests.checker.stored import (
    OPERATIONS,
    InOrder,
    StoredRow,
    homes,
    partitions,
    stored_rejections,
    stored_rows,
)
from tests.checker.topics import Message, Topic
from tests.oracle.features import Accepted, Entity, Log, Origin, Rejected
from tests.oracle.messages import Record, SourceSpec, Tick, texts

NAN = float("nan")
LATE = "late"
EDITS = (LATE, "unsupported-op", "malformed")
"""The reasons of rejected ticks that a repair may let in, or carry out."""


@dataclass
class Newest:
    """An entity after its last tick: that tick, what is remembered, and its rows by schema."""

    event_time: int
    sequence: int
    known_at: int
    origin: Origin
    tick: Tick
    state: Entity
    rows: Mapping[int, StoredRow]


class Kept(NamedTuple):
    """A tick of an entity, for what asks about more than the newest ones."""

    event_time: int
    sequence: int
    known_at: int
    op: str
    fields: tuple[float, ...]
    tick_time: int
    seq: int | None


@dataclass
class Walked:
    """What a topic's walk leaves for the check of Redis, and of history where it `keeps` that.

    `kept` are all ticks of each entity in the order of its log, `texts` the bytes of rejected ticks
    by their origins, of which `late` came late.
    """

    source: Source
    topic: Topic
    newest: dict[str, Newest] = field(default_factory=dict)
    keeps: bool = False
    kept: dict[str, list[Kept]] = field(default_factory=dict)
    texts: dict[Origin, bytes] = field(default_factory=dict)
    late: set[Origin] = field(default_factory=set)

    @property
    def members(self) -> dict[str, set[str]]:
        """The open entities under each message key, where the key is not all of an entity."""
        found: dict[str, set[str]] = {}
        for entity, newest in self.newest.items():
            message_key, member = split_member(entity)
            if member:
                members = found.setdefault(message_key, set())
                members.update([] if newest.state.closed else [member])
        return found

    @property
    def groups(self) -> dict[str, list[str]]:
        """The entities of each group that sums are over: whose names begin alike."""
        found: dict[str, list[str]] = {}
        for entity in self.newest:
            for group in groups_of(entity):
                found.setdefault(group, []).append(entity)
        return found


def walk(
    walked: Walked,
    messages: Iterable[Message],
    connection: Any,
    relayed: Relayed,
    watched: Watched,
    findings: Findings,
) -> None:
    """Hold every record of a topic against Postgres."""
    source, topic = walked.source, walked.topic
    at_home = {
        tuple(name.split("\x1f")): partition
        for name, partition in homes(connection, source.name, topic.topic_id).items()
    }
    number = partitions(connection, topic.topic_id)
    spec_at = source.spec_at(topic.topic_id, number or len(topic.begins))
    log = Log(spec_at, at_home, source.depth)
    side = _SideBySide(walked, connection, relayed, watched, findings)
    for message in messages:
        record = message.record
        findings.count("records")
        for found in log.take(record):
            if isinstance(found, Accepted):
                side.accepted(found)
            else:
                side.rejected(found, record, spec_at(record))
    side.end()
    _compare_homes(source.name, log, at_home, findings)


def _compare_homes(
    source: str, log: Log, at_home: Mapping[tuple[str, ...], int], findings: Findings
) -> None:
    """The homes in Postgres beside those of the log."""
    for key, partition in at_home.items():
        findings.count("homes")
        entity = log.entities.get(key)
        if entity is None or entity.home != partition:
            name = shown(entity_name(key))
            findings.differ(
                "home", f"{source} {name}: at home in {partition}, without a tick there"
            )
    for key in log.entities.keys() - at_home.keys():
        findings.differ("home", f"{source} {shown(entity_name(key))}: no home is recorded")


class _SideBySide:
    """The step of a walk: what came of a tick, and what is stored at its origin."""

    def __init__(
        self,
        walked: Walked,
        connection: Any,
        relayed: Relayed,
        watched: Watched,
        findings: Findings,
    ) -> None:
        topic_id = walked.topic.topic_id
        self._walked = walked
        self._rows = InOrder(stored_rows(connection, topic_id))
        self._rejections = InOrder(stored_rejections(connection, topic_id))
        self._relayed = relayed
        self._watched = watched
        self._findings = findings

    def accepted(self, found: Accepted) -> None:
        """A tick that counts has one row of a schema, and is not among the rejected."""
        self._unexplained(found.origin)
        name = entity_name(found.entity)
        by_schema: dict[int, StoredRow] = {}
        for row in self._rows.at(found.origin):
            if row.schema not in self._walked.source.schemas:
                self._differ("unexplained row", row.origin, f"its schema {row.schema} is not ours")
            elif row.revision:
                self._findings.count("repaired rows")
            elif row.schema in by_schema:
                self._differ(
                    "row twice", row.origin, f"{_shown(by_schema[row.schema])} and {_shown(row)}"
                )
            else:
                by_schema[row.schema] = row
                self._compare(found, name, row)
        if not by_schema:
            self._differ(
                "row lost",
                found.origin,
                f"{shown(name)} at {shown_time(found.event_time)} has no row",
            )
        if len(by_schema) > 1:
            self._findings.count("rows beside others of a tick", len(by_schema) - 1)
        for stored in self._rejections.at(found.origin):
            self._differ(
                "accepted and rejected", found.origin, f"{shown(name)}: stored as {stored.reason}"
            )
        self._findings.count("accepted ticks")
        self._watched.row(self._walked.source, name, found, by_schema)
        if self._walked.keeps:
            tick = found.tick
            self._walked.kept.setdefault(name, []).append(
                Kept(
                    *(found.event_time, found.sequence, found.known_at, tick.op, tick.fields),
                    *(tick.tick_time, tick.seq),
                )
            )
        self._walked.newest[name] = Newest(
            found.event_time,
            found.sequence,
            found.known_at,
            found.origin,
            found.tick,
            found.state,
            by_schema,
        )

    def rejected(self, found: Rejected, record: Record, spec: SourceSpec) -> None:
        """A rejected tick is stored once, with its bytes, and was relayed."""
        self._unexplained(found.origin)
        for row in self._rows.at(found.origin):
            if row.revision and found.reason in EDITS:
                self._findings.count("repaired rows")
                continue
            self._differ(
                "unexplained row", found.origin, f"the tick is {found.reason}, yet {_shown(row)}"
            )
        value = texts(record, spec)[found.origin[2]]
        if self._walked.keeps and value is not None and found.reason in EDITS:
            self._walked.texts[found.origin] = value
            if found.reason == LATE:
                self._walked.late.add(found.origin)
        stored = self._rejections.at(found.origin)
        self._findings.count("rejected ticks")
        self._findings.count(f"rejected as {found.reason}")
        self._relayed.expect(self._walked.topic, found, value)
        if not stored:
            self._differ("rejected tick lost", found.origin, f"{found.reason}: {value!r:.80}")
            return
        wanted = (found.reason, record.key, value, record.timestamp_ms * 10**6)
        kept = (stored[0].reason, stored[0].key, stored[0].value, stored[0].known_at)
        for name, one, other in zip(
            ("reason", "key", "value", "known_at"), kept, wanted, strict=True
        ):
            if one != other:
                self._differ(
                    "rejected tick differs",
                    found.origin,
                    f"{name} is {one!r:.80}, must be {other!r:.80}",
                )

    def end(self) -> None:
        """After the last record nothing may be left."""
        self._unexplained(None)

    def _unexplained(self, origin: Origin | None) -> None:
        for row in self._rows.before(origin):
            self._differ("unexplained row", row.origin, f"no tick is there, yet {_shown(row)}")
        for stored in self._rejections.before(origin):
            self._differ("unexplained rejection", stored.origin, f"{stored.reason}, but no tick")

    def _compare(self, found: Accepted, name: str, row: StoredRow) -> None:
        self._findings.count("rows")
        tick = found.tick
        wanted = {
            "entity": name,
            "event_time": found.event_time,
            "sequence": found.sequence,
            "tick_time": tick.tick_time,
            "seq": tick.seq,
            "seq_text": tick.seq_text,
            "op": OPERATIONS[tick.op],
            "known_at": found.known_at,
            "fields": _bits(tick.fields),
        }
        for column, value in wanted.items():
            kept = getattr(row, column)
            if (_bits(kept) if column == "fields" else kept) != value:
                self._differ(
                    "row differs",
                    row.origin,
                    f"{shown(name)}: {column} is {kept!r}, must be "
                    f"{tick.fields if column == 'fields' else value!r}",
                )
        features = self._walked.source.schemas[row.schema]
        if not len(features) == len(row.features) == len(row.status):
            self._differ(
                "row differs", row.origin, f"{len(row.features)} of {len(features)} values"
            )
            return
        for feature, value, status in zip(features, row.features, row.status, strict=True):
            state, told = found.state, STATUS.get(status, "?")
            wrong, exactly = explain(feature, state.window, value, told, state.closed)
            self._findings.count("feature values")
            self._findings.count("in exact arithmetic", exactly)
            if wrong is not None:
                self._differ("value differs", row.origin, f"{shown(name)} {feature.name}: {wrong}")

    def _differ(self, kind: str, origin: Origin, explanation: str) -> None:
        partition, offset, index = origin
        place = f"{self._walked.topic.name}[{partition}] offset {offset}" + (
            f"/{index}" if index else ""
        )
        self._findings.differ(kind, f"{place}: {explanation}")


def _shown(row: StoredRow) -> str:
    return (
        f"{shown(row.entity)} has the row {shown_time(row.event_time)} / {row.sequence} "
        f"of schema {row.schema}"
    )


def _bits(values: Any) -> bytes:
    """The bits of doubles, any NaN as one."""
    return struct.pack(f"<{len(values)}d", *(NAN if value != value else value for value in values))


def rows_expected(walked: Mapping[str, Walked]) -> Iterator[tuple[Walked, str, Newest]]:
    """Every entity of every source."""
    for each in walked.values():
        for entity, newest in each.newest.items():
            yield each, entity, newest
