"""Repairs held against the log: history is what a list of ticks gives that was edited by hand."""

from __future__ import annotations

import json
import math
from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.checker.arithmetic import STATUS, explain
from tests.checker.findings import Findings
from tests.checker.packed import shown
from tests.checker.rows import Kept, Walked
from tests.checker.training_sets import window_at
from tests.oracle.features import Origin

CANCELLED = 3

EDITS = """
SELECT edit.partition, edit."offset", edit.index, edit.kind, edit.outcome, repairs.known_at
FROM tickwell.repair_edits AS edit
JOIN tickwell.repairs ON repairs.id = edit.repair
JOIN tickwell.rejected_ticks AS sent USING (topic_id, partition, "offset", index)
WHERE repairs.source = %s
ORDER BY repairs.known_at, sent.known_at, edit.partition, edit."offset", edit.index
"""
UNFINISHED = "SELECT count(*) FROM tickwell.repairs WHERE finished_at IS NULL"
REVISIONS = """
SELECT DISTINCT ON (entity, event_time, sequence)
    entity, event_time, sequence, schema_id, op, fields, features, status
FROM tickwell.feature_rows
WHERE revision > 0 AND schema_id = ANY (%s)
ORDER BY entity, event_time, sequence, known_at DESC, revision DESC, schema_id DESC
"""

Key = tuple[int, int]


class Revision(NamedTuple):
    """The newest revision of a tick."""

    schema: int
    op: int
    fields: Sequence[float]
    features: Sequence[float]
    status: bytes


def check_repaired(connection: Any, walked: Walked, findings: Findings) -> None:
    """All revisions of a source; its repairs are settled."""
    name = walked.source.name
    with connection.cursor() as cursor:
        cursor.execute(UNFINISHED)
        ((unfinished,),) = cursor.fetchall()
        cursor.execute(EDITS, (name,))
        edits = cursor.fetchall()
        cursor.execute(REVISIONS, (sorted(walked.source.schemas),))
        revisions: dict[str, dict[Key, Revision]] = {}
        for entity, time, sequence, schema, op, fields, features, status in cursor.fetchall():
            made = Revision(schema, op, fields, features, bytes(status))
            revisions.setdefault(entity, {})[time, sequence] = made
    if unfinished:
        findings.differ("repair", f"{unfinished} repairs are not finished")
    if not edits:
        return
    taken = {(partition, offset, index) for partition, offset, index, *_ in edits}
    for origin in walked.late - taken:
        findings.differ("repair", f"{name}: the late tick at {origin} was not taken")
    by_entity: dict[str, list[tuple[Origin, str, str]]] = {}
    for partition, offset, index, kind, outcome, _ in edits:
        origin = (partition, offset, index)
        entity = _text_of(walked, origin)["symbol"]
        by_entity.setdefault(entity, []).append((origin, kind, outcome))
    for entity in by_entity.keys() | revisions.keys():
        ticks = _edited(walked, entity, by_entity.get(entity, ()), findings)
        _compare(walked, entity, ticks, revisions.get(entity, {}), findings)


def _text_of(walked: Walked, origin: Origin) -> Any:
    return json.loads(walked.texts[origin])


