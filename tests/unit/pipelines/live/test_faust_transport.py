"""The drain loop between what a rebalance may change at any moment, without a broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from faust.types import TP
from mode import Service

from pipelines.errors import (
    ConsumerEnded,
    OffsetsWentBack,
    StoreUnavailable,
    TopicMissing,
    TopicRecreated,
)
from pipelines.kafka.connection import KafkaConnection
from pipelines.kafka.run import SMALL_RUN, Run
from pipelines.kafka.topic_identity import Incarnations
from pipelines.kafka.topics import Topic
from pipelines.live.faust_app import SinkApp
from pipelines.live.faust_transport import Consumer
from registry.definitions import RecordedRules, RulesStart
from registry.source_rules import SourceRules
from tests.support.apps import TOPIC, Unchanged, an_app, failure, in_a_loop, run
from tests.support.shipped import RULES, SOURCE

HERE = TP(TOPIC.name, 0)


class Thread(Service):
    """In place of aiokafka's: fetches the runs that it was given, then is cancelled."""

    def __init__(self, *fetched: Any) -> None:
        super().__init__()
        self.fetched = list(fetched)
        self.asked: list[set[TP]] = []
        self.went_to: list[Mapping[TP, int]] = []
        self.position = 0

    async def fetch(self, partitions: set[TP]) -> list[Run]:
        self.asked.append(partitions)
        await asyncio.sleep(0)
        if not self.fetched:
            raise asyncio.CancelledError
        found = self.fetched.pop(0)
        if callable(found):
            found = found()
        if found is None:
            return []
        return found if isinstance(found, list) else [found]

    def next_fetched(self, tp: TP) -> int:
        return self.position

    async def go_to(self, positions: Mapping[TP, int]) -> None:
        self.went_to.append(positions)


