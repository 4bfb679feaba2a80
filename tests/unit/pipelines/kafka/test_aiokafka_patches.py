"""aiokafka is still as `pipelines.kafka.aiokafka_patches` assumes.

A contract test of the installed version: an upgrade of aiokafka that changes what is relied on
fails here, and not in production. The private names are aiokafka's, and they are the subject.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance
from aiokafka.consumer.subscription_state import Subscription
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.protocol.offset import OffsetRequest

from pipelines.kafka import aiokafka_patches
from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.live.group_membership import assignors

TP = TopicPartition("ticks.price", 0)
NODE = 3
ASSIGNORS = assignors({TP.topic: bytes(16)})


class Broker:
    """In place of the network: keeps the requests, and responds but to look-ups of offsets."""

    def __init__(self, error_code: int = 0) -> None:
        self.error_code = error_code
        self.requests: list[Any] = []

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        self.requests.append(request)
        if isinstance(request, OffsetRequest):
            await asyncio.Event().wait()
        if isinstance(request, FetchRequest):
            return SimpleNamespace(topics=[(TP.topic, [(0, self.error_code, 9, 9, [], b"")])])
        joined = {"member_id": "m", "generation_id": 1, "group_protocol": "p", "leader_id": "other"}
        return SimpleNamespace(error_code=0, member_assignment=b"share", **joined)


Test = Callable[[AIOKafkaConsumer, Broker], Coroutine[Any, Any, None]]


def in_group(test: Test) -> Callable[[], None]:
    """The test with a started consumer that is a static member and is not subscribed yet."""
    return _started(test, group_id="group", group_instance_id="one")


def without_group(test: Test) -> Callable[[], None]:
    """The test with a started consumer without a group and without partitions."""
    return _started(test, group_id=None)


def _started(test: Test, **options: Any) -> Callable[[], None]:
    async def connected() -> None:
        return None

    async def run() -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers="127.0.0.1:1", auto_offset_reset="earliest", **options
        )
        aiokafka_patches.configure(consumer, 50, ASSIGNORS)
        broker, client = Broker(), consumer._client
        client.bootstrap, client.send = connected, broker.send
        client.cluster.leader_for_partition = lambda tp: NODE
        await consumer.start()
        await asyncio.sleep(0)  # its tasks begin
        try:
            await test(consumer, broker)
        finally:
            await consumer.stop()

    @functools.wraps(test)
    def call() -> None:
        asyncio.run(asyncio.wait_for(run(), 20))

    del call.__wrapped__  # pytest would look for fixtures by the parameters of the test
    return call


class Kept:
    """A value of the buffer; keeps how often aiokafka asks how long to wait for it."""

    def __init__(self, backoff: float) -> None:
        self.backoff, self.asked = backoff, 0

    def calculate_backoff(self) -> float:
        self.asked += 1
        return self.backoff


class Fetches:
    """In place of `RunFetcher.fetch_from_node`: keeps its arguments, and puts a value."""

    def __init__(self, consumer: AIOKafkaConsumer, value: Any = None) -> None:
        self.internals = FetcherInternals(consumer)
        self.value = value
        self.calls: list[tuple[Any, int, Any]] = []
        self.internals.replace_fetch(self.fetch)
        consumer.assign([TP])
        consumer.seek(TP, 7)

    async def fetch(self, assignment: Any, node_id: int, request: Any) -> bool:
        self.calls.append((assignment, node_id, request))
        if self.value is None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
            return False
        self.internals.buffer[TP] = self.value
        return True


def refuse(consumer: AIOKafkaConsumer) -> asyncio.Future[Any]:
    """What the coordinator does when the broker refuses the group; waits until it is raised."""
    error = errors.GroupAuthorizationFailedError("group")
    return asyncio.ensure_future(consumer._coordinator._push_error_to_user(error))


# -- a member of a group


@in_group
async def test_start_reads_what_was_configured(consumer: AIOKafkaConsumer, broker: Broker) -> None:
    assert consumer._fetcher._fetch_max_wait_ms == 50
    assert FetcherInternals(consumer).reads_committed
    assert consumer._coordinator._assignors == ASSIGNORS


@without_group
async def test_a_look_up_may_take_longer_than_a_request(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    requests = consumer._client._request_timeout_ms
    aiokafka_patches.allow_calls(consumer, 30)
    with pytest.raises(errors.KafkaTimeoutError):
        await consumer.beginning_offsets([TP])
    assert consumer._client._request_timeout_ms == requests > 30


@in_group
async def test_a_member_joins_with_one_request(consumer: AIOKafkaConsumer, broker: Broker) -> None:
    aiokafka_patches.join_once(consumer)
    coordinator = consumer._coordinator
    coordinator.coordinator_id = NODE
    subscription = Subscription({TP.topic})
    rebalance = CoordinatorGroupRebalance(
        coordinator, "group", NODE, subscription, coordinator._assignors, 6000, 100
    )
    assert await rebalance.perform_group_join() == ("p", b"share")
    join, sync = broker.requests
    assert isinstance(join, JoinGroupRequest)
    assert [name for name, _ in join._group_protocols] == [a.name for a in ASSIGNORS]
    assert isinstance(sync, SyncGroupRequest)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_static_member_leaves_only_when_it_is_made_to(leaves: bool) -> None:
    kept: list[Broker] = []

    async def join(consumer: AIOKafkaConsumer, broker: Broker) -> None:
        consumer._coordinator.coordinator_id, consumer._coordinator.generation = NODE, 1
        if leaves:
            aiokafka_patches.leave_group_when_stopped(consumer)
        kept.append(broker)

    in_group(join)()
    assert any(isinstance(request, LeaveGroupRequest) for request in kept[0].requests) == leaves


@in_group
async def test_an_error_of_the_group_is_raised(consumer: AIOKafkaConsumer, broker: Broker) -> None:
    aiokafka_patches.raise_background_errors(consumer)
    refused = refuse(consumer)
    with pytest.raises(errors.GroupAuthorizationFailedError):
        aiokafka_patches.raise_background_errors(consumer)
    await refused


@in_group
async def test_a_fetcher_that_ended_is_an_error(consumer: AIOKafkaConsumer, broker: Broker) -> None:
    consumer._fetcher.error_future.cancel()
    await asyncio.wait([consumer._fetcher.error_future])
    with pytest.raises(errors.ConsumerStoppedError):
        aiokafka_patches.raise_background_errors(consumer)


@in_group
async def test_an_error_of_the_group_wakes_those_who_wait(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    waiting = asyncio.create_task(FetcherInternals(consumer).wait_for_data(10))
    await asyncio.sleep(0)
    refused = refuse(consumer)
    with pytest.raises(errors.GroupAuthorizationFailedError):
        await waiting
    with pytest.raises(errors.GroupAuthorizationFailedError):
        aiokafka_patches.raise_background_errors(consumer)
    await refused


@in_group
async def test_the_coordinator_sees_that_records_are_taken(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    await asyncio.sleep(0.01)
    assert consumer._subscription.fetcher_idle_time > 0
    with aiokafka_patches.fetching(consumer):
        assert consumer._subscription.fetcher_idle_time == 0


@without_group
async def test_an_assignment_is_waited_for_while_the_group_rebalances(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    assert aiokafka_patches.assignment_of(consumer) is None
    waiting = asyncio.create_task(FetcherInternals(consumer).wait_while_rebalancing())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    consumer.assign([TP])
    await waiting


# -- fetches


@without_group
async def test_an_assignment_has_a_state_for_each_partition(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    Fetches(consumer)
    assignment = aiokafka_patches.assignment_of(consumer)
    assert (assignment.active, assignment.tps) == (True, {TP})
    state = assignment.state_value(TP)
    assert (state.has_valid_position, state.position, state.paused) == (True, 7, False)
    assert (state.highwater, state.lso, state.timestamp) == (None, None, None)
    state.highwater, state.lso, state.timestamp = 20, 19, 5_000
    assert (consumer.highwater(TP), consumer.last_stable_offset(TP)) == (20, 19)
    assert consumer.last_poll_timestamp(TP) == 5_000
    state.consumed_to(9)
    assert await consumer.position(TP) == 9
    consumer.pause(TP)
    assert state.paused
    consumer.unsubscribe()
    consumer.assign([TP])
    assert not assignment.active
    assert aiokafka_patches.assignment_of(consumer) is not assignment


@without_group
async def test_a_position_is_reset_as_the_consumer_is_set_to(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    fetches = Fetches(consumer)
    state = aiokafka_patches.assignment_of(consumer).state_value(TP)
    fetches.internals.reset_position(state)
    assert (state.has_valid_position, state.reset_strategy) == (False, -2)


def test_a_fetch_has_the_signature_that_is_replaced() -> None:
    parameters = inspect.signature(Fetcher._proc_fetch_request).parameters
    assert list(parameters) == ["self", "assignment", "node_id", "request"]
    assert inspect.iscoroutinefunction(Fetcher._proc_fetch_request)


@without_group
async def test_fetches_are_those_of_the_replacement(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    fetches = Fetches(consumer, Kept(0.0))
    assert await fetches.internals.wait_for_data(10)
    ((assignment, node_id, request),) = fetches.calls
    assert assignment is aiokafka_patches.assignment_of(consumer)
    assert node_id == NODE
    ((topic, ((partition, offset, _),)),) = request.topics
    assert (topic, partition, offset) == (TP.topic, TP.partition, 7)
    assert broker.requests == []
    await fetches.internals.send(node_id, request)
    assert broker.requests == [request]


@without_group
async def test_what_is_kept_is_not_fetched_again_until_it_is_dropped(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    kept = Kept(30.0)
    fetches = Fetches(consumer, kept)
    assert await fetches.internals.wait_for_data(10)
    assert not await fetches.internals.wait_for_data(0.05)
    assert (len(fetches.calls), dict(fetches.internals.buffer)) == (1, {TP: kept})
    assert kept.asked > 0
    fetches.internals.drop(TP)
    assert await fetches.internals.wait_for_data(10)
    assert len(fetches.calls) == 2


@without_group
async def test_a_seek_and_a_new_assignment_empty_the_buffer(
    consumer: AIOKafkaConsumer, broker: Broker
) -> None:
    fetches = Fetches(consumer, Kept(30.0))
    assert await fetches.internals.wait_for_data(10)
    fetches.value = None
    consumer.seek(TP, 8)
    assert fetches.internals.buffer == {}
    fetches.internals.buffer[TP] = Kept(30.0)
    consumer.unsubscribe()
    other = TopicPartition(TP.topic, 1)
    consumer.assign([other])
    consumer.seek(other, 0)
    await asyncio.sleep(0.05)
    assert fetches.internals.buffer == {}
    assert not fetches.internals.is_assigned(TP)


FETCH = FetchRequest(50, 1, 1, 1, [(TP.topic, [(0, 7, 1)])])


@without_group
async def test_a_stopped_consumer_is_closed(consumer: AIOKafkaConsumer, broker: Broker) -> None:
    internals = FetcherInternals(consumer)
    assert not internals.closed
    assert internals.retry_backoff == 0.1
    internals.refresh_metadata()
    await consumer.stop()
    assert internals.closed
