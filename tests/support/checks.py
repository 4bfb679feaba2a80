"""Both stores held against what the raw log says, without a line of the product.

`assert_no_difference` lets `tests.checker` judge a drained run. `assert_stores_match` is for what
the checker cannot judge, and for the arithmetic: it evaluates every value exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tests.checker.arithmetic import STATUS
from tests.checker.check import Run, check
from tests.checker.findings import Findings
from tests.checker.packed import doubles, entity_name, read_row
from tests.checker.stored import OPERATIONS
from tests.oracle.features import Expected, Feature, OracleRow, Value, expect
from tests.oracle.messages import Record, SourceSpec
from tests.support.logs import POSITION_FEATURES, PRICE_FEATURES, same_double
from tests.support.pipeline import Pipeline, wait_for
from tests.support.stored import stored_rows

SPECS = {
    "price": (("symbol",), (("price", True, None), ("size", False, None)), PRICE_FEATURES),
    "volume": (
        ("symbol",),
        (("volume", True, None),),
        (Feature("current_volume", "last", 0, 1), Feature("volume_sma_10", "mean", 0, 10)),
    ),
    "position": (
        ("portfolio", "symbol"),
        (("quantity", True, None), ("multiplier", False, 1.0)),
        POSITION_FEATURES,
    ),
}


UNPUBLISHED = "SELECT 1 FROM tickwell.rejected_ticks WHERE relayed_at IS NULL LIMIT 1"


def assert_no_difference(pipeline: Pipeline, rebuilt: bool = False) -> Findings:
    """What the checker has to say of a drained run, of all its sources: nothing.

    Beside rows it proves window states, homes, watermarks, and that rejected ticks were published;
    for that the offline worker must be at work. `rebuilt` says that entities were put back into
    Redis from Postgres. Returns what was looked at.
    """
    wait_for("rejected ticks are published", lambda: not pipeline.query(UNPUBLISHED))
    settings = pipeline.settings
    run = Run(
        kafka=settings.kafka,
        redis=settings.redis,
        postgres=settings.postgres,
        rejected_topic=settings.rejected_topic,
        rebuilt=rebuilt,
    )
    findings = check(run, bars=False)
    assert findings.clean, findings.examples
    looked = findings.looked
    assert looked["rows"] - looked["rows beside others of a tick"] == looked["accepted ticks"] > 0
    assert findings.looked["window states"] == findings.looked["rows in Redis"] > 0
    return findings


def expected(
    pipeline: Pipeline,
    source: str,
    homes: Mapping[tuple[str, ...], int] | None = None,
    deleted: Sequence[Record] = (),
) -> Expected:
    """What the oracle makes of a topic's raw records, and of those that it does not hold any more.

    `deleted` may name some of those that it holds.
    """
    key, fields, features = SPECS[source]
    topic = pipeline.topic(source)
    spec = SourceSpec(
        source,
        topic,
        key,
        fields,
        positive=source == "volume",
        partitioner="murmur2",
        partitions=pipeline.topics[topic].partitions,
    )
    records = {(r.partition, r.offset): r for r in (*deleted, *pipeline.records(spec.topic))}
    return expect([records[at] for at in sorted(records)], spec, features, homes)


def assert_stores_match(pipeline: Pipeline, source: str, found: Expected) -> None:
    """Postgres has one row for each accepted tick and one for each rejected; Redis the newest."""
    topic_id = pipeline.topics[pipeline.topic(source)].topic_id
    _assert_rows(pipeline, topic_id, found)
    _assert_rejected(pipeline, topic_id, found)
    _assert_redis(pipeline, source, topic_id, found)


def _assert_rows(pipeline: Pipeline, topic_id: bytes, found: Expected) -> None:
    rows = pipeline.query(
        'SELECT partition, "offset", index, entity, event_time, sequence, tick_time, seq, op,'
        " fields, features, status, known_at, revision FROM tickwell.feature_rows"
        " WHERE topic_id = %s::uuid",
        topic_id.hex(),
    )
    wanted = {row.origin: row for rows in found.rows.values() for row in rows}
    assert len(rows) == len(wanted)
    for row in rows:
        _assert_row(row, wanted[row[0], row[1], row[2]])


def _assert_row(row: Sequence[Any], wanted: OracleRow) -> None:
    assert row[3:9] == (
        entity_name(wanted.entity),
        wanted.event_time,
        wanted.sequence,
        wanted.tick_time,
        wanted.seq,
        OPERATIONS[wanted.op],
    )
    assert all(map(same_double, row[9], wanted.fields))
    assert row[12:] == (wanted.known_at, 0)
    for value, status, exact in zip(row[10], bytes(row[11]), wanted.values, strict=True):
        assert_value(value, STATUS[status], exact)


def assert_value(value: float, status: str, exact: Value) -> None:
    """Within 1e-12 of the largest magnitude in the window."""
    if status == "undefined" and exact.status == "ok":
        assert exact.magnitude > 1e306, "only a sum past the largest double has no value"
        return
    assert status == exact.status
    if exact.value is None:
        assert math.isnan(value)
    else:
        assert abs(value - exact.value) <= 1e-12 * exact.magnitude


def _assert_rejected(pipeline: Pipeline, topic_id: bytes, found: Expected) -> None:
    rejected = pipeline.query(
        'SELECT partition, "offset", index, reason FROM tickwell.rejected_ticks'
        " WHERE topic_id = %s::uuid",
        topic_id.hex(),
    )
    assert {row[:3]: row[3] for row in rejected} == found.rejected


def _assert_redis(pipeline: Pipeline, source: str, topic_id: bytes, found: Expected) -> None:
    names = [entity_name(entity) for entity in found.rows]
    stored = {
        (entity, schema): (doubles(values), bytes(status))
        for entity, schema, values, status in pipeline.query(
            "SELECT DISTINCT ON (entity, schema_id) entity, schema_id, features, status"
            " FROM tickwell.feature_rows WHERE entity = ANY (%s)"
            " ORDER BY entity, schema_id, event_time DESC, sequence DESC",
            names,
        )
    }
    with pipeline.redis() as client:
        packed = stored_rows(client, source, names)
    for name, bits, rows in zip(names, packed, found.rows.values(), strict=True):
        newest = rows[-1]
        assert bits is not None, f"{name} is not in Redis"
        served = read_row(bits)
        assert served.origin == (topic_id, *newest.origin)
        assert (served.event_time, served.sequence) == (newest.event_time, newest.sequence)
        assert (served.features, served.status) == stored[name, served.schema]
