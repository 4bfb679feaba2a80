"""The drain loop between what a rebalance may change at any moment, without a broker."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from threading import Event
from types import SimpleNamespace
from typing import Any, ParamSpec

import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipelines.errors import (
    ConsumerEnded,
    OffsetsWentBack,
    ParityViolation,
    Stopped,
    TopicMissing,
    TopicRecreated,
)
from pipelines.kafka.run import Run
from pipelines.kafka.topic_identity import Incarnations
from pipelines.kafka.topics import Topic
from pipelines.live.faust_app import GroupMember, Pipeline, SinkApp, agent_of, create_app
from pipelines.live.materializer import Materializer
from registry.definitions import Source
from tests.support.logs import run_of_columns
from tests.support.shipped import SOURCE

P = ParamSpec("P")
TOPIC = "ticks.price"
TOPIC_ID = bytes(16)
HERE = TP(TOPIC, 0)


def run(base: int, following: int) -> Run:
    offsets = range(base, following)
    values = [b"{}"] * len(offsets)
    return replace(
        run_of_columns(0, (base, following), offsets, offsets, values, values), topic_id=TOPIC_ID
    )


class Thread:
    """In place of aiokafka's: gives the runs that it was given, then ends the loop."""

    def __init__(self, app: SinkApp, *fetched: Any) -> None:
        self.app = app
        self.fetched = list(fetched)
        self.went_to: list[Mapping[TP, int]] = []
        self.position = 0

    async def fetch(self, partitions: set[TP]) -> list[Run]:
        assert partitions == {HERE}
        if not self.fetched:
            self.app._stopped.set()
            self.app.consumer._stopped.set()
            return []
        found = self.fetched.pop(0)
        if callable(found):
            found = found()
        return [] if found is None else [found]

    def next_fetched(self, tp: TP) -> int:
        return self.position

    async def go_to(self, positions: Mapping[TP, int]) -> None:
        self.went_to.append(positions)


class Fixed(Incarnations):
    """Answers of the broker, one after the other, in place of a broker."""

    def __init__(self, *answers: Exception | None) -> None:
        super().__init__("nobody:1", {TOPIC: Topic(TOPIC, TOPIC_ID, 1)})
        self.answers = list(answers)

    def confirm(self) -> None:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


def an_app(
    materializers: Mapping[str, Materializer] | None = None,
    sources: Mapping[str, Source] | None = None,
) -> SinkApp:
    def watermarks(tps: Iterable[TP]) -> Mapping[TP, int | None]:
        return dict.fromkeys(tps, 5)

    pipeline = Pipeline(materializers or {}, sources or {}, Fixed(), watermarks)
    made = create_app(GroupMember("group", "one", 6.0), "127.0.0.1:1", pipeline, lambda batch: None)
    made.finalize()
    return made


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return call


def drained(app: SinkApp, *fetched: Any) -> tuple[Any, list[Any]]:
    """The consumer, about to drain, and where its runs go."""
    consumer: Any = app.consumer
    delivered: list[Any] = []

    async def deliver(message: Any) -> None:
        delivered.append(message.value)

    consumer.callback = deliver
    consumer._thread.thread_loop.close()  # it was made, and never runs
    consumer._thread = Thread(app, *fetched)
    consumer._active_partitions = {HERE}
    return consumer, delivered


async def failure(app: SinkApp) -> BaseException:
    return await asyncio.wait_for(app.failed, 10)


@in_a_loop
async def test_a_run_of_a_generation_that_is_over_is_dropped() -> None:
    app = an_app()

    def rebalanced() -> Run:
        app.consumer_generation_id += 1
        return run(0, 5)

    consumer, delivered = drained(app, rebalanced, run(5, 9))
    await consumer._drain_messages(consumer)
    assert [run.base_offset for run in delivered] == [5]


@in_a_loop
async def test_positions_that_a_rebalance_outran_are_looked_up_again() -> None:
    app = an_app()
    consumer, _ = drained(app)
    asked: list[list[TP]] = []

    def watermarks(tps: Iterable[TP]) -> Mapping[TP, int | None]:
        asked.append(list(tps))
        if len(asked) == 1:
            app.consumer_generation_id += 1
        return dict.fromkeys(tps, 5)

    app.watermarks = watermarks  # type: ignore[method-assign]
    consumer._unpositioned = {HERE}
    await consumer._find_positions()
    assert (consumer._unpositioned, consumer._thread.went_to) == ({HERE}, [])
    await consumer._find_positions()
    assert (consumer._unpositioned, consumer._thread.went_to) == (set(), [{HERE: 5}])
    assert consumer.following(HERE) == 5
    # nothing may come that would be acked: the store may have it from elsewhere
    assert consumer._new_offset(HERE) == 5


@in_a_loop
async def test_what_retention_has_deleted_lies_inside_a_run() -> None:
    app = an_app()
    consumer, delivered = drained(app, run(5, 7), run(9, 11), run(3, 5))
    consumer._unpositioned = {HERE}
    await consumer._drain_messages(consumer)
    assert [(run.base_offset, run.next_offset) for run in delivered] == [(5, 7), (7, 11)]
    assert isinstance(await failure(app), OffsetsWentBack)


