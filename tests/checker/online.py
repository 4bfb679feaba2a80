"""Redis held against what the log and Postgres say: rows, window states, members, watermarks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from tests.checker.findings import Findings, shown_time
from tests.checker.packed import (
    CLOSED_FILL,
    Corrupt,
    PackedRow,
    PackedState,
    closed_key,
    doubles,
    little_doubles,
    members_key,
    read_close,
    read_row,
    read_state,
    row_key,
    shown,
    split_member,
    state_key,
    watermark_key,
)
from tests.checker.rows import Newest, Walked, rows_expected
from tests.checker.topics import Topic

AT_ONCE = 200
KEY = re.compile(r"tw:\{b\d+\}:(?:row|state|members|closed):([^:]+):.*", re.DOTALL)


def check_redis(
    client: Any,
    walked: Mapping[str, Walked],
    history: int,
    findings: Findings,
    progress: Callable[[int], None],
) -> None:
    """Each entity's row is its newest one to the bit, and nothing is there that no tick explains.

    `history` is how many ticks a ring has room for that does not say it.
    """
    check = _Redis(client, history, findings)
    entities = rows_expected(walked)
    while group := list(islice(entities, AT_ONCE)):
        check.entities(group)
        progress(len(group))
    for each in walked.values():
        check.members(each)
        check.closes(each)
    check.nothing_else(walked)


def check_watermarks(
    what: str, stored: Mapping[int, int], topic: Topic, findings: Findings
) -> None:
    """A store's watermark of each partition is at its end; an empty partition needs none."""
    for partition, end in enumerate(topic.ends):
        findings.count(f"watermarks in {what}")
        if stored.get(partition, 0) != end:
            findings.differ(
                "watermark",
                f"{what}, {topic.name}[{partition}]: at {stored.get(partition)}, must be at the "
                f"end {end}",
            )


def redis_watermarks(client: Any, topic: Topic) -> dict[int, int]:
    """The next offset of each partition."""
    keys = [watermark_key(topic.topic_id, number) for number in range(len(topic.ends))]
    return {n: int(at) for n, at in enumerate(client.mget(keys)) if at is not None}


class _Redis:
    def __init__(self, client: Any, history: int, findings: Findings) -> None:
        self._client = client
        self._history = history
        self._findings = findings

    def entities(self, group: Sequence[tuple[Walked, str, Newest]]) -> None:
        rows = self._client.mget([row_key(w.source.name, entity) for w, entity, _ in group])
        states = self._client.mget([state_key(w.source.name, entity) for w, entity, _ in group])
        for (walked, entity, newest), row, state in zip(group, rows, states, strict=True):
            where = f"{walked.source.name} {shown(entity)}"
            self._findings.count("rows in Redis")
            if row is None or state is None:
                self._findings.differ(
                    "missing in Redis", f"{where}: no {'row' if row is None else 'state'}"
                )
                continue
            try:
                self._row(where, walked, newest, read_row(row))
                self._state(where, walked, newest, read_state(state, self._history))
            except Corrupt as why:
                self._findings.differ("corrupt in Redis", f"{where}: {why}")

    def _row(self, where: str, walked: Walked, newest: Newest, row: PackedRow) -> None:
        wanted = (newest.event_time, newest.sequence, newest.known_at)
        origin = (walked.topic.topic_id, *newest.origin)
        if (row.event_time, row.sequence, row.known_at) != wanted or row.origin != origin:
            self._findings.differ(
                "Redis is not the newest row",
                f"{where}: {shown_time(row.event_time)} / {row.sequence} of offset {row.origin[2]},"
                f" must be {shown_time(wanted[0])} / {wanted[1]} of offset {newest.origin[1]}",
            )
            return
        stored = newest.rows.get(row.schema)
        if stored is None:
            self._findings.differ(
                "Redis is not the newest row", f"{where}: schema {row.schema}, not in Postgres"
            )
        elif (row.features, row.status) != (doubles(stored.features), stored.status):
            self._findings.differ(
                "bits differ",
                f"{where} at {shown_time(row.event_time)}: {row.features.hex()} in Redis, "
                f"{doubles(stored.features).hex()} in Postgres",
            )

    def _state(self, where: str, walked: Walked, newest: Newest, state: PackedState) -> None:
        self._findings.count("window states")
        known = newest.state
        for name, kept, wanted in (
            ("origin", state.origin, (walked.topic.topic_id, *newest.origin)),
            ("sequence", state.sequence, newest.sequence),
            ("count", state.count, known.accepted),
            ("fill", state.fill, CLOSED_FILL if known.closed else known.fill),
        ):
            if kept != wanted:
                self._findings.differ(
                    "window state", f"{where}: {name} {kept!r}, must be {wanted!r}"
                )
                return
        fields = len(walked.source.spec.fields)
        for back, (tick_time, seq) in enumerate(reversed(known.seen)):
            tick = state.tick(back, fields)
            self._findings.count("remembered ticks")
            values = known.window[-1 - back] if back < len(known.window) else None
            if (tick.tick_time, tick.seq) != (tick_time, seq) or (
                values is not None and tick.fields != little_doubles(values)
            ):
                self._findings.differ(
                    "window state",
                    f"{where}: tick {state.count - 1 - back} is {tick.tick_time}, {tick.seq}; must "
                    f"be {tick_time}, {seq}, {values}",
                )

    def members(self, walked: Walked) -> None:
        for message_key, wanted in walked.members.items():
            found = self._client.smembers(members_key(walked.source.name, message_key))
            names = {member.decode() for member in found}
            self._findings.count("members", len(names))
            if names != wanted:
                self._findings.differ(
                    "members",
                    f"{walked.source.name} {message_key}: without {sorted(wanted - names)}, "
                    f"and with {sorted(names - wanted)} that are closed or have no tick",
                )

    def closes(self, walked: Walked) -> None:
        """Where nothing of a group is open its last close is the newest one, else no older one."""
        for group, entities in walked.groups.items():
            where = f"{walked.source.name} {shown(group)}"
            closed = [e for e in entities if walked.newest[e].state.closed]
            latest = max((walked.newest[e].event_time for e in closed), default=0)
            packed = self._client.get(closed_key(walked.source.name, group))
            if packed is None:
                if closed:
                    self._findings.differ("last close", f"{where}: none, and something is closed")
                continue
            self._findings.count("last closes")
            try:
                time, entity = read_close(packed, split_member(group)[0])
            except Corrupt as why:
                self._findings.differ("corrupt in Redis", f"{where}: {why}")
                continue
            known = walked.newest.get(entity)
            seen = known is not None and time <= known.event_time
            exact = len(closed) == len(entities) or entity in closed
            if not seen or time < latest or (exact and time != latest):
                self._findings.differ(
                    "last close",
                    f"{where}: {shown(entity)} at {shown_time(time)}, must be one at "
                    f"{shown_time(latest)}",
                )

    def nothing_else(self, walked: Mapping[str, Walked]) -> None:
        wanted = set(_keys(walked))
        for packed in self._client.scan_iter(match="tw:{*", count=1000):
            key = packed.decode("utf-8", "replace")
            match = KEY.fullmatch(key)
            if match is not None and match[1] in walked and key not in wanted:
                self._findings.differ("unexplained in Redis", key)


def _keys(walked: Mapping[str, Walked]) -> Iterator[str]:
    for each, entity, _ in rows_expected(walked):
        yield row_key(each.source.name, entity)
        yield state_key(each.source.name, entity)
    for each in walked.values():
        for message_key in each.members:
            yield members_key(each.source.name, message_key)
        for group in each.groups:
            yield closed_key(each.source.name, group)
