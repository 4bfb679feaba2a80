"""Redis rebuilt from Postgres is the Redis that was lost, whatever else writes to it meanwhile."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, Thread
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import PartitionsChanged
from pipelines.kafka.topics import Topic
from pipelines.live.materializer import Materializer
from pipelines.rebuild.rebuild import Done, PostgresBehind, Rebuild, RebuildLimits
from pipelines.replay.backfill_sink import BackfillSink
from pipelines.replay.progress import Progress, ReplayProgress
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.fill_marks import FillMarks
from registry.database.engine import connect
from registry.definitions import FeatureVersion
from registry.features_file import read
from registry.formats.entity_name import entity_id
from registry.formats.redis_keys import watermark_key
from registry.formats.row import unpack
from registry.language.program import compile_program
from registry.lifecycle.recording import record
from tests.support.logs import TOPIC_ID, logs, runs
from tests.support.rebuilds import (
    KEPT,
    OTHER,
    SYMBOLS,
    TOPIC,
    Stores,
    both,
    in_partition,
    quiet,
)
from tests.support.shipped import PROGRAM, RULES, SCHEMA, SOURCE
from tests.support.sinks import GO_ON, empty, ticks
from tests.support.stored import stored_row


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(logs(most=250), st.integers(0, 250))
def test_what_was_lost_comes_back_and_goes_on(stores: Stores, records: Any, cut: int) -> None:
    """Rows to the byte, rings, sequences and fills; and every later value."""
    empty(stores.redis_url, stores.postgres)
    first, *rest = runs(records, [cut])
    both(stores, [first])
    before = stores.rows(), stores.states(["A", "B"])
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    assert (stores.rows(), stores.states(["A", "B"])) == before

    both(stores, rest)
    after = stores.rows()
    empty(stores.redis_url, stores.postgres)
    both(stores, [first, *rest])  # as if nothing had been lost
    assert stores.rows() == after


def test_a_full_ring_wraps_on(stores: Stores) -> None:
    log = list(runs(ticks(["A"], 500), (333, 350, 470)))
    both(stores, log[:1])
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    both(stores, log[1:])
    rebuilt = stores.rows(), stores.states(["A"])
    empty(stores.redis_url, stores.postgres)
    both(stores, log)
    assert (stores.rows(), stores.states(["A"])) == rebuilt


def test_what_a_replay_wrote_beyond_the_watermark_does_not_count(stores: Stores) -> None:
    first, second = runs(ticks(SYMBOLS, 200), (100,))
    both(stores, [first])
    before = stores.rows()
    progress = stores.keep(ReplayProgress(stores.postgres))
    progress.begin("beyond", TOPIC, 0, "", True, Progress(100, 100, 0))
    backfill = stores.keep(BackfillSink(stores.postgres, "beyond", 0))
    computation = RunComputation(RULES, SCHEMA, PROGRAM, 100)
    decoded = computation.decode(second)
    computation.restore(decoded, backfill.load)
    assert backfill.store(computation.compute(decoded)) == 100
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    assert stores.rows() == before


def test_windows_of_an_older_incarnation_go_on(stores: Stores) -> None:
    """Whichever partition of the recreated topic sees an entity first, it has its windows."""
    (old,) = runs(ticks(SYMBOLS, 90), ())
    new = [
        in_partition(run, partition, OTHER)
        for partition, symbols in enumerate((SYMBOLS[:3], SYMBOLS[3:6]))
        for run in runs(ticks(symbols, 30, first=90), ())
    ]
    last = in_partition(next(iter(runs(ticks(SYMBOLS[6:], 30, first=150), ()))), 1, OTHER)
    last = replace(last, base_offset=new[1].next_offset)
    both(stores, [old, *new])
    before = stores.rows()
    stores.flush()
    stores.rebuild().fill(KEPT, OTHER, quiet)
    of_old = watermark_key(TOPIC.topic_id, 0).encode()
    assert stores.rows() == {key: row for key, row in before.items() if key != of_old}

    both(stores, [last])
    after = stores.rows()
    empty(stores.redis_url, stores.postgres)
    both(stores, [old, *new, last])
    assert {key: row for key, row in stores.rows().items() if key != of_old} == after


def test_the_row_of_the_newest_tick_in_the_schema_that_is_written(stores: Stores) -> None:
    """If that tick has one there: the newest tick of B is in both, that of A in the old one."""
    first, second = runs(ticks(["A", "B"], 40), (30,))
    both(stores, [first])
    engine = connect(stores.postgres)
    definitions = read()
    seven = FeatureVersion("price_sma_7", "1.0.0", ("symbol",), "mean(price, 7)", source="price")
    more = (*definitions.features, seven)
    stores.catalog = record(engine, msgspec.structs.replace(definitions, features=more), "test")
    engine.dispose()
    writing = stores.catalog.schemas[stores.catalog.writing["price"]]
    assert writing.id != SCHEMA.id
    program = compile_program(stores.catalog, writing)
    sink = stores.keep(OfflineSink(stores.postgres))
    Materializer(RunComputation(RULES, writing, program, 1000), sink).materialize(second, GO_ON)
    stores.execute(  # the newest tick of B again in the old schema: both have it
        "INSERT INTO tickwell.feature_rows SELECT %s, entity, event_time, sequence, revision,"
        " tick_time, seq, op, fields, ARRAY[1, 2, 3, 4], '\\x00000000'::bytea, known_at, topic_id,"
        ' partition, "offset", index FROM tickwell.feature_rows WHERE schema_id = %s'
        " AND entity = 'B' AND \"offset\" = 39",
        SCHEMA.id,
        writing.id,
    )
    stores.execute(  # and A's only in the old one
        "UPDATE tickwell.feature_rows SET schema_id = %s, features = ARRAY[1, 2, 3, 4],"
        " status = '\\x00000000' WHERE entity = 'A' AND \"offset\" = 38",
        SCHEMA.id,
    )
    stores.flush()
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    with redis.Redis.from_url(stores.redis_url) as client:
        a, b = (unpack(stored_row(client, "price", entity)) for entity in ("A", "B"))
    assert (a.origin.offset, a.schema_id, a.values) == (38, SCHEMA.id, (1, 2, 3, 4))
    assert (b.origin.offset, b.schema_id, len(b.values)) == (39, writing.id, 5)


def test_single_entities_that_were_lost(stores: Stores) -> None:
    """They come back as they are at Redis' watermark or later, never earlier."""
    first, second, third = runs(ticks(SYMBOLS, 300), (100, 200))
    both(stores, [first])
    online, offline = stores.online(), stores.offline()
    online.materialize(second, GO_ON)
    stores.forget("S1")
    stores.limits = RebuildLimits(patience=0.5)
    with pytest.raises(PostgresBehind, match="offset 100, and Redis is at 200"):
        stores.rebuild().refill(KEPT, TOPIC, quiet)
    offline.materialize(second, GO_ON)
    offline.materialize(third, GO_ON)
    stores.rebuild().refill(KEPT, TOPIC, quiet)
    online.materialize(third, GO_ON)
    found = stores.rows(), stores.states(SYMBOLS)
    empty(stores.redis_url, stores.postgres)
    both(stores, [first, second, third])
    assert (stores.rows(), stores.states(SYMBOLS)) == found


