"""The checker's reading of Redis: what must be there passes, and each kind of fault is found."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import redis

from registry.formats.last_close import LAST_CLOSE
from registry.formats.redis_keys import (
    chunk_field,
    chunks_key,
    closed_key,
    members_key,
    rows_key,
    states_key,
    watermark_key,
)
from registry.formats.row import HEADER
from registry.formats.state import STATE_HEADER
from tests.checker.findings import Findings
from tests.checker.online import check_redis, check_watermarks, redis_watermarks
from tests.support.cluster import Cluster
from tests.support.stored import (
    forget,
    hash_of,
    store_row,
    store_state,
    stored_chunks,
    stored_row,
    stored_state,
)
from tests.support.walked import TICKS, store, walked_log

WALKED, LOG = walked_log()
TICK = 32
"""Bytes of a tick of two fields."""


@pytest.fixture(params=["single", "cluster"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A Redis of either kind that holds what it must."""
    if request.param == "single":
        url = request.getfixturevalue("redis_database")
        connected: Any = redis.Redis.from_url(url)
    else:
        three: Cluster = request.getfixturevalue("three")
        connected = redis.RedisCluster.from_url(three.url)
        connected.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
    with connected:
        store(connected, WALKED, LOG)
        yield connected


def found(client: Any, rebuilt: bool = False) -> Findings:
    findings = Findings()
    steps: list[int] = []
    check_redis(client, WALKED, findings, steps.append, rebuilt)
    assert sum(steps) == len(TICKS)
    for walked in WALKED.values():
        check_watermarks("Redis", redis_watermarks(client, walked.topic), walked.topic, findings)
    return findings


def test_what_must_be_there_is_clean(client: Any) -> None:
    findings = found(client)
    assert findings.examples == {}
    looked = findings.looked
    assert looked["rows in Redis"] == looked["window states"] == len(TICKS)
    assert looked["remembered ticks"] == sum(min(count, 64) for count in TICKS.values())
    assert looked["chunks"] == sum(
        len(stored_chunks(client, source, entity))
        for source, walked in WALKED.items()
        for entity in walked.newest
    )
    assert looked["chunks"] > 5
    assert (looked["members"], looked["last closes"]) == (1, 2)
    assert looked["watermarks in Redis"] == 2


def changed(packed: bytes, first: int, value: bytes) -> bytes:
    assert packed[first : first + len(value)] != value
    return packed[:first] + value + packed[first + len(value) :]


def state_field(name: str, value: int) -> Callable[[bytes], bytes]:
    """A state in which a field of the header has another value."""
    codes = {"partition": "i", "fill": "i", "first_block": "I", "serial": "I"}
    codes |= {"fields": "B", "layout_version": "B", "unused": "H"}
    packed = struct.pack(f">{codes.get(name, 'q')}", value)
    return lambda state: changed(state, STATE_HEADER.offset(name), packed)


def row_field(name: str, packed: bytes) -> Callable[[bytes], bytes]:
    return lambda row: changed(row, HEADER.offset(name), packed)


NEWEST = WALKED["price"].newest["A"]

OF_ROWS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "of another topic": ("Redis is not the newest row", row_field("topic_id", bytes([9] * 16))),
    "of an earlier tick": (
        "Redis is not the newest row",
        row_field("offset", struct.pack(">q", NEWEST.origin[1] - 1)),
    ),
    "of another time": ("Redis is not the newest row", row_field("event_time", bytes(8))),
    "of another sequence": (
        "Redis is not the newest row",
        row_field("sequence", struct.pack(">q", 5)),
    ),
    "known at another time": ("Redis is not the newest row", row_field("known_at", bytes(8))),
    "of a schema without a row": (
        "Redis is not the newest row",
        row_field("schema_id", struct.pack(">I", 4)),
    ),
    "a bit of a value": ("bits differ", lambda row: row[:-1] + bytes([row[-1] ^ 1])),
    "a status": ("bits differ", lambda row: changed(row, HEADER.size, b"\x01")),
    "cut": ("corrupt in Redis", lambda row: row[:-1]),
    "of another layout": ("corrupt in Redis", row_field("layout_version", b"\x02")),
}


@pytest.mark.parametrize(("kind", "change"), OF_ROWS.values(), ids=OF_ROWS.keys())
def test_a_row_that_is_not_the_newest_is_found(
    client: Any, kind: str, change: Callable[[bytes], bytes]
) -> None:
    store_row(client, "price", "A", change(stored_row(client, "price", "A")))
    assert found(client).differences == {kind: 1}


