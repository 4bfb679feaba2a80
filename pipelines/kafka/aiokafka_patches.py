"""Everything that is used of aiokafka beyond its public interface.

aiokafka publishes no way to get fetched bytes, to join a group with one request, to leave a group
as a static member, or to learn that a background task has failed. What is needed for these is
reached for here and nowhere else. `pyproject.toml` pins the version, and
`tests/unit/pipelines/kafka/test_aiokafka_patches.py` checks for the installed one that each name,
signature and meaning is still as this module assumes.

A *consumer* is an `AIOKafkaConsumer`. An *assignment* is aiokafka's `Assignment`, the partitions of
one generation; its `state_value(tp)` is a `TopicPartitionState`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import ConsumerStoppedError
from aiokafka.protocol.group import JoinGroupRequest

Fetch = Callable[[Any, int, Any], Awaitable[bool]]
"""Fetches for an assignment from a node, by its id, with a `FetchRequest`. Returns whether data or
an error was put into the buffer, so that `wait_for_data` returns; False when it is cancelled."""

# -- before a consumer starts


def configure(
    consumer: AIOKafkaConsumer, fetch_wait_ms: int, assignors: Sequence[type[Any]]
) -> None:
    """Read what is committed, with these assignors; a broker holds an empty fetch `fetch_wait_ms`.

    For a consumer made by a library, whose constructor arguments are out of reach. Relies on
    `AIOKafkaConsumer.start`, which reads `_fetch_max_wait_ms`, `_isolation_level` and
    `_partition_assignment_strategy` of the consumer.
    """
    consumer._fetch_max_wait_ms = fetch_wait_ms
    consumer._isolation_level = "read_committed"
    consumer._partition_assignment_strategy = list(assignors)


def allow_calls(consumer: AIOKafkaConsumer, timeout_ms: int) -> None:
    """Let a look-up of offsets take `timeout_ms` in all, whatever its requests may take.

    By aiokafka's one setting for both it would fail with the first request that is given up, which
    is when another node would be asked. Relies on `AIOKafkaConsumer._request_timeout_ms`, of which
    its client has a copy from when it was made.
    """
    consumer._request_timeout_ms = timeout_ms


# -- a started member of a group


def join_once(consumer: AIOKafkaConsumer) -> None:
    """Join the group with one request that names all assignors.

    aiokafka sends a request with the first assignor, then one with the first two, and uses the last
    response. Each request begins a rebalance of the whole group; with two members these may never
    end. Relies on `CoordinatorGroupRebalance.perform_group_join`, which sends by
    `_coordinator._send_req`, one request for each of `_coordinator._assignors`, and ignores of all
    but the last response everything except `error_code`; and on
    `JoinGroupRequest._group_protocols`, the assignors named by a request.
    """
    coordinator = consumer._coordinator
    send, complete = coordinator._send_req, len(coordinator._assignors)

    async def send_complete(request: Any) -> Any:
        joins = isinstance(request, JoinGroupRequest)
        if joins and len(request._group_protocols) < complete:
            return SimpleNamespace(error_code=0)
        return await send(request)

    coordinator._send_req = send_complete


def member_id_of(consumer: AIOKafkaConsumer) -> str:
    """The id that the broker gave a member of a group, "" before it has joined.

    Relies on `AIOKafkaConsumer._coordinator` and its `member_id`.
    """
    return str(getattr(consumer._coordinator, "member_id", ""))


def leave_group_when_stopped(consumer: AIOKafkaConsumer) -> None:
    """Let a static member leave its group when the consumer stops, as a dynamic one does.

    Relies on `GroupCoordinator._maybe_leave_group`, called by `close`, which sends a
    `LeaveGroupRequest` where `_group_instance_id` is None.
    """
    consumer._coordinator._group_instance_id = None


def raise_background_errors(consumer: AIOKafkaConsumer) -> None:
    """Raise what has ended the group's membership or the fetcher in the background.

    aiokafka keeps such an error until a fetch or a commit asks for it. Relies on
    `_coordinator.check_errors`, and on `_fetcher.error_future`, the task of the fetcher, which ends
    without an error only when it is cancelled; `ConsumerStoppedError` is raised for that.
    """
    consumer._coordinator.check_errors()
    fetching = consumer._fetcher.error_future
    if fetching.done():
        fetching.result()
        raise ConsumerStoppedError


def fetching(consumer: AIOKafkaConsumer) -> AbstractContextManager[None]:
    """The context in which records are taken, so that the coordinator sees that they are.

    A member that takes nothing for `max_poll_interval_ms` leaves its group. Relies on
    `_subscription.fetch_context`.
    """
    context: AbstractContextManager[None] = consumer._subscription.fetch_context()
    return context


def assignment_of(consumer: AIOKafkaConsumer) -> Any:
    """The consumer's assignment, None while it has none; safe to call from any thread.

    The public methods look the assignment up at every call, and another thread may have replaced it
    in between. Relies on `_subscription.subscription`, which is None before `subscribe`, and on its
    `assignment`.
    """
    subscription = consumer._subscription.subscription
    return None if subscription is None else subscription.assignment


# -- the fetcher of a started consumer


class FetcherInternals:
    """The fetcher of a started consumer, `consumer._fetcher`, as far as `RunFetcher` needs it."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._fetcher = consumer._fetcher

    def replace_fetch(self, fetch: Fetch) -> None:
        """Fetch by `fetch` from now on.

        Relies on `Fetcher._fetch_requests_routine`, which calls `self._proc_fetch_request` with
        positional arguments as a task for each node, cancels it when the assignment ends, and sends
        no other request to the node before it has returned.
        """
        self._fetcher._proc_fetch_request = fetch

    @property
    def buffer(self) -> MutableMapping[TopicPartition, Any]:
        """What was fetched and not taken yet, by partition.

        Relies on `Fetcher._records`. The fetcher calls `calculate_backoff()` of a value for the
        seconds that the next fetch from its node has to wait, fetches no partition that has a
        value, and removes values itself after a seek and when the assignment ends.
        """
        buffer: MutableMapping[TopicPartition, Any] = self._fetcher._records
        return buffer

    def drop(self, tp: TopicPartition) -> None:
        """Remove what was fetched of a partition, so that it is fetched again at once.

        Relies on `Fetcher._notify` and `Fetcher._wait_consume_future`, by which the fetcher hears
        that the buffer has room.
        """
        del self._fetcher._records[tp]
        self._fetcher._notify(self._fetcher._wait_consume_future)

    @property
    def closed(self) -> bool:
        """Whether the consumer is stopped or stopping. Relies on `_closed` of both."""
        return bool(self._consumer._closed or self._fetcher._closed)

    @property
    def reads_committed(self) -> bool:
        """Whether aborted transactions are left out. Relies on `Fetcher._isolation_level`."""
        return bool(self._fetcher._isolation_level == READ_COMMITTED)

    @property
    def retry_backoff(self) -> float:
        """Seconds between a failed fetch and the next. Relies on `Fetcher._retry_backoff`."""
        return float(self._fetcher._retry_backoff)

    async def wait_while_rebalancing(self) -> None:
        """Wait for the next assignment while the current one is being replaced.

        Relies on `Fetcher._subscriptions`, its `reassignment_in_progress` and
        `wait_for_assignment`.
        """
        subscriptions = self._fetcher._subscriptions
        if subscriptions.reassignment_in_progress:
            await subscriptions.wait_for_assignment()

    async def wait_for_data(self, timeout: float) -> bool:
        """Wait until a fetch has brought something; False when nothing came in `timeout` seconds.

        Raises an error of the group that aiokafka hands to all who wait. Relies on
        `Fetcher._create_fetch_waiter`, a future that is resolved when `Fetch` has returned True.
        """
        waiter = self._fetcher._create_fetch_waiter()
        done, _ = await asyncio.wait([waiter], timeout=timeout)
        if not done:
            waiter.cancel()
            return False
        waiter.result()
        return True

    async def send(self, node_id: int, request: Any) -> Any:
        """Send a request to a node; returns its response. Relies on `AIOKafkaClient.send`."""
        return await self._fetcher._client.send(node_id, request)

    def reset_position(self, state: Any) -> None:
        """Let the fetcher find the position of a partition as `auto_offset_reset` says.

        Relies on `Fetcher._default_reset_strategy` and on `await_reset` of the partition's state.
        """
        state.await_reset(self._fetcher._default_reset_strategy)

    def refresh_metadata(self) -> None:
        """Ask for the leaders of partitions. Relies on `AIOKafkaClient.force_metadata_update`."""
        self._fetcher._client.force_metadata_update()

    def is_assigned(self, tp: TopicPartition) -> bool:
        """Whether the partition is assigned to the consumer."""
        return tp in self._consumer.assignment()
