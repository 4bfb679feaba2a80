"""Verification of rows and blocks: nothing differs, and what is broken on purpose is named."""

from __future__ import annotations

import random
from threading import Event
from typing import Any

import pytest

from pipelines.verify.verification import Tallies, Verification, Wanted
from registry.comparisons import Difference, Kind, Place
from registry.definitions import Catalog
from registry.formats.entity_name import key_values
from tests.support.grown_market import BACKFILLED, Grown, grown
from tests.support.rebuilds import Stores
from tests.support.seeds import seeds
from tests.support.sinks import query

ALL = Wanted(None, "seed")
VALUES = """
SELECT (SELECT sum(cardinality(features)) FROM tickwell.feature_rows),
    (SELECT sum(cardinality(values)) FROM tickwell.backfilled_blocks)
"""


def verified(
    stores: Stores, catalog: Catalog, wanted: Wanted = ALL, rows_a_piece: int = 1_000
) -> Tallies:
    work = Verification(stores.postgres, catalog, wanted, rows_a_piece=rows_a_piece)
    return work.run(lambda done: None, Event())


def differences(found: Tallies) -> list[Difference]:
    listed = [one for tally in found.values() for one in tally.first]
    assert len(listed) == sum(tally.differences.total() for tally in found.values())
    return listed


@pytest.mark.parametrize("seed", seeds(1, 12))
def test_all_that_is_stored_is_compared_and_is_the_same(stores: Stores, seed: int) -> None:
    """Whatever the row schemas, resets, closes, late ticks, and however the reading is cut."""
    chance = random.Random(seed)
    made = grown(stores, chance)
    for rows_a_piece in (1, chance.randrange(2, 40), 1_000):
        found = verified(stores, made.catalog, rows_a_piece=rows_a_piece)
        assert differences(found) == []
        ((rows, blocks),) = query(stores.postgres, VALUES)
        assert (found[Place.ROWS].values, found[Place.BLOCKS].values) == (rows, blocks)
        assert not any(tally.unverifiable for tally in found.values())


def rows_of(stores: Stores) -> list[Any]:
    return query(
        stores.postgres,
        "SELECT source, schema.features, entity, event_time, sequence, schema_id, status,"
        " row.features AS values FROM tickwell.feature_rows AS row"
        " JOIN tickwell.row_schemas AS schema ON schema.id = schema_id ORDER BY 3, 4, 5, 6",
    )