OF_STATES: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "of another home": ("window state", state_field("partition", 1)),
    "of another tick": ("window state", state_field("offset", 1)),
    "sequence": ("window state", state_field("sequence", 7)),
    "event time": ("window state", state_field("event_time", 7)),
    "a block more": ("window state", state_field("count", 208)),
    "fill": ("window state", state_field("fill", 201)),
    "open": ("window state", state_field("fill", -1)),
    "a tick more": ("corrupt in Redis", state_field("count", 201)),
    "no tick": ("corrupt in Redis", state_field("count", 0)),
    "a chunk that is not kept": ("corrupt in Redis", state_field("first_block", 0)),
    "a chunk that is kept no more": ("unexplained in Redis", state_field("first_block", 12)),
    "fields": ("corrupt in Redis", state_field("fields", 1)),
    "layout": ("corrupt in Redis", state_field("layout_version", 2)),
    "serial": ("corrupt in Redis", state_field("serial", 1)),
    "what is not used": ("corrupt in Redis", state_field("unused", 1)),
    "cut": ("corrupt in Redis", lambda state: state[:-1]),
    "a tick cut": ("corrupt in Redis", lambda state: state[:-TICK]),
    "head alone": ("corrupt in Redis", lambda state: state[: STATE_HEADER.size - 1]),
    "longer": ("corrupt in Redis", lambda state: state + bytes(TICK)),
    "time of a tick": (
        "window state",
        lambda state: changed(state, len(state) - TICK, bytes(8)),
    ),
    "seq of a tick": (
        "window state",
        lambda state: changed(state, len(state) - TICK + 8, bytes(8)),
    ),
    "field of a tick": (
        "window state",
        lambda state: changed(state, len(state) - 16, bytes(8)),
    ),
}


@pytest.mark.parametrize(("kind", "change"), OF_STATES.values(), ids=OF_STATES.keys())
def test_a_state_that_is_not_what_ticks_make_is_found(
    client: Any, kind: str, change: Callable[[bytes], bytes]
) -> None:
    store_state(client, "price", "A", change(stored_state(client, "price", "A")))
    differences = found(client).differences
    assert differences.keys() == {kind}


def test_an_entity_without_a_row_or_a_state_is_found(client: Any) -> None:
    client.hdel(hash_of(client, rows_key, "price", "A"), "A")
    client.hdel(hash_of(client, states_key, "position", "P1\x1fB"), "P1\x1fB")
    findings = found(client)
    assert findings.differences == {"missing in Redis": 2}
    assert sorted(findings.examples["missing in Redis"]) == [
        "position P1/B: no state",
        "price A: no row",
    ]


OF_CHUNKS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a tick less": ("corrupt in Redis", lambda chunk: chunk[TICK:]),
    "a block more": ("corrupt in Redis", lambda chunk: bytes(8 * TICK) + chunk),
    "a block less": ("corrupt in Redis", lambda chunk: chunk[8 * TICK :]),
    "too many blocks": ("corrupt in Redis", lambda chunk: bytes(8 * TICK * 33)),
    "nothing": ("corrupt in Redis", lambda chunk: b""),
    "time of a tick": ("window state", lambda chunk: chunk[:-TICK] + bytes(8) + chunk[8 - TICK :]),
    "seq of a tick": ("window state", lambda chunk: chunk[: 8 - TICK] + bytes(8) + chunk[-16:]),
}


@pytest.mark.parametrize(("kind", "change"), OF_CHUNKS.values(), ids=OF_CHUNKS.keys())
def test_a_chunk_that_is_not_what_ticks_make_is_found(
    client: Any, kind: str, change: Callable[[bytes], bytes]
) -> None:
    """The newest chunk of A, which is before a tail of 8 ticks, and has 8."""
    key = hash_of(client, chunks_key, "price", "A")
    block, chunk = max(stored_chunks(client, "price", "A").items())
    assert (block, len(chunk)) == (24, 8 * TICK)
    client.hset(key, chunk_field("A", block), change(chunk))
    assert found(client).differences.keys() == {kind}


def test_each_chunk_that_is_missing_is_found(client: Any) -> None:
    key = hash_of(client, chunks_key, "price", "A")
    for block, chunk in stored_chunks(client, "price", "A").items():
        client.hdel(key, chunk_field("A", block))
        assert found(client).differences == {"corrupt in Redis": 1}
        client.hset(key, chunk_field("A", block), chunk)
    assert found(client).clean