class Reader(Consumer):
    """The consumer of an app, with one partition and a thread without aiokafka."""

    def __init__(self, app: SinkApp, *fetched: Any) -> None:
        self.thread = Thread(*fetched)
        self.messages: list[Any] = []
        self.commits: list[Mapping[TP, int]] = []
        super().__init__(app.transport, self.deliver, self.nothing, self.nothing, beacon=app.beacon)
        self._active_partitions = self.assignment()

    def _new_consumer_thread(self) -> Any:
        return self.thread

    async def deliver(self, message: Any) -> None:
        self.messages.append(message)

    async def nothing(self, *arguments: Any) -> None:
        """In place of what the app does in a rebalance."""

    @property
    def delivered(self) -> list[Run]:
        return [run for message in self.messages for run in message.value]

    async def drain(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._drain_messages(self)

    def assignment(self) -> set[TP]:
        return {HERE}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Refuses the first commit, as while the group rebalances."""
        self.commits.append(offsets)
        return len(self.commits) > 1


class Fixed(Incarnations):
    """Answers of the broker, one after the other, in place of a broker."""

    def __init__(self, *answers: Exception | None) -> None:
        super().__init__(KafkaConnection("127.0.0.1:1"), {TOPIC.name: TOPIC})
        self.answers = list(answers)

    def confirm(self) -> None:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer


@in_a_loop
async def test_a_run_of_a_generation_that_is_over_is_dropped() -> None:
    app = an_app()

    def rebalanced() -> Run:
        app.consumer_generation_id += 1
        return run(0, 5)

    reader = Reader(app, rebalanced, run(0, 9))  # it is fetched again
    await reader.drain()
    assert bounds(reader.delivered) == [(0, 9)]


def of_two_rules(start: int) -> SourceRules:
    """Other rules hold from an offset on."""
    begin = RulesStart(TOPIC.topic_id, 0, start)
    return SourceRules([RecordedRules(1, SOURCE), RecordedRules(2, SOURCE, (begin,))])


@in_a_loop
async def test_a_run_is_delivered_in_pieces_of_one_set_of_rules() -> None:
    """Also what was deleted before it was read, which no fetched run has."""
    reader = Reader(an_app(rules=of_two_rules(3)), run(0, 5), run(5, 6))
    await reader.drain()
    assert bounds(reader.delivered) == [(0, 3), (3, 5), (5, 6)]
    reader = Reader(an_app(rules=of_two_rules(3)), run(0, 2), run(4, 6))
    await reader.drain()
    assert bounds(reader.delivered) == [(0, 2), (2, 3), (3, 6)]


@in_a_loop
async def test_the_rest_of_a_run_is_dropped_with_its_generation() -> None:
    app = an_app(rules=of_two_rules(SMALL_RUN))
    reader = Reader(app, run(0, SMALL_RUN + 5), run(SMALL_RUN + 5, SMALL_RUN + 9))
    deliver = reader.callback

    async def rebalanced(message: Any) -> None:
        await deliver(message)
        app.consumer_generation_id = 1

    reader.callback = rebalanced
    await reader.drain()
    assert bounds(reader.delivered) == [(0, SMALL_RUN), (SMALL_RUN + 5, SMALL_RUN + 9)]


@in_a_loop
async def test_small_runs_of_one_fetch_are_one_event_and_one_ack() -> None:
    others = [TP(TOPIC.name, partition) for partition in (1, 2)]
    fetched = [run(0, 5), *(replace(run(3, 8), partition=tp.partition) for tp in others)]
    large = run(5, 5 + SMALL_RUN)
    reader = Reader(an_app(), fetched, [large, replace(run(8, 9), partition=1)])
    await reader.drain()
    first, alone, last = reader.messages
    assert [(each.partition, each.next_offset) for each in first.value] == [(0, 5), (1, 8), (2, 8)]
    assert (bounds(alone.value), bounds(last.value)) == ([(5, 5 + SMALL_RUN)], [(8, 9)])
    assert reader.ack(first)
    assert [reader.progress.to_commit(tp) for tp in (HERE, *others)] == [5, 8, 8]
    assert reader.ack(last)
    assert [reader.progress.to_commit(tp) for tp in (HERE, *others)] == [5, 9, 8]


def bounds(runs: Sequence[Run]) -> list[tuple[int, int]]:
    return [(run.base_offset, run.next_offset) for run in runs]


@in_a_loop
async def test_positions_that_a_rebalance_outran_are_looked_up_again() -> None:
    app = an_app()
    reader = Reader(app)
    look_ups: list[list[TP]] = []

    def watermarks(tps: Collection[TP]) -> Mapping[TP, int | None]:
        look_ups.append(list(tps))
        if len(look_ups) == 1:
            app.consumer_generation_id += 1
        return dict.fromkeys(tps, 5)

    app.pipeline = replace(app.pipeline, watermarks=watermarks)
    reader.progress.begin({HERE})
    await reader.find_positions()
    assert (reader.progress.unpositioned, reader.thread.went_to) == ({HERE}, [])
    await reader.find_positions()
    assert (reader.progress.unpositioned, reader.thread.went_to) == (set(), [{HERE: 5}])
    assert reader.following(HERE) == 5


@pytest.mark.parametrize(("stored", "begins"), [(None, 0), (0, 0), (5, 5)])
def test_the_stores_position_counts_and_not_that_of_kafka(stored: int | None, begins: int) -> None:
    @in_a_loop
    async def positioned() -> None:
        app = an_app()
        app.pipeline = replace(app.pipeline, watermarks=lambda tps: dict.fromkeys(tps, stored))
        reader = Reader(app)
        await reader.on_partitions_assigned({HERE}, app.consumer_generation_id)
        await reader.find_positions()
        assert reader.thread.went_to == [{HERE: begins}]

    positioned()


@in_a_loop
async def test_what_retention_has_deleted_lies_inside_a_run() -> None:
    app = an_app()
    reader = Reader(app, run(5, 7), run(9, 11), run(3, 5))
    reader.progress.begin({HERE})
    await reader.drain()
    assert [(run.base_offset, run.next_offset) for run in reader.delivered] == [(5, 7), (7, 11)]
    assert isinstance(await failure(app), OffsetsWentBack)


@in_a_loop
async def test_a_log_that_was_truncated_to_its_end_is_at_its_end() -> None:
    """No record comes that would show it; the worker must not count as behind forever."""

    def truncated() -> None:
        reader.thread.position = 50

    reader = Reader(an_app(), run(5, 7), truncated, None, run(50, 52))
    reader.progress.begin({HERE})
    await reader.drain()
    spans = [(run.base_offset, run.next_offset, len(run)) for run in reader.delivered]
    assert spans == [(5, 7, 2), (7, 50, 0), (50, 52, 2)]


@in_a_loop
async def test_a_commit_that_is_refused_is_tried_again() -> None:
    """No later ack may come that would include it."""
    reader = Reader(an_app())
    reader.progress.store(HERE, 7)
    for _ in range(3):
        await reader.force_commit()
    assert reader.commits == [{HERE: 7}, {HERE: 7}]


@in_a_loop
async def test_a_worker_without_partitions_waits_for_no_positions() -> None:
    """A look-up that failed in an earlier generation is over."""
    app = an_app()
    look_ups: list[Any] = []

    def watermarks(tps: Collection[TP]) -> Mapping[TP, int | None]:
        look_ups.append(tps)
        return {}

    app.pipeline = replace(app.pipeline, watermarks=watermarks)
    with contextlib.suppress(Exception):  # the group does not exist
        await Reader(app).on_partitions_assigned(set(), 1)
    assert look_ups == [()]


@in_a_loop
async def test_a_look_up_that_fails_after_its_generation_is_not_waited_for() -> None:
    """Else a worker that has lost its partitions meanwhile would report the failure for ever."""
    app = an_app()
    look_ups: list[list[TP]] = []

    def watermarks(tps: Collection[TP]) -> Mapping[TP, int | None]:
        look_ups.append(list(tps))
        if tps:
            app.consumer_generation_id += 1
            raise StoreUnavailable("connection refused")
        return {}

    app.pipeline = replace(app.pipeline, watermarks=watermarks)
    reader = Reader(app)
    reader.progress.begin({HERE})
    await reader.find_positions()
    assert look_ups == [[HERE], []]


@in_a_loop
async def test_a_run_that_is_only_delivered_is_not_stored() -> None:
    """A worker that has just taken a partition over must not seem to be at the end."""
    reader = Reader(an_app(), run(5, 70))
    reader.progress.begin({HERE})
    await reader.drain()
    assert [run.next_offset for run in reader.delivered] == [70]
    assert reader.following(HERE) == 5
    assert reader.ack(reader.messages[0])
    assert reader.following(HERE) == 70


@in_a_loop
async def test_a_topic_is_looked_up_before_its_first_run_and_when_it_is_doubtful() -> None:
    app = an_app()
    reader = Reader(app, run(0, 5), run(5, 7))
    incarnations = Fixed(TopicMissing(TOPIC.name, ""), None, TopicRecreated(TOPIC.name))
    app.incarnations = incarnations
    await reader.drain()
    assert [run.base_offset for run in reader.delivered] == [0]
    assert isinstance(await failure(app), TopicRecreated)


def test_nothing_is_certain_of_a_topic_before_it_is_looked_up() -> None:
    assert not Incarnations(KafkaConnection("127.0.0.1:1"), {TOPIC.name: TOPIC}).certain


@pytest.mark.parametrize("error", [asyncio.CancelledError, OSError])
@in_a_loop
async def test_a_loop_that_ends_by_itself_ends_the_worker(error: type[BaseException]) -> None:
    app = an_app()

    def ends() -> Run:
        raise error

    await Reader(app, ends).drain()
    assert isinstance(await failure(app), OSError if error is OSError else ConsumerEnded)


@in_a_loop
async def test_a_service_of_faust_that_crashes_ends_the_worker() -> None:
    """As its thread does where a commit is refused permanently."""
    app = an_app()
    reason = OSError("no more")
    await Reader(app).crash(reason)
    assert await failure(app) is reason


@in_a_loop
async def test_an_ack_of_a_generation_that_is_over_counts_for_nothing() -> None:
    app = an_app()

    def rebalanced() -> None:
        app.consumer_generation_id += 1

    reader = Reader(app, run(0, 5), rebalanced, run(5, 9))
    await reader.drain()
    old, new = reader.messages
    assert not reader.ack(old)
    assert reader.progress.uncommitted == []
    assert reader.ack(new)
    assert reader.progress.to_commit(HERE) == 9
    assert reader.following(HERE) == 9


OTHER = Topic("ticks.other", bytes([1] * 16), 1)
THERE = TP(OTHER.name, 0)


class Waiting:
    """In place of the materializer of a source that waits for its schema registry."""

    needs_schemas = waits_for_schemas = True


@pytest.mark.parametrize("is_rebalanced", [False, True])
@in_a_loop
async def test_a_source_that_waits_for_its_schemas_does_not_hold_up_others(
    is_rebalanced: bool,
) -> None:
    """Its runs are kept and follow in their order; those of a generation that is over do not."""
    app, waiting, taken = an_app(), Waiting(), asyncio.Event()
    other = SourceRules([RecordedRules(1, msgspec.structs.replace(SOURCE, name="other"))])
    app.rules = {TOPIC.name: RULES, OTHER.name: other}
    app.incarnations = Unchanged(
        KafkaConnection("127.0.0.1:1"), {TOPIC.name: TOPIC, OTHER.name: OTHER}
    )
    app.pipeline = replace(app.pipeline, materializers={"other": waiting})

    def of_other(base: int, following: int) -> Run:
        return replace(run(base, following), topic=OTHER.name, topic_id=OTHER.topic_id)

    def answers() -> None:
        if is_rebalanced:
            app.consumer_generation_id += 1
            reader.progress.begin(())
        waiting.waits_for_schemas = False
        taken.set()

    class Blocked(Reader):
        async def deliver(self, message: Any) -> None:
            if message.tp == THERE:
                await taken.wait()
            await super().deliver(message)

        def assignment(self) -> set[TP]:
            return {HERE, THERE}

    n = SMALL_RUN
    first = [of_other(0, n), of_other(n, n + 4), run(0, 5)]
    reader = Blocked(app, first, run(5, 9), answers, *[None] * 9, of_other(n + 4, n + 6))
    await reader.drain()
    asked = reader.thread.asked
    assert asked[0] == asked[-1] == {HERE, THERE}
    assert asked[1] == asked[2] == {HERE}
    assert bounds(reader.delivered)[:2] == [(0, 5), (5, 9)]
    assert {run.topic for run in reader.delivered[:2]} == {TOPIC.name}
    of_there = bounds([each for each in reader.delivered if each.topic == OTHER.name])
    rest = [] if is_rebalanced else [(n, n + 4)]
    assert of_there == [(0, n), *rest, (n + 4, n + 6)]
