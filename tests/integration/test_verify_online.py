"""Verification of Redis: rows of the same ticks, whichever of the stores is ahead."""

from __future__ import annotations

import random

import pytest
from msgspec import structs

from pipelines.stores.postgres.connection import Database
from pipelines.verify.online_rows import OnlineRows
from registry.comparisons import Kind, Place, Tally
from registry.formats.redis_keys import watermark_key
from registry.formats.row import Row, pack, unpack
from tests.support.grown_market import Grown, grown
from tests.support.past import SYMBOLS
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import query
from tests.support.stored import hash_of, rows_key, stored_row


def compared(stores: Stores, made: Grown, source: str = "price") -> Tally:
    database = stores.keep(Database(stores.postgres, "test"))
    catalog = made.catalog
    online = OnlineRows(stores.redis(), database, catalog, catalog.sources[source])
    named = query(
        stores.postgres,
        f"SELECT entity FROM tickwell.entities WHERE source = '{source}' ORDER BY 1",
    )
    return online.compare([entity for (entity,) in named])


def replace(stores: Stores, entity: str, row: Row | bytes | None) -> None:
    with stores.client() as client:
        key = hash_of(client, rows_key, "price", entity)
        if row is None:
            client.hdel(key, entity)
        else:
            client.hset(key, entity, row if isinstance(row, bytes) else pack(row))


def row_of(stores: Stores, entity: str) -> Row:
    with stores.client() as client:
        return unpack(stored_row(client, "price", entity))


@pytest.mark.parametrize("seed", seeds(1, 8))
def test_what_both_have_stored_is_the_same(stores: Stores, seed: int) -> None:
    made = grown(stores, random.Random(seed))
    for source in ("price", "position"):
        found = compared(stores, made, source)
        assert found.differences.total() == 0, found.first
        assert found.values > 0
        assert found.unverifiable == found.not_yet_stored == 0


@pytest.mark.parametrize("broken", ["value", "status", "origin", "known_at", "bytes", "shape"])
def test_a_broken_row_is_named(stores: Stores, broken: str) -> None:
    made = grown(stores, random.Random(3))
    row = row_of(stores, "B")
    kind = {"known_at": "origin", "bytes": "shape"}.get(broken, broken)
    changed: Row | bytes
    if broken == "value":
        changed = structs.replace(row, values=(row.values[0], 8.5, *row.values[2:]))
    elif broken == "status":
        changed = structs.replace(row, status=row.status[:1] + b"\2" + row.status[2:])
    elif broken == "origin":
        origin = structs.replace(row.origin, index=row.origin.index + 1)
        changed = structs.replace(row, origin=origin)
    elif broken == "known_at":
        changed = structs.replace(row, known_at=row.known_at + 1)
    elif broken == "shape":
        changed = structs.replace(row, status=row.status[:-1], values=row.values[:-1])
    else:
        changed = b"nonsense"
    replace(stores, "B", changed)
    (found,) = compared(stores, made).first
    assert (found.place, found.kind, found.entity) == (Place.REDIS, Kind(kind), ("B",))
    if broken in ("value", "status"):
        assert found.feature == made.catalog.schemas[row.schema_id].features[1]
        assert (found.event_time, found.sequence) == (row.event_time, row.sequence)


def test_a_row_that_is_older_than_its_watermark_says_is_behind(stores: Stores) -> None:
    made = grown(stores, random.Random(4))
    before = row_of(stores, "A")
    while row_of(stores, "A").origin == before.origin:
        made.market.tick("price", 5)
    replace(stores, "A", before)
    replace(stores, "C", None)
    kinds = {(one.kind, one.entity) for one in compared(stores, made).first}
    assert kinds == {(Kind.BEHIND, ("A",)), (Kind.ABSENT, ("C",))}


def test_a_redis_that_is_behind_is_no_difference(stores: Stores) -> None:
    made = grown(stores, random.Random(4))
    before = row_of(stores, "A")
    while row_of(stores, "A").origin == before.origin:
        made.market.tick("price", 5)
    replace(stores, "A", before)
    assert compared(stores, made).differences[Kind.BEHIND] == 1
    with stores.client() as client:
        key = watermark_key(before.origin.topic_id, before.origin.partition)
        client.set(key, before.origin.offset + 1)
    found = compared(stores, made)
    assert found.differences.total() == 0, found.first


def test_a_postgres_that_is_behind_is_no_difference(stores: Stores) -> None:
    """But one that says that it is not, and has lost a tick."""
    made = grown(stores, random.Random(5))
    row = row_of(stores, "A")
    newest = f"event_time = {row.event_time} AND sequence = {row.sequence} AND entity = 'A'"
    stores.execute(f"DELETE FROM tickwell.feature_rows WHERE {newest}")
    (lost,) = compared(stores, made).first
    assert (lost.kind, lost.entity) == (Kind.ABSENT, ("A",))
    stores.execute(f"UPDATE tickwell.watermarks SET next_offset = {row.origin.offset}")
    found = compared(stores, made)
    assert found.differences.total() == 0
    assert found.not_yet_stored >= len(row.values)
    stores.execute("UPDATE tickwell.watermarks SET next_offset = 100000")
    stores.execute("DELETE FROM tickwell.feature_rows WHERE entity = 'B'")
    assert {one.entity for one in compared(stores, made).first} == {("A",)}


def test_a_redis_that_knows_nothing_yet_is_no_difference(stores: Stores) -> None:
    made = grown(stores, random.Random(6))
    stores.flush()
    found = compared(stores, made)
    assert (found.values, found.differences.total()) == (0, 0)


def test_rows_whose_ticks_are_gone_from_postgres_are_not_judged(stores: Stores) -> None:
    made = grown(stores, random.Random(7))
    stores.execute("TRUNCATE tickwell.feature_rows")
    found = compared(stores, made)
    assert found.differences.total() == 0
    assert found.unverifiable == sum(len(row_of(stores, one).values) for one in SYMBOLS)