@pytest.mark.parametrize("seed", seeds(1, 12))
def test_a_broken_value_or_status_is_named(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    made = grown(stores, chance)
    late = [row for row in rows_of(stores) if row[4] == 0]
    source, refs, entity, time, sequence, schema, _, _ = chance.choice(late[8:])
    number = chance.randrange(len(refs))
    key = f"entity = '{entity}' AND event_time = {time} AND sequence = {sequence}"
    broken, kind = chance.choice(
        [
            (f"features[{number + 1}] = 7.125", Kind.VALUE),
            (f"status = set_byte(status, {number}, get_byte(status, {number}) # 2)", Kind.STATUS),
        ]
    )
    stores.execute(
        f"UPDATE tickwell.feature_rows SET {broken} WHERE {key} AND schema_id = {schema}"
    )
    (found,) = differences(verified(stores, made.catalog, rows_a_piece=chance.choice([1, 1000])))
    assert (found.place, found.kind) == (Place.ROWS, kind)
    assert (found.source, found.entity) == (source, key_values(entity))
    assert (found.event_time, found.sequence, found.feature) == (time, sequence, refs[number])
    if kind is Kind.VALUE:
        assert found.found.startswith("7.125 (0x1.c800000000000p+2), ")


def test_a_broken_block_is_named(stores: Stores) -> None:
    made = grown(stores, random.Random(8))
    first = query(
        stores.postgres,
        "SELECT entity, first_event_time, first_sequence FROM tickwell.backfilled_blocks"
        " ORDER BY 1, 2, 3 LIMIT 1",
    )
    ((entity, time, sequence),) = first
    of_first = f"WHERE entity = '{entity}' AND first_event_time = {time}"
    stores.execute(f"UPDATE tickwell.backfilled_blocks SET values[1] = -1 {of_first}")
    (found,) = differences(verified(stores, made.catalog))
    assert found[:7] == (
        *(Place.BLOCKS, Kind.VALUE, "price", (entity,), time, sequence),
        BACKFILLED,
    )
    stores.execute(
        "UPDATE tickwell.backfilled_blocks SET values[1] = 'NaN',"
        f" statuses = set_byte(statuses, 0, 2) {of_first}"
    )
    (found,) = differences(verified(stores, made.catalog))
    assert found.kind is Kind.STATUS


def test_a_tick_that_a_block_has_lost_is_named(stores: Stores) -> None:
    made = grown(stores, random.Random(8))
    before = verified(stores, made.catalog)[Place.BLOCKS].values
    stores.execute(
        "UPDATE tickwell.backfilled_blocks SET values = values[1:1] || values[3:],"
        " steps = steps[1:1] || steps[3:], statuses = substring(statuses FOR 1)"
        " || substring(statuses FROM 3) WHERE entity = 'A' AND cardinality(values) > 3"
    )
    found = verified(stores, made.catalog)[Place.BLOCKS]
    assert found.differences[Kind.ABSENT] >= 1
    assert found.values < before
    # the log may have lost it
    stores.execute("UPDATE tickwell.backfills SET ticks_from = 'kafka'")
    assert not verified(stores, made.catalog)[Place.BLOCKS].differences
    # it was begun anew
    stores.execute("UPDATE tickwell.backfills SET state = 'running'")
    assert verified(stores, made.catalog)[Place.BLOCKS].values == 0


def test_rows_of_another_shape_and_ticks_that_contradict_themselves(stores: Stores) -> None:
    made = grown(stores, random.Random(9))
    stores.execute(
        "UPDATE tickwell.feature_rows SET features = features[2:] WHERE (entity, event_time,"
        " sequence) = (SELECT entity, event_time, sequence FROM tickwell.feature_rows"
        " WHERE entity = 'B' ORDER BY event_time DESC LIMIT 1)"
    )
    (found,) = differences(verified(stores, made.catalog))
    assert (found.kind, found.entity, found.feature) == (Kind.SHAPE, ("B",), None)
    stores.execute(
        "INSERT INTO tickwell.feature_rows SELECT 1, entity, event_time, sequence, revision,"
        " tick_time, seq, op, array_append(fields[:1], 77.0::float8), features[:4],"
        ' substring(status FOR 4), known_at, topic_id, partition, "offset", index, seq_text'
        " FROM tickwell.feature_rows WHERE entity = 'C' ORDER BY event_time DESC LIMIT 1"
    )
    listed = differences(verified(stores, made.catalog))
    assert {one.kind for one in listed} >= {Kind.FIELDS, Kind.SHAPE}
    assert {one.entity for one in listed if one.kind is Kind.FIELDS} == {("C",)}


@pytest.mark.parametrize("seed", seeds(1, 9))
def test_what_reaches_back_to_ticks_that_are_gone_is_not_judged(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    made = grown(stores, chance, steps=60)
    before = verified(stores, made.catalog)
    times = [row[3] for row in rows_of(stores) if row[0] == "price"]
    cut = sorted(times)[len(times) // 2]
    stores.execute(f"DELETE FROM tickwell.feature_rows WHERE event_time < {cut}")
    found = verified(stores, made.catalog)
    assert differences(found) == []
    assert 0 < found[Place.ROWS].values < before[Place.ROWS].values
    assert found[Place.ROWS].unverifiable + found[Place.BLOCKS].unverifiable > 0


@pytest.mark.parametrize("seed", seeds(1, 9))
def test_a_sample_is_of_days_and_can_be_drawn_again(stores: Stores, seed: int) -> None:
    chance = random.Random(seed)
    made = days(stores, chance)
    wanted = Wanted(chance.randrange(1, 9), f"{seed}")
    found = verified(stores, made.catalog, wanted, rows_a_piece=chance.choice([1, 9, 1_000]))
    assert differences(found) == []
    assert 0 < found[Place.ROWS].values < sum(len(row[1]) for row in rows_of(stores))
    again = verified(stores, made.catalog, wanted)
    assert again[Place.ROWS].values == found[Place.ROWS].values


def days(stores: Stores, chance: random.Random) -> Grown:
    """A market that ticks on several days."""
    made = grown(stores, chance)
    for _ in range(12):
        made.market.at_ms += chance.choice([3, 40]) * 3_600_000
        made.market.tick("price", 9)
        made.market.tick("position", 9)
    return made


def test_since_leaves_out_what_was_before(stores: Stores) -> None:
    made = days(stores, random.Random(2))
    rows = rows_of(stores)
    since = sorted(row[3] for row in rows)[len(rows) // 2]
    key = f"event_time = {rows[0][3]} AND entity = '{rows[0][2]}'"
    stores.execute(f"UPDATE tickwell.feature_rows SET features[1] = 5 WHERE {key}")
    assert differences(verified(stores, made.catalog))
    found = verified(stores, made.catalog, Wanted(None, "", since))
    assert differences(found) == []
    wanted = sum(len(row[1]) for row in rows if row[3] >= since)
    assert found[Place.ROWS].values == wanted


def test_it_stops_when_it_is_told(stores: Stores) -> None:
    made = grown(stores, random.Random(2))
    stop, seen = Event(), []

    def report(done: Any) -> None:
        seen.append(done)
        if len(seen) == 3:
            stop.set()

    work = Verification(stores.postgres, made.catalog, ALL, rows_a_piece=1)
    found = work.run(report, stop)
    assert len(seen) == 3
    assert found[Place.ROWS].values < sum(len(row[1]) for row in rows_of(stores))