def _edited(
    walked: Walked,
    entity: str,
    edits: Sequence[tuple[Origin, str, str]],
    findings: Findings,
) -> dict[Key, Kept]:
    """The ticks of an entity after its edits, cancelled ones among them, in their order."""
    ticks = {(one.event_time, one.sequence): one for one in walked.kept.get(entity, [])}
    times = sorted(ticks)
    by_name: dict[tuple[int, int | None], list[Key]] = {}
    for key, one in ticks.items():
        by_name.setdefault((one.tick_time, one.seq), []).append(key)
    for origin, kind, outcome in edits:
        sent = _text_of(walked, origin)
        named = sent if kind == "insert" else sent["of"]
        time, seq = named["ts"] * 10**6, named.get("seq")
        keys = [] if seq is None else by_name.get((time, seq), [])
        if kind == "insert":
            possible = not keys
        else:
            possible = len(keys) == 1 and ticks[keys[0]].op != "cancelled"
        findings.count(f"edits of kind {kind}")
        if possible != (outcome == "made"):
            findings.differ("repair", f"{kind} at {origin} of {entity}: {outcome}; {named}")
        if outcome != "made" or not possible:
            findings.count("edits that could not be made")
            continue
        if kind == "insert":
            before = [s for t, s in times if t == time] if (time, 0) in ticks else []
            key = time, max(before, default=-1) + 1
            op = sent.get("op", "trade")
            fields = (float(sent["price"]), float(sent.get("size", math.nan)))
            fields = fields if op == "trade" else (math.nan, math.nan)
            ticks[key] = Kept(*key, 0, op, fields, time, seq)
            by_name.setdefault((time, seq), []).append(key)
            insort(times, key)
        elif kind == "cancel":
            ticks[keys[0]] = ticks[keys[0]]._replace(op="cancelled")
        else:
            fields = (float(sent["price"]), float(sent.get("size", math.nan)))
            ticks[keys[0]] = ticks[keys[0]]._replace(fields=fields)
    return {key: ticks[key] for key in times}


def _compare(
    walked: Walked,
    entity: str,
    ticks: Mapping[Key, Kept],
    revisions: Mapping[Key, Revision],
    findings: Findings,
) -> None:
    counting = [one for one in ticks.values() if one.op != "cancelled"]
    numbers = {(one.event_time, one.sequence): n for n, one in enumerate(counting)}
    served = walked.kept.get(entity, [])
    was = {(one.event_time, one.sequence): n for n, one in enumerate(served)}
    depth = walked.source.depth
    for key in revisions.keys() - ticks.keys():
        findings.differ("revision", f"{shown(entity)} {key}: no edit explains {revisions[key]}")
    for key, one in ticks.items():
        revision = revisions.get(key)
        if one.op == "cancelled":
            if revision is None or revision.op != CANCELLED:
                findings.differ("revision", f"{shown(entity)} {key}: cancelled, yet {revision}")
            continue
        now = window_at(counting, numbers[key], depth)
        if revision is None:
            then = window_at(served, was[key], depth) if key in was else None
            if _differs(walked, now, then):
                findings.differ("revision", f"{shown(entity)} {key}: it has none, and needs one")
            continue
        findings.count("newest revisions")
        if _bits(revision.fields) != _bits(one.fields):
            told = f"{shown(entity)} {key}: fields {revision.fields}, must be {one.fields}"
            findings.differ("revision", told)
        features = walked.source.schemas[revision.schema]
        for feature, value, status in zip(
            features, revision.features, revision.status, strict=True
        ):
            wrong, _ = explain(feature, now[0], value, STATUS.get(status, "?"), now[1])
            findings.count("values of revisions")
            if wrong is not None:
                findings.differ("revision", f"{shown(entity)} {key} {feature.name}: {wrong}")


Window = tuple[list[tuple[float, ...]], bool]


def _differs(walked: Walked, now: Window, then: Window | None) -> bool:
    """Whether some feature of the newest row schema has other values in its window."""
    if then is None:
        return True
    newest = walked.source.schemas[max(walked.source.schemas)]
    for feature in newest:
        one, other = (
            [fields[feature.field] for fields in window[-feature.depth :]]
            for window, _ in (now, then)
        )
        if _bits(one) != _bits(other) and feature.function == "last":
            return True
        if feature.function != "last" and sorted(one) != sorted(other):
            wholes = len(one) == feature.depth or len(other) == feature.depth
            if wholes and not any(map(math.isnan, [*one, *other])):
                return feature.function == "mean" and math.fsum(one) != math.fsum(other)
    return False


def _bits(values: Sequence[float]) -> list[str]:
    return ["nan" if value != value else float(value).hex() for value in values]
