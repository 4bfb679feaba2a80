"""What the checker knows after the walk of a log, and a Redis that holds what must come of it.

The Redis is written by the layouts of `registry.formats`, which the checker does not know.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry.formats.entity_name import entity_id, key_values
from registry.formats.last_close import LAST_CLOSE
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    chunk_field,
    chunks_key,
    closed_key,
    groups_of,
    members_key,
    watermark_key,
)
from registry.formats.row import Row, pack
from registry.formats.state import BLOCK, CLOSED, LAYOUT_VERSION, STATE_HEADER, tail_of
from tests.checker.rows import Newest, Walked
from tests.checker.sources import Declared, Source
from tests.checker.stored import OPERATIONS, StoredRow
from tests.checker.topics import Topic
from tests.oracle.features import Accepted, Feature, Log
from tests.oracle.messages import Record, SourceSpec
from tests.support.stored import hash_of, store_row, store_state

NOW_MS = 1_700_000_000_000
DEPTH = 10
HISTORY = 64
"""Ticks of an entity that the sources keep."""

SCHEMA = 3
TICKS = {"A": 200, "B": 8, "C": 9, "Ü": 1, "P1/A": 3, "P1/B": 2, "P2/A": 1, "P2/B": 20}
"""How many ticks each entity has; the last one of those in `CLOSED_ONES` closes it."""

CLOSED_ONES = ("P1/A", "P2/A", "P2/B")
CHUNK_SIZES = (1, 3, 2, 5)
"""Blocks of the chunks, in turn, newest first."""

KEPT_BLOCKS = 22
"""Blocks before the tail that are kept, at least."""

NO_SEQ = -(2**63)
Ticks = Mapping[str, list[tuple[int, int, tuple[float, ...]]]]
"""The ticks of each entity: the time that it carried, its seq, its fields."""


def walked_log() -> tuple[dict[str, Walked], Ticks]:
    """A walk without differences of two sources, `price` and `position`."""
    ticks: dict[str, list[tuple[int, int, tuple[float, ...]]]] = defaultdict(list)
    found = {}
    for number, (name, key) in enumerate(
        {"price": ("symbol",), "position": ("portfolio", "symbol")}.items()
    ):
        spec = SourceSpec(name, name, key, (("size", False, None), ("price", False, 1.0)))
        features = (Feature("last@1", "last", 0, 1), Feature("mean@1", "mean", 0, DEPTH))
        source = Source(spec, [Declared(spec, {})], {SCHEMA: features}, {}, HISTORY)
        records = list(_records(spec))
        topic = Topic(name, bytes([number]) * 16, (0,), (len(records),))
        walked = found[name] = Walked(source, topic)
        log = Log(lambda record, spec=spec: spec, remembered=DEPTH)  # type: ignore[misc]
        for record in records:
            for accepted in log.take(record):
                assert isinstance(accepted, Accepted), accepted
                entity, tick = entity_id(accepted.entity), accepted.tick
                walked.newest[entity] = _newest(accepted, entity)
                seq = NO_SEQ if tick.seq is None else tick.seq
                ticks[entity].append((tick.tick_time, seq, tick.fields))
    return found, ticks


def store(client: Any, walked: Mapping[str, Walked], ticks: Ticks) -> None:
    """Puts what must come of a walk into a Redis, single or a cluster."""
    for source, each in walked.items():
        client.set(watermark_key(each.topic.topic_id, 0), each.topic.ends[0])
        for entity, newest in each.newest.items():
            store_row(client, source, entity, _row(each, newest))
            state, chunks = _packed(each, newest, ticks[entity])
            store_state(client, source, entity, state)
            for block, chunk in chunks.items():
                hash_name = hash_of(client, chunks_key, source, entity)
                client.hset(hash_name, chunk_field(entity, block), chunk)
            message_key, *member = key_values(entity)
            if not member:
                continue
            if not newest.state.closed:
                client.sadd(members_key(source, message_key), entity_id(member))
            else:
                packed = LAST_CLOSE.struct.pack(newest.event_time) + entity_id(member).encode()
                for group in groups_of(entity):
                    client.set(closed_key(source, group), packed)


def _records(spec: SourceSpec) -> Iterator[Record]:
    """The ticks of a source's entities, those of an entity one behind the other."""
    offset = 0
    for name, count in TICKS.items():
        entity = name.split("/")
        if len(entity) != len(spec.key):
            continue
        for number in range(count):
            tick: dict[str, Any] = dict(zip(spec.key, entity, strict=True))
            tick |= {"ts": NOW_MS + offset // 2, "size": number / 3}
            if number % 2:
                tick["seq"] = number
            if name in CLOSED_ONES and number == count - 1:
                tick["op"] = "close"
                del tick["size"]
            value = json.dumps(tick, ensure_ascii=False).encode()
            yield Record(spec.topic, 0, offset, NOW_MS + offset, entity[0].encode(), value)
            offset += 1


def _newest(accepted: Accepted, entity: str) -> Newest:
    tick, state = accepted.tick, accepted.state
    status = bytes([3 if state.closed else 0]) * 2
    values = (float("nan"),) * 2 if state.closed else (tick.fields[0], tick.fields[0] / 7)
    row = StoredRow(
        accepted.origin,
        *(SCHEMA, 0, entity, accepted.event_time, accepted.sequence, tick.tick_time, tick.seq),
        OPERATIONS[tick.op],
        tick.fields,
        values,
        status,
        accepted.known_at,
        None,
    )
    return Newest(
        *(accepted.event_time, accepted.sequence, accepted.known_at, accepted.origin, tick),
        state,
        {SCHEMA: row},
    )


def _origin(walked: Walked, newest: Newest) -> Origin:
    return Origin(walked.topic.topic_id, *newest.origin)


def _row(walked: Walked, newest: Newest) -> bytes:
    stored = newest.rows[SCHEMA]
    return pack(
        Row(
            *(SCHEMA, newest.event_time, newest.sequence, newest.known_at),
            _origin(walked, newest),
            stored.status,
            tuple(stored.features),
        )
    )


def _packed(
    walked: Walked,
    newest: Newest,
    ticks: Sequence[tuple[int, int, tuple[float, ...]]],
) -> tuple[bytes, dict[int, bytes]]:
    """The state of an entity, and its chunks by the block before which they end."""
    packed = [struct.pack("<qqdd", time, seq, *fields) for time, seq, fields in ticks]
    count, origin = len(ticks), _origin(walked, newest)
    tail = tail_of(count)
    block, chunks, sizes = (count - tail) // BLOCK, {}, iter(CHUNK_SIZES * count)
    first_block = max(block - KEPT_BLOCKS, 0)
    while block > first_block:
        begin = max(block - next(sizes), 0)
        chunks[block] = b"".join(packed[begin * BLOCK : block * BLOCK])
        block = begin
    header = STATE_HEADER.struct.pack(
        *(origin.topic_id, origin.partition, origin.offset, origin.index),
        *(count, newest.sequence, newest.event_time),
        CLOSED if newest.state.closed else newest.state.fill,
        *(first_block, 0, 2, LAYOUT_VERSION, b""),
    )
    return header + b"".join(packed[count - tail :]), chunks
