"""A version's values of what Kafka has of the ticks: equal to those from Postgres, byte by byte."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from threading import Event
from typing import Any

import pytest
from sqlalchemy import Engine

from pipelines.backfill.computing import Done
from pipelines.backfill.from_kafka import LogBackfillWork
from pipelines.errors import BackfillElsewhere, BackfillEnded, BackfillUnread
from registry.database.engine import connect
from registry.errors import NotAllowed
from registry.lifecycle.audit import By
from registry.lifecycle.backfills import Backfill, TicksFrom, lost
from registry.lifecycle.coverage import coverage
from registry.lifecycle.registry import Registry
from tests.support.backfills import BLOCKS, Tick, backfill, blocks
from tests.support.pipeline import Pipeline
from tests.support.replays import (
    GO_ON,
    catalog_of,
    delete_before,
    delete_topic,
    execute,
    live,
    produce,
    recreate,
)
from tests.support.sinks import query

NEW = "price_sma_5@2.0.0"
TICKS = 600
CODE = """
import sys
from threading import Event
from pipelines.backfill.from_kafka import LogBackfillWork
from pipelines.kafka.connection import KafkaConnection
from registry.database.engine import connect
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
kafka, url, ref = sys.argv[1:]
registry = Registry(connect(url), By("ann"))
backfill = registry.begin_backfill(ref, ticks_from="kafka")
work = LogBackfillWork(
    KafkaConnection(kafka), url, registry.catalog(), backfill, max_records=7, ticks_a_piece=1
)
work.run(lambda done: print(done.ticks, flush=True), Event())
"""


@pytest.fixture
def engine(running: Pipeline) -> Iterator[Engine]:
    engine = connect(running.settings.postgres)
    yield engine
    engine.dispose()


@pytest.fixture
def registry(running: Pipeline, engine: Engine) -> Registry:
    """A version that was recorded when all but the last ticks were stored."""
    produce(running, TICKS)
    live(running)
    registry = recorded(engine)
    produce(running, 100, seed=2)
    live(running)
    return registry


def recorded(engine: Engine) -> Registry:
    """A registry in which a version was recorded just now."""
    registry = Registry(engine, By("ann"))
    registry.create_feature_version(
        "price_sma_5", "2.0.0", {"expression": "mean(price, 6)"}, "1.0.0"
    )
    return registry


class CutMeanwhile(Event):
    """Asked for the `nth` time whether to stop, it deletes the records before an offset."""

    def __init__(self, running: Pipeline, nth: int, offset: int) -> None:
        super().__init__()
        self._cut = partial(delete_before, running, offset, [0])
        self._left = nth

    def is_set(self) -> bool:
        self._left -= 1
        if not self._left:
            self._cut()
        return super().is_set()


def begun(registry: Registry, ticks_from: TicksFrom | None = "kafka") -> Backfill:
    found = registry.begin_backfill(NEW, ticks_from=ticks_from)
    assert found is not None
    return found


def work_of(running: Pipeline, registry: Registry, **others: Any) -> LogBackfillWork:
    settings = running.settings
    catalog, found = registry.catalog(), begun(registry)
    return LogBackfillWork(settings.kafka_connection, settings.postgres, catalog, found, **others)


def from_kafka(running: Pipeline, registry: Registry, **others: Any) -> Done:
    """Backfill from Kafka, as the command does."""
    done = work_of(running, registry, **others).run(lambda _: None, GO_ON)
    assert done.finished
    registry.finish_backfill(NEW)
    return done


def stored(running: Pipeline) -> list[Any]:
    """The blocks as they are in the table."""
    return [
        (*row[:8], [value.hex() for value in row[8]], None if row[9] is None else bytes(row[9]))
        for row in query(running.settings.postgres, BLOCKS)
    ]


def from_postgres(running: Pipeline, registry: Registry) -> list[Any]:
    """The blocks of the same backfill from Postgres."""
    begun(registry, "postgres")
    assert backfill(registry.engine, running.settings.postgres, NEW, 100_000).finished
    return stored(running)


def test_its_blocks_are_those_from_postgres(running: Pipeline, registry: Registry) -> None:
    done = from_kafka(running, registry)
    made = stored(running)
    assert done.without_row == 0
    assert done.offsets == sum(one.end for one in begun(registry, None).ranges)
    assert sum(len(row[8]) for row in made) == done.ticks > TICKS / 2
    assert begun(registry, None).state == "complete"
    execute(running, "UPDATE tickwell.backfills SET state = 'running'")
    assert from_postgres(running, registry) == made


@pytest.mark.parametrize("ticks_a_piece", [1, 30])
def test_piece_by_piece_the_values_are_the_same(
    running: Pipeline, registry: Registry, ticks_a_piece: int
) -> None:
    from_kafka(running, registry, max_records=9, ticks_a_piece=ticks_a_piece)
    made = blocks(running.settings.postgres, NEW)
    execute(running, "UPDATE tickwell.backfills SET state = 'running'")
    from_postgres(running, registry)
    assert blocks(running.settings.postgres, NEW) == made


def test_killed_at_any_instant_it_goes_on(running: Pipeline, registry: Registry) -> None:
    chance, counts = random.Random(4), [0]
    settings = running.settings
    command = [sys.executable, "-c", CODE, settings.kafka, settings.postgres, NEW]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 6)):
                process.stdout.readline()
            process.kill()
        counts.append(len(blocks(settings.postgres, NEW)))
        assert query(settings.postgres, "SELECT ticks FROM tickwell.backfills") == [(counts[-1],)]
    assert counts == sorted(counts)
    deadline = time.monotonic() + 30
    while True:
        try:
            from_kafka(running, registry, max_records=20, ticks_a_piece=10)
            break
        except BackfillElsewhere:  # Postgres has not seen yet that the process is gone
            assert time.monotonic() < deadline
            time.sleep(0.1)
    made = blocks(settings.postgres, NEW)
    execute(running, "UPDATE tickwell.backfills SET state = 'running'")
    from_postgres(running, registry)
    assert blocks(settings.postgres, NEW) == made


def test_what_the_log_has_lost_is_a_hole(running: Pipeline, registry: Registry) -> None:
    """The ticks after it have the windows that live had."""
    whole = {one.partition: one for one in begun(registry).ranges}
    delete_before(running, 60, [0])
    before = begun(registry)
    from_kafka(running, registry)
    ended = begun_state(registry)
    assert [(one.partition, one.begin, one.end) for one in lost(before, ended)] == [(0, 0, 60)]
    made = blocks(running.settings.postgres, NEW)
    with registry.engine.connect() as connection:
        parts = coverage(connection, registry.catalog(), NEW)
    assert [part.backfilled[0].begin for part in parts] == [60, 0]
    assert [part.backfilled[0].end for part in parts] == [whole[0].end, whole[1].end]
    begun(registry, None)  # what is missing makes it begin anew, of all that live has not
    assert backfill(registry.engine, running.settings.postgres, NEW).finished
    rest = blocks(running.settings.postgres, NEW)
    assert made.items() < rest.items()
    gone = query(
        running.settings.postgres,
        "SELECT entity, event_time, sequence FROM tickwell.feature_rows"
        ' WHERE partition = 0 AND "offset" < 60',
    )
    assert rest.keys() - made.keys() == {Tick(*tick) for tick in gone}
    assert begun_state(registry).ranges == before.ranges


def begun_state(registry: Registry) -> Backfill:
    """The backfill as it is recorded."""
    found = registry.finish_backfill(NEW)
    assert found is not None
    return found


def test_records_that_are_deleted_meanwhile_are_a_hole(running: Pipeline, engine: Engine) -> None:
    """More than a fetch brings at once; what was read before them is stored."""
    now = time.time_ns() // 10**6
    made = [
        {"symbol": "A", "price": 1 + n / 7, "ts": now + n // 9, "padding": "x" * 2000}
        for n in range(2000)
    ]
    running.produce("price", [(b"A", json.dumps(tick).encode()) for tick in made], partition=0)
    live(running)
    registry = recorded(engine)
    work = work_of(running, registry, max_records=50)
    assert work.run(lambda _: None, CutMeanwhile(running, 8, 1900)).finished
    ended = begun_state(registry)
    first, second = [(one.begin, one.end) for one in ended.ranges]
    assert (first[0], second) == (0, (1900, 2000))
    assert 0 < first[1] < 1900
    found = blocks(running.settings.postgres, NEW)
    begun(registry, None)
    assert backfill(engine, running.settings.postgres, NEW).finished
    whole = blocks(running.settings.postgres, NEW)
    rows = query(
        running.settings.postgres,
        "SELECT entity, event_time, sequence FROM tickwell.feature_rows"
        f' WHERE "offset" < {first[1]} OR "offset" >= 1900',
    )
    assert found == {Tick(*tick): whole[Tick(*tick)] for tick in rows}


def test_a_tick_without_a_row_has_no_value_and_is_counted(
    running: Pipeline, registry: Registry
) -> None:
    gone = 'DELETE FROM tickwell.feature_rows WHERE "offset" BETWEEN 100 AND 199'
    work = work_of(running, registry)
    # only afterwards: windows are loaded of rows where a log is begun
    taken = query(
        running.settings.postgres,
        "SELECT entity, event_time, sequence FROM tickwell.feature_rows"
        ' WHERE "offset" BETWEEN 100 AND 199',
    )
    execute(running, gone)
    done = work.run(lambda _: None, GO_ON)
    assert done.without_row == len(taken) > 0
    made = blocks(running.settings.postgres, NEW)
    assert not made.keys() & {Tick(*tick) for tick in taken}
    assert len(made) == done.ticks


def test_a_topic_that_is_gone_or_made_anew_is_told(running: Pipeline, registry: Registry) -> None:
    work = work_of(running, registry)
    recreate(running)
    with pytest.raises(BackfillUnread, match=r"was made anew.*--from postgres"):
        work.run(lambda _: None, GO_ON)
    delete_topic(running)
    with pytest.raises(BackfillUnread, match="there is no such topic"):
        work.run(lambda _: None, GO_ON)
    assert blocks(running.settings.postgres, NEW) == {}
    assert from_postgres(running, registry)


def test_of_two_at_once_one_is_told_wherever_they_read(
    running: Pipeline, registry: Registry
) -> None:
    work, told = work_of(running, registry, ticks_a_piece=50), list[str]()

    def begin_others(_: Done) -> None:
        if not told:
            with pytest.raises(BackfillElsewhere) as error:
                work.run(lambda _: None, GO_ON)
            told.append(str(error.value))
            with pytest.raises(NotAllowed, match="is being backfilled from kafka"):
                begun(registry, "postgres")

    assert work.run(begin_others, GO_ON).finished
    assert told


def test_one_that_was_overtaken_or_cancelled_stores_nothing(
    running: Pipeline, registry: Registry
) -> None:
    work = work_of(running, registry, max_records=9, ticks_a_piece=1)

    def overtake(_: Done) -> None:
        execute(running, "UPDATE tickwell.backfill_reads SET next_offset = next_offset + 1")

    with pytest.raises(BackfillElsewhere):
        work.run(overtake, GO_ON)
    counted = query(running.settings.postgres, "SELECT ticks FROM tickwell.backfills")
    assert counted == [(len(blocks(running.settings.postgres, NEW)),)]
    begun(registry, "postgres")
    work = work_of(running, registry, max_records=9, ticks_a_piece=1)
    registry.deprecate(NEW)
    with pytest.raises(BackfillEnded):
        work.run(lambda _: registry.retire(NEW), GO_ON)


def test_stopped_it_goes_on_where_it_was(running: Pipeline, registry: Registry) -> None:
    stop = Event()
    work = work_of(running, registry, max_records=9, ticks_a_piece=20)
    done = work.run(lambda _: stop.set(), stop)
    assert not done.finished
    assert 0 < done.ticks < TICKS / 2
    more = from_kafka(running, registry, max_records=9, ticks_a_piece=20)
    assert len(blocks(running.settings.postgres, NEW)) == done.ticks + more.ticks


def test_the_command(running: Pipeline, registry: Registry) -> None:
    told = json.loads(running.run_tickwell("backfill", NEW, "--from", "kafka", "--json"))
    assert (told["state"], told["ticks_from"]) == ("complete", "kafka")
    made = blocks(running.settings.postgres, NEW)
    assert told["ticks"] == len(made)
    assert told["entities"] == len({tick.entity for tick in made})
    assert catalog_of(running).active["price_sma_5"] == "1.0.0"
