"""When rows are carried over, and when that ends early."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from threading import Event
from typing import Any, cast

import msgspec
import pytest
from faust.types import TP

from pipelines.compute.run_computation import RunComputation
from pipelines.errors import StateDamaged, StoreUnavailable
from pipelines.kafka.topics import Topic
from pipelines.live.carrying import Carrying
from pipelines.live.materializer import Materializer
from pipelines.stores.carried_rows import Home
from registry.definitions import RowSchema
from registry.formats.heartbeat import CarriedPartition
from tests.support.logs import TOPIC_ID
from tests.support.shipped import PROGRAM, RULES, SCHEMA

TOPIC = Topic("ticks.price", TOPIC_ID, 2)
HOMES = [Home(TOPIC.name, TOPIC_ID, number) for number in range(2)]
NEWER = msgspec.structs.replace(SCHEMA, id=2)


def nothing() -> None:
    """Nothing happens between two pieces."""


class Rows:
    """A store in which there are three pieces of work, of five rows each, in any partition."""

    def __init__(self, between: Callable[[], None] = nothing) -> None:
        self.finished: set[Home] = set()
        self.asked = self.pieces = 0
        self._between = between

    def unfinished(self, schema: RowSchema, homes: Collection[Home]) -> Sequence[Home]:
        self.asked += 1
        return sorted(set(homes) - self.finished)

    def carry(
        self, computation: RunComputation, homes: Sequence[Home]
    ) -> Generator[int, None, None]:
        for _ in range(3):
            self.pieces += 1
            self._between()
            yield 5
        self.finished.update(homes)


class Worker:
    """One that has both partitions, and runs of prices in row schema 1."""

    def __init__(self, rows: Rows) -> None:
        self.assigned: Collection[TP] = [TP(TOPIC.name, number) for number in range(2)]
        self.work = Materializer(RunComputation(RULES, SCHEMA, PROGRAM, 10), cast("Any", Store()))
        self.stop = Event()
        topics = {TOPIC.name: TOPIC}
        self.carrying = Carrying(rows, {"price": self.work}, topics, lambda: self.assigned)

    def turn(self) -> int:
        return self.carrying.turn("price", self.stop)


class Store:
    name = "offline"


def test_what_is_finished_is_told_and_not_done_again() -> None:
    rows = Rows()
    worker = Worker(rows)
    assert worker.turn() == 15
    told = [CarriedPartition(TOPIC_ID.hex(), number, 1) for number in range(2)]
    assert worker.carrying.finished == told
    assert (worker.turn(), rows.pieces) == (0, 3)


def test_a_worker_without_partitions_asks_nothing() -> None:
    rows = Rows()
    worker = Worker(rows)
    worker.assigned = []
    assert (worker.turn(), rows.asked) == (0, 0)


def test_what_is_recorded_meanwhile_comes_first() -> None:
    rows = Rows(lambda: worker.work.adopt(RunComputation(RULES, NEWER, PROGRAM, 10)))
    worker = Worker(rows)
    assert (worker.turn(), rows.finished) == (5, set())
    assert worker.turn() == 15
    assert {one.schema_id for one in worker.carrying.finished} == {2}


def test_a_partition_that_is_lost_meanwhile_is_left() -> None:
    def lose() -> None:
        worker.assigned = [TP(TOPIC.name, 0)]

    rows = Rows(lose)
    worker = Worker(rows)
    assert (worker.turn(), rows.finished) == (5, set())
    assert worker.turn() == 15
    assert rows.finished == {HOMES[0]}


def test_a_worker_that_stops_leaves_it_at_once() -> None:
    rows = Rows(lambda: worker.stop.set())
    worker = Worker(rows)
    assert (worker.turn(), rows.pieces) == (5, 1)


def test_what_is_wrong_with_a_state_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Damaged(Rows):
        def unfinished(self, schema: RowSchema, homes: Collection[Home]) -> Sequence[Home]:
            self.asked += 1
            if self.asked > 2:
                worker.stop.set()
            raise StateDamaged("SYMBOL", "has 3 bytes")

    rows = Damaged()
    worker = Worker(rows)
    worker.carrying.run(worker.stop)
    assert rows.asked == 3
    assert ["SYMBOL" in record.message for record in caplog.records] == [True]


def test_a_store_that_does_not_answer_is_asked_again() -> None:
    class Away(Rows):
        def unfinished(self, schema: RowSchema, homes: Collection[Home]) -> Sequence[Home]:
            self.asked += 1
            if self.asked > 1:
                worker.stop.set()
            raise StoreUnavailable("refused")

    rows = Away()
    worker = Worker(rows)
    worker.carrying.run(worker.stop)
    assert rows.asked == 2
    with pytest.raises(StoreUnavailable):
        worker.turn()
