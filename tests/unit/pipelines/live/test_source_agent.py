"""The agent of a source: what is computed, stored, acknowledged and forgotten, and when."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.errors import ConsumerEnded, ParityViolation, Stopped
from pipelines.kafka.run import Run
from pipelines.live.faust_app import SinkApp
from pipelines.live.source_agent import SourceAgent
from tests.support.apps import an_app, failure, in_a_loop, run

ALONE, AHEAD = 1_000, 0
"""Runs of one record are small, or none is."""

both = pytest.mark.parametrize("small_run", [ALONE, AHEAD])


class Store:
    """In place of a materializer and its store; notes what happens.

    At the run at `fails_at` it raises `error`; without one it does not take that run.
    """

    source = "price"

    def __init__(self, error: Exception | None = None, fails_at: int = -1) -> None:
        self.happened: list[str] = []
        self.computed_second = Event()
        self._error, self._fails_at = error, fails_at
        self._forgotten = 0
        self._computed: dict[int, int] = {}
        """How often all had been forgotten when a run was computed."""

    def forget(self) -> None:
        self._forgotten += 1
        self.happened.append("forget")

    def materialize(self, run: Run, stop: Event) -> str:
        return self._note("store", run.base_offset)

    def compute_ahead(self, run: Run) -> int:
        self._note("compute", run.base_offset)
        if run.base_offset == 1:
            self.computed_second.set()
        self._computed[run.base_offset] = self._forgotten
        return run.base_offset

    def is_current(self, computed: int) -> bool:
        return self._computed[computed] == self._forgotten

    def store(self, computed: int) -> str | None:
        if (computed == self._fails_at and self._error is None) or not self.is_current(computed):
            return None
        return self._note("store", computed)

    def materialize_again(self, run: Run, stop: Event) -> str:
        self._forgotten += 1
        return self._note("again", run.base_offset)

    def _note(self, what: str, offset: int) -> str:
        if offset == self._fails_at and self._error is not None:
            raise self._error
        self.happened.append(f"{what} {offset}")
        return what

    def stream(self, *events: tuple[int, ...]) -> Any:
        """What an agent reads: by generation and offsets, runs of one record; notes the acks."""

        async def events_of() -> AsyncIterator[Any]:
            for generation, *bases in events:
                yield SimpleNamespace(
                    message=SimpleNamespace(generation_id=generation),
                    value=tuple(run(base, base + 1) for base in bases),
                    ack=functools.partial(self.happened.append, f"ack {bases[-1]}"),
                )

        return SimpleNamespace(noack=lambda: SimpleNamespace(events=events_of))


async def consume(
    app: SinkApp,
    store: Any,
    small_run: int,
    *events: tuple[int, ...],
    stored: Callable[[Any], None] = lambda batch: None,
) -> None:
    agent = SourceAgent(app, store, Event(), stored, small_run)
    await agent.consume(store.stream(*events))


@both
@in_a_loop
async def test_nothing_that_is_remembered_outlives_a_generation(small_run: int) -> None:
    """Partitions may have been elsewhere in between, even if none was reported as revoked."""
    app, store = an_app(), Store()
    await consume(app, store, small_run, (1, 0), (1, 5), (2, 9), (2, 12))
    done = [what for what in store.happened if not what.startswith("compute")]
    assert done == [
        *("forget", "store 0", "ack 0", "store 5", "ack 5"),
        *("forget", "store 9", "ack 9", "store 12", "ack 12"),
    ]
    # a stream that ends without a request to stop leaves its topic unread
    assert isinstance(await failure(app), ConsumerEnded)


@in_a_loop
async def test_a_small_run_is_stored_before_the_next_one_is_looked_at() -> None:
    store = Store()
    await consume(an_app(), store, ALONE, (1, 0), (1, 1))
    assert store.happened == ["forget", "store 0", "ack 0", "store 1", "ack 1"]


@both
@in_a_loop
async def test_runs_of_one_event_are_stored_in_their_order_before_its_ack(small_run: int) -> None:
    store, stored = Store(), list[str]()
    await consume(an_app(), store, small_run, (1, 0, 5, 7), (1, 8), stored=stored.append)
    done = [what for what in store.happened if not what.startswith("compute")]
    assert done == ["forget", "store 0", "store 5", "store 7", "ack 7", "store 8", "ack 8"]
    assert len(stored) == 4


@both
@in_a_loop
async def test_no_run_is_acked_with_one_of_its_event_that_was_not_stored(small_run: int) -> None:
    error, app = ParityViolation("A", 1, 0), an_app()
    store = Store(error, fails_at=5)
    await consume(app, store, small_run, (1, 0, 5, 7), (1, 8))
    assert await failure(app) is error
    done = [what for what in store.happened if what.startswith(("store", "ack"))]
    # the next run may be computed, and fail, before the first one has begun to be stored
    assert done in ([], ["store 0"])


@in_a_loop
async def test_a_large_run_is_computed_while_the_one_before_is_stored() -> None:
    class Slow(Store):
        def store(self, computed: int) -> str | None:
            assert computed > 0 or self.computed_second.wait(30)
            return super().store(computed)

    store = Slow()
    await consume(an_app(), store, AHEAD, (1, 0), (1, 1), (1, 2))
    order = store.happened.index
    assert order("compute 1") < order("store 0") < order("ack 0") < order("store 1")
    assert [what for what in store.happened if "ack" in what] == ["ack 0", "ack 1", "ack 2"]


@in_a_loop
async def test_what_the_store_does_not_take_is_computed_again() -> None:
    store, stored = Store(fails_at=0), list[str]()
    await consume(an_app(), store, AHEAD, (1, 0), (1, 1), stored=stored.append)
    done = [what for what in store.happened if not what.startswith("compute")]
    assert done == ["forget", "again 0", "ack 0", "again 1", "ack 1"]
    assert stored == ["again", "again"]


@in_a_loop
async def test_runs_are_computed_ahead_again_after_one_that_was_not_stored() -> None:
    """What was computed before that is computed again, and nothing after it."""
    store = Store(fails_at=0)
    await consume(an_app(), store, AHEAD, *((1, base) for base in range(8)))
    done = [what for what in store.happened if what.startswith(("again", "store"))]
    assert done == ["again 0", "again 1", *(f"store {base}" for base in range(2, 8))]


@both
@pytest.mark.parametrize("error", [ParityViolation("A", 1, 0), Stopped()])
@in_a_loop
async def test_a_run_that_was_not_stored_is_not_acked(small_run: int, error: Exception) -> None:
    """Nor is one after it: its ack would cover both."""
    app, store = an_app(), Store(error, fails_at=1)
    await consume(app, store, small_run, (1, 0), (1, 1), (1, 2))
    assert [what for what in store.happened if "ack" in what] in (["ack 0"], [])
    assert "store 2" not in store.happened
    if isinstance(error, Stopped):
        assert not app.failed.done()
    else:
        assert await failure(app) is error


@in_a_loop
async def test_an_error_of_a_store_ends_the_worker_though_no_other_run_comes() -> None:
    class Failing(Store):
        def store(self, computed: int) -> str | None:
            raise error

    async def events_of() -> AsyncIterator[Any]:
        message = SimpleNamespace(generation_id=1)
        yield SimpleNamespace(message=message, value=(run(0, 1),), ack=lambda: None)
        assert await failure(app) is error

    error, app = ParityViolation("A", 1, 0), an_app()
    store: Any = Failing()
    stream = SimpleNamespace(noack=lambda: SimpleNamespace(events=events_of))
    await SourceAgent(app, store, Event(), lambda batch: None, AHEAD).consume(stream)


@in_a_loop
async def test_an_agent_works_on_one_stream() -> None:
    """Two at once would store the runs of a partition in any order."""
    app = an_app(Store())
    assert [agent.concurrency for agent in app.agents.values()] == [1]


@in_a_loop
async def test_an_agent_that_is_started_again_waits_for_what_was_under_way() -> None:
    """Faust starts one again that was cancelled while the app goes on.

    States that are loaded while a run is stored are those of before, and Postgres compares none.
    """

    class Slow(Store):
        begun, go_on = Event(), Event()

        def store(self, computed: int) -> str | None:
            self.begun.set()
            assert computed > 0 or self.go_on.wait(30)
            return super().store(computed)

    store, app = Slow(), an_app()
    work: Any = store
    agent = SourceAgent(app, work, Event(), lambda batch: None, AHEAD)
    first = asyncio.create_task(agent.consume(store.stream((1, 0))))
    assert await asyncio.to_thread(store.begun.wait, 30)
    first.cancel()
    await asyncio.wait([first])
    store.happened.clear()
    again = asyncio.create_task(agent.consume(store.stream((1, 5))))
    await asyncio.sleep(0.05)
    store.go_on.set()
    await again
    assert store.happened == ["store 0", "forget", "compute 5", "store 5", "ack 5"]
