"""The agents: what is stored, acked and forgotten, and when."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.errors import ConsumerEnded, ParityViolation, Stopped
from pipelines.kafka.run import Run
from pipelines.live.faust_app import agent_of
from tests.support.apps import an_app, failure, in_a_loop, run


class Store:
    """In place of a materializer and its store; notes what happens, and may fail at a run."""

    source = "price"

    def __init__(self, error: Exception | None = None, fails_at: int = -1) -> None:
        self.happened: list[str] = []
        self._error, self._fails_at = error, fails_at

    def forget(self) -> None:
        self.happened.append("forget")

    def materialize(self, run: Run, stop: Event) -> None:
        if run.base_offset == self._fails_at and self._error is not None:
            raise self._error
        self.happened.append(f"store {run.base_offset}")

    def stream(self, *events: tuple[int, int]) -> Any:
        """What an agent reads: runs of one record, by generation and offset; notes the acks."""

        async def events_of() -> AsyncIterator[Any]:
            for generation, base in events:
                yield SimpleNamespace(
                    message=SimpleNamespace(generation_id=generation),
                    value=run(base, base + 1),
                    ack=functools.partial(self.happened.append, f"ack {base}"),
                )

        return SimpleNamespace(noack=lambda: SimpleNamespace(events=events_of))


@in_a_loop
async def test_nothing_that_is_remembered_outlives_a_generation() -> None:
    """Partitions may have been elsewhere in between, even if none was reported as revoked."""
    app = an_app()
    store: Any = Store()
    await agent_of(app, store)(store.stream((1, 0), (1, 5), (2, 9), (2, 12)))
    assert [what for what in store.happened if "ack" not in what] == [
        *("forget", "store 0", "store 5"),
        *("forget", "store 9", "store 12"),
    ]
    # a stream that ends without a request to stop leaves its topic unread
    assert isinstance(await failure(app), ConsumerEnded)


@in_a_loop
async def test_a_run_is_acked_when_it_is_stored() -> None:
    app = an_app()
    store: Any = Store()
    await agent_of(app, store)(store.stream((1, 0), (1, 1)))
    assert store.happened == ["forget", "store 0", "ack 0", "store 1", "ack 1"]


@pytest.mark.parametrize("error", [ParityViolation("A", 1, 0), Stopped()])
@in_a_loop
async def test_a_run_that_was_not_stored_is_not_acked(error: Exception) -> None:
    """Nor is one after it: its ack would cover both."""
    app = an_app()
    store: Any = Store(error, fails_at=1)
    await agent_of(app, store)(store.stream((1, 0), (1, 1), (1, 2)))
    assert store.happened == ["forget", "store 0", "ack 0"]
    if isinstance(error, Stopped):
        assert not app.failed.done()
    else:
        assert await failure(app) is error


@in_a_loop
async def test_an_agent_works_on_one_run_at_a_time() -> None:
    """Two at once would store the runs of a partition in any order."""
    store: Any = Store()
    app = an_app(store)
    assert [agent.concurrency for agent in app.agents.values()] == [1]