@in_a_loop
async def test_a_log_that_was_cut_to_its_end_is_at_its_end() -> None:
    """No record comes that would tell of it; the worker must not count as behind for ever."""
    app = an_app()

    def reset() -> None:
        consumer._thread.position = 50

    consumer, delivered = drained(app, run(5, 7), reset, None, run(50, 52))
    consumer._unpositioned = {HERE}
    await consumer._drain_messages(consumer)
    spans = [(run.base_offset, run.next_offset, len(run)) for run in delivered]
    assert spans == [(5, 7, 2), (7, 50, 0), (50, 52, 2)]


@in_a_loop
async def test_a_commit_that_is_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the group rebalances; no later ack may come that would bring it along."""
    asked: list[Mapping[TP, int]] = []

    async def refuse_the_first(self: Any, offsets: Mapping[TP, int]) -> bool:
        asked.append(offsets)
        return len(asked) > 1

    monkeypatch.setattr(driver.Consumer, "_commit", refuse_the_first)
    monkeypatch.setattr(driver.Consumer, "assignment", lambda self: {HERE})
    consumer, _ = drained(an_app())
    consumer._acked_to[HERE] = 7
    for _ in range(3):
        await consumer.force_commit()
    assert asked == [{HERE: 7}, {HERE: 7}]


@in_a_loop
async def test_who_gets_no_partitions_waits_for_no_positions() -> None:
    """A look-up that failed in an earlier generation is over."""
    app = an_app()
    asked: list[Any] = []
    app.pipeline = replace(app.pipeline, watermarks=lambda tps: asked.append(tps) or {})
    consumer, _ = drained(app)
    with contextlib.suppress(Exception):  # there is no group whose generation this could be
        await consumer.on_partitions_assigned(set(), 1)
    assert asked == [()]


@in_a_loop
async def test_a_run_that_is_only_delivered_is_not_behind_the_worker() -> None:
    """Who has just taken a partition over must not say that it is at the end."""
    app = an_app()
    consumer, delivered = drained(app, run(5, 70))
    consumer._unpositioned = {HERE}
    await consumer._drain_messages(consumer)
    assert [run.next_offset for run in delivered] == [70]
    assert consumer.following(HERE) == 5
    assert consumer.ack(consumer._to_message(HERE, delivered[0]))
    assert consumer.following(HERE) == 70


@in_a_loop
async def test_a_doubtful_topic_is_looked_up_before_its_runs_are_delivered() -> None:
    app = an_app()
    consumer, delivered = drained(app, run(0, 5), run(5, 7))
    incarnations = Fixed(TopicMissing(TOPIC, ""), None, TopicRecreated(TOPIC))
    incarnations.doubt()
    app.incarnations = incarnations
    await consumer._drain_messages(consumer)
    assert [run.base_offset for run in delivered] == [0]
    assert isinstance(await failure(app), TopicRecreated)


@pytest.mark.parametrize("error", [asyncio.CancelledError, OSError])
@in_a_loop
async def test_a_loop_that_ends_by_itself_ends_the_worker(error: type[BaseException]) -> None:
    app = an_app()

    def ends() -> Run:
        raise error

    consumer, _ = drained(app, ends)
    with contextlib.suppress(asyncio.CancelledError):
        await consumer._drain_messages(consumer)
    told = await failure(app)
    assert isinstance(told, OSError if error is OSError else ConsumerEnded)


@in_a_loop
async def test_a_service_of_faust_that_crashes_ends_the_worker() -> None:
    """As its thread does where a commit is refused for good."""
    app = an_app()
    reason = OSError("no more")
    consumer, _ = drained(app)
    await consumer.crash(reason)
    assert await failure(app) is reason


@in_a_loop
async def test_an_ack_of_a_generation_that_is_over_counts_for_nothing() -> None:
    app = an_app()
    consumer, _ = drained(app)
    old = consumer._to_message(HERE, run(0, 5))
    app.consumer_generation_id += 1
    new = consumer._to_message(HERE, run(5, 9))
    assert not consumer.ack(old)
    assert list(consumer._filter_tps_with_pending_acks()) == []
    assert consumer.ack(new)
    assert consumer._new_offset(HERE) == 9
    assert consumer.following(HERE) == 9


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

        async def made() -> AsyncIterator[Any]:
            for generation, base in events:
                yield SimpleNamespace(
                    message=SimpleNamespace(generation_id=generation),
                    value=run(base, base + 1),
                    ack=functools.partial(self.happened.append, f"ack {base}"),
                )

        return SimpleNamespace(noack=lambda: SimpleNamespace(events=made))


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
    # a stream that ends while nobody asked for it leaves its topic unread
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
    app = an_app({"price": store}, {"price": SOURCE})
    assert [agent.concurrency for agent in app.agents.values()] == [1]