def test_what_no_tick_explains_is_found(client: Any) -> None:
    of = lambda key: hash_of(client, key, "price", "A")  # noqa: E731
    rows, states, chunks = of(rows_key), of(states_key), of(chunks_key)
    elsewhere = rows_key("price", 7)
    assert elsewhere != rows
    for act in (
        lambda: client.hset(rows, "nobody", b""),
        lambda: client.hset(states, "nobody", b""),
        lambda: client.hset(rows, b"\xff", b""),
        lambda: client.hset(elsewhere, "A", stored_row(client, "price", "A")),
        lambda: client.hset(chunks, chunk_field("nobody", 1), b""),
        lambda: client.hset(chunks, chunk_field("A", 1), b""),  # too old to be kept
        lambda: client.hset(chunks, "A", b""),
        lambda: client.hset(chunks, "A\x1f#x", b""),
        lambda: client.sadd(members_key("position", "P9"), "A"),
        lambda: client.sadd(members_key("price", "A"), "A"),
        lambda: client.set(closed_key("position", "P9"), b""),
        lambda: client.set(f"{rows}:more", b""),
    ):
        store(client, WALKED, LOG)
        before = set(client.scan_iter())
        act()  # type: ignore[no-untyped-call]
        assert found(client).differences == {"unexplained in Redis": 1}
        for key in (rows, states, chunks):
            client.delete(key)
        for key in set(client.scan_iter()) - before:
            client.delete(key)
    store(client, WALKED, LOG)
    for other in ("tw:3:{b1}:rows:another", "tw:3:another"):
        client.hset(other, "A", b"")
    assert found(client).clean


def test_members_that_are_wrong_are_found(client: Any) -> None:
    key = members_key("position", "P1")
    client.sadd(key, "A")
    assert found(client).differences == {"members": 1}
    client.delete(key)
    assert found(client).differences == {"members": 1}


def test_last_closes_that_are_wrong_are_found(client: Any) -> None:
    key = closed_key("position", "P2")
    packed = client.get(key)
    for wrong in (None, LAST_CLOSE.struct.pack(7) + b"B", packed[:8] + b"Z"):
        if wrong is None:
            client.delete(key)
        else:
            client.set(key, wrong)
        assert found(client).differences == {"last close": 1}
    client.set(key, packed[:8])
    assert found(client).differences == {"corrupt in Redis": 1}


def test_a_watermark_that_is_not_at_the_end_is_found(client: Any) -> None:
    key = watermark_key(WALKED["price"].topic.topic_id, 0)
    client.decr(key)
    assert found(client).differences == {"watermark": 1}
    client.delete(key)
    assert found(client).differences == {"watermark": 1}


def test_chunks_that_no_state_leads_to_are_found(client: Any) -> None:
    """Before the first block that is kept, between two of the chain, and after the last one."""
    key, kept = hash_of(client, chunks_key, "price", "A"), stored_chunks(client, "price", "A")
    others = [1, 2, 22, 25, 5000]
    assert not kept.keys() & set(others)
    for block in others:
        client.hset(key, chunk_field("A", block), kept[24])
    for rebuilt in (False, True):
        assert found(client, rebuilt).differences == {"unexplained in Redis": len(others)}


@pytest.mark.parametrize(
    ("count", "fill", "differs"), [(72, 64, False), (64, 64, False), (56, 200, True)]
)
def test_a_rebuild_counts_what_it_put_back_and_what_follows(
    client: Any, count: int, fill: int, differs: bool
) -> None:
    """Whole blocks less, whose chunks are named anew."""
    state = state_field("count", count)(stored_state(client, "price", "A"))
    if fill != 200:
        state = state_field("fill", fill)(state)
    row = stored_row(client, "price", "A")
    forget(client, "price", "A")
    store_row(client, "price", "A", row)
    store_state(client, "price", "A", state_field("first_block", 0)(state))
    ticks = b"".join(struct.pack("<qqdd", t, seq, *fields) for t, seq, fields in LOG["A"][-count:])
    chunk = chunk_field("A", count // 8 - 1), ticks[: -8 * TICK]
    client.hset(hash_of(client, chunks_key, "price", "A"), *chunk)
    assert found(client).differences == {"window state": 1}
    assert found(client, rebuilt=True).differences == ({"window state": 1} if differs else {})
