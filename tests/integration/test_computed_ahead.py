"""Runs that are computed before the run before them is stored: what the stores hold in the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.errors import StoreUnavailable
from pipelines.kafka.run import Run
from pipelines.live.materializer import ComputedRun, Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.sink import Sink, Store
from tests.oracle.messages import Record
from tests.support.logs import TOPIC_ID, logs, runs
from tests.support.sinks import (
    GO_ON,
    Opened,
    closing,
    empty,
    empty_postgres,
    postgres_dump,
    redis_dump,
    ticks,
    worker,
)


class Agent:
    """What the agent of a source does with its runs, a step at a time."""

    def __init__(self, work: Materializer) -> None:
        self._work = work
        self._computed: deque[tuple[Run, ComputedRun | None]] = deque()

    def compute(self, run: Run) -> None:
        """Compute a run, while at most one before it is not stored."""
        while len(self._computed) > 1:
            self.store()
        self._computed.append((run, self._work.compute_ahead(run)))

    def store(self) -> None:
        """Store the oldest run that is not stored."""
        if self._computed:
            run, computed = self._computed.popleft()
            if computed is None or self._work.store(computed) is None:
                self._work.materialize_again(run, GO_ON)

    def begin_generation(self) -> None:
        while self._computed:
            self.store()
        self._work.forget()


COMPUTE, STORE, BACK = "computes the next run", "stores a run", "is given the partition"
steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([COMPUTE, COMPUTE, STORE, STORE, BACK])),
    min_size=15,
    max_size=40,
)


@settings(
    max_examples=10,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.reuse, Phase.generate),  # to shrink a log takes minutes
)
@given(logs(least=30), st.lists(st.integers(1, 40), min_size=8, max_size=12), steps)
def test_two_workers_that_take_the_partition_from_each_other(
    redis_database: str,
    database: str,
    entities_a_call: int,
    records: list[Record],
    cuts: list[int],
    interleaving: Sequence[tuple[int, str]],
) -> None:
    log = list(runs(records, cuts))
    ends = []
    for steps_of_two in ((), interleaving):
        empty(redis_database, database)
        for make in (
            lambda: OnlineSink(redis_database, entities_a_call=entities_a_call),
            lambda: OfflineSink(database),
        ):
            with closing() as opened:
                sinks = [opened(make()) for _ in range(2)]
                two = [Agent(worker(sink, capacity=2)) for sink in sinks]
                at = [0, 0]
                for number, step in [*steps_of_two, (0, BACK), *[(0, COMPUTE)] * len(log)]:
                    agent = two[number]
                    if step == STORE:
                        agent.store()
                    elif step == BACK:
                        agent.begin_generation()
                        stored = sinks[number].watermarks(TOPIC_ID, [0]).get(0, 0)
                        at[number] = sum(run.next_offset <= stored for run in log)
                    elif at[number] < len(log):
                        agent.compute(log[at[number]])
                        at[number] += 1
                for agent in two:
                    agent.begin_generation()
        ends.append((redis_dump(redis_database), postgres_dump(database)))
    assert ends[0] == ends[1]


@pytest.fixture(params=["redis", "postgres"])
def store(request: pytest.FixtureRequest, redis_database: str, database: str) -> Any:
    """How to make a sink of the store, what is in it, and how to empty it."""
    if request.param == "redis":
        return (
            lambda: OnlineSink(redis_database),
            lambda: redis_dump(redis_database),
            lambda: empty(redis_database, database),
        )
    return (
        lambda: OfflineSink(database),
        lambda: postgres_dump(database),
        lambda: empty_postgres(database),
    )


def alone(opened: Opened, make: Callable[[], Sink], log: Sequence[Run]) -> None:
    """One worker that stores each run before it computes the next one."""
    work = worker(opened(make()))
    for run in log:
        work.materialize(run, GO_ON)


def test_another_worker_was_faster(opened: Opened, store: Any) -> None:
    make, dump, clear = store
    log = list(runs(ticks(["A", "B", "C"], 120, seq=False), (40, 80)))
    paused = worker(opened(make()))
    paused.materialize(log[0], GO_ON)
    computed = [paused.compute_ahead(run) for run in log[1:]]
    alone(opened, make, log[:2])
    assert paused.store(computed[0]) is None
    assert paused.materialize_again(log[1], GO_ON) is None
    assert paused.store(computed[1]) is None
    assert paused.materialize_again(log[2], GO_ON) is not None
    found = dump()
    clear()
    alone(opened, make, log)
    assert found == dump()


def test_the_answer_of_the_store_is_lost(opened: Opened, store: Any) -> None:
    """It has the run, or not: the worker cannot tell, and computes on what it had before."""
    make, dump, clear = store
    log = list(runs(ticks(["A", "B", "C"], 160, seq=False), (40, 80, 120)))
    for is_stored in (True, False):
        clear()
        sink = opened(make())
        work = worker(sink)
        work.materialize(log[0], GO_ON)
        first, second = (work.compute_ahead(run) for run in log[1:3])
        assert first is not None
        assert second is not None

        def lose(store: Store = first.store, is_stored: bool = is_stored) -> Any:
            if is_stored:
                store()
            raise StoreUnavailable("the connection is gone")

        assert work.store(first._replace(store=lose)) is None
        work.materialize_again(log[1], GO_ON)
        assert work.store(second) is None
        work.materialize_again(log[2], GO_ON)
        work.materialize(log[3], GO_ON)
        found = dump()
        clear()
        alone(opened, make, log)
        assert found == dump()


def test_an_entity_has_its_home_elsewhere_by_then(opened: Opened, database: str) -> None:
    """It is new in both runs of one partition, and another partition becomes its home."""
    here = list(runs(ticks(["A", "B"], 40), (20,)))
    (there,) = runs(ticks(["A"], 5), ())
    work = worker(opened(OfflineSink(database)))
    computed = [work.compute_ahead(run) for run in here]
    worker(opened(OfflineSink(database))).materialize(replace(there, partition=1), GO_ON)
    for run, ahead in zip(here, computed, strict=True):
        assert work.store(ahead) is None
        work.materialize_again(run, GO_ON)
    rows, rejected = postgres_dump(database)
    assert {(row[0], row[10]) for row in rows} == {("A", 1), ("B", 0)}
    assert [reason for _, _, reason in rejected] == ["wrong-partition"] * 20