def test_a_partition_without_ticks_is_not_asked_for_twice(stores: Stores) -> None:
    stores.rebuild().fill(KEPT, TOPIC, quiet)
    away = Rebuild(
        "postgresql://127.0.0.1:1/none",
        stores.redis(),
        stores.catalog,
        Event(),
    )
    away.fill(KEPT, TOPIC, quiet)  # Postgres is not needed
    assert stores.rows() == {}


def test_members_are_known_before_the_first_of_their_rows(stores: Stores) -> None:
    """So a sum over a portfolio that is half restored is missing, and not too small."""
    source = stores.catalog.sources["position"]
    topic = Topic("ticks.position", TOPIC_ID, 1)
    names = [entity_id(["P1", symbol]) for symbol in SYMBOLS]
    for offset, name in enumerate(names):
        stores.execute(
            "INSERT INTO tickwell.entities VALUES ('position', %s, %s::uuid, 0)",
            name,
            TOPIC_ID.hex(),
        )
        stores.execute(
            "INSERT INTO tickwell.feature_rows VALUES (%s, %s, 1, 0, 0, 1, NULL, 0, ARRAY[1.5, 1],"
            " ARRAY[1.5, 1], '\\x0000', 1, %s::uuid, 0, %s, 0)",
            stores.catalog.writing["position"],
            name,
            TOPIC_ID.hex(),
            offset,
        )
    stores.execute(
        "INSERT INTO tickwell.watermarks VALUES (%s::uuid, 0, 'ticks.position', 99)", TOPIC_ID.hex()
    )
    seen: list[tuple[int, int]] = []

    def look(done: Done) -> None:
        found = stores.rows()
        of_kind = {key.split(b":")[3]: value for key, value in found.items() if b":{b" in key}
        seen.append((len(of_kind.get(b"members", ())), len(of_kind.get(b"rows", ()))))

    stores.limits = RebuildLimits(entities_a_piece=2)
    stores.rebuild().fill(source, topic, look)
    assert seen[-1] == (9, 9)
    assert all(members == 9 for members, rows in seen if rows)
    assert any(0 < rows < 9 for _, rows in seen)


def test_a_watermark_that_a_worker_has_moved_does_not_go_back(stores: Stores) -> None:
    marks = FillMarks(stores.redis())
    for moved, filled, expected in ((50, 20, 50), (20, 50, 50), (None, 50, 50), (20, None, 20)):
        stores.flush()
        token = marks.claim(TOPIC, [0])[0]
        if moved is not None:
            with redis.Redis.from_url(stores.redis_url) as client:
                client.set(watermark_key(TOPIC_ID, 0), moved)
        assert marks.finish(TOPIC, 0, token, filled)
        assert marks.watermark(TOPIC, 0) == expected


def test_an_entity_with_two_homes_is_named(stores: Stores) -> None:
    """Each store has seen its symbols in another partition first; nothing is replaced."""
    (run,) = runs(ticks(SYMBOLS, 90), ())
    first, second = (in_partition(run, partition, OTHER) for partition in (0, 1))
    online, offline = stores.online(), stores.offline()
    for one, other in ((first, second), (second, first)):
        online.materialize(one, GO_ON)
        offline.materialize(other, GO_ON)
    before = stores.rows()
    seen: list[Done] = []
    stores.rebuild().refill(KEPT, OTHER, seen.append)
    assert (seen[-1].written, seen[-1].elsewhere) == (0, len(SYMBOLS))
    assert seen[-1].one_elsewhere in SYMBOLS
    assert stores.rows() == before


def test_more_partitions_than_before(stores: Stores) -> None:
    """An emptied Redis does not know how many there were; Postgres does."""
    sink = stores.keep(OfflineSink(stores.postgres))
    assert sink.settle(TOPIC) == 1
    with pytest.raises(PartitionsChanged):
        stores.rebuild().fill(KEPT, replace(TOPIC, partitions=2), quiet)


def test_many_at_once(stores: Stores) -> None:
    """Threads, without any order between them."""
    log = list(runs(ticks(SYMBOLS, 1200), range(100, 1200, 100)))
    both(stores, log[:6])
    stores.flush()
    offline = stores.offline()
    rebuilds = [stores.rebuild() for _ in range(3)]
    threads = [Thread(target=r.fill, args=(SOURCE, TOPIC, quiet)) for r in rebuilds]
    for thread in threads:
        thread.start()
    for run in log[6:]:
        offline.materialize(run, GO_ON)
    for thread in threads:
        thread.join()
    online = stores.online()
    with redis.Redis.from_url(stores.redis_url) as client:
        watermark = int(client.get(watermark_key(TOPIC_ID, 0)) or -1)
    assert watermark >= 600
    for run in log:
        if run.base_offset >= watermark:
            online.materialize(run, GO_ON)
    found = stores.rows(), stores.states(SYMBOLS)
    empty(stores.redis_url, stores.postgres)
    both(stores, log)
    assert (stores.rows(), stores.states(SYMBOLS)) == found
