"""A member of a consumer group: the app, and the thread in which aiokafka's consumer lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import chain
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import ConsumerStoppedError, InvalidSessionTimeoutError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipelines.errors import SessionRefused
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import fetch_runs
from pipelines.kafka.topic_identity import Incarnations
from pipelines.ticks.run_limits import bounded

logger = logging.getLogger(__name__)

FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch without data. Faust's 1,500 ms hold up the partitions of a
node that have data while one that is drained waits."""

POLL_SECONDS = 0.25
"""How long to wait for data before looking whether the worker should stop."""

BACKGROUND_SECONDS = 1.0
"""Between looks at what works in the background."""


class RunApp(faust.App):
    """A Faust app that knows its topics' incarnations and where its store wants to go on."""

    incarnations: Incarnations
    pace: float
    """Seconds from the beginning of one fetch to the next; `fetch_runs` has the exceptions."""

    def watermarks(self, tps: Iterable[TP]) -> Mapping[TP, int | None]:
        """The next offset that the store wants of each partition, None from its beginning. Blocks.

        Raises `StoreUnavailable` while the store is away.
        """
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End the worker: only a new start, or a person, can help. From any thread."""
        raise NotImplementedError

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop; a crash is none of that."""
        return bool(self._stopped.is_set())

    def _crash(self, reason: BaseException) -> None:
        # Faust marks its services as crashed, they stop, and nobody else is told
        super()._crash(reason)
        self.fail(reason)

    def _create_directories(self) -> None:
        """None: tables would need them, and there are no tables."""


def assignors(
    topic_ids: Mapping[str, bytes], count: Callable[[int], None] = lambda members: None
) -> list[type[RoundRobinPartitionAssignor]]:
    """How the group shares out partitions: in turn, under a name that tells the incarnations.

    The leader, who shares them out, is told by `count` of how many members the group has.

    A static member that starts again gets its old assignment back without a rebalance, even one
    from when a topic was not there. The coordinator rebalances when the group's protocol changes
    its name, and a topic that was made anew changes this one. The plain assignor is for the moment
    in which members of both names are in the group.
    """
    incarnations = b"".join(topic_ids[topic] for topic in sorted(topic_ids))
    name = f"roundrobin-{sha256(incarnations).hexdigest()[:12]}"

    class Counting(RoundRobinPartitionAssignor):  # type: ignore[misc]
        @classmethod
        def assign(cls, cluster: Any, members: Any) -> Any:
            count(len(members))
            return super().assign(cluster, members)

    named = type("NamedAssignor", (Counting,), {"name": name})
    return [named, Counting]


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Tells Faust of assignments, each as a generation of its own."""

    _thread: ConsumerThread

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        thread, share = self._thread, {TP(*tp) for tp in assigned}
        thread.app.consumer_generation_id += 1
        thread.joined(len(share))
        await thread.on_partitions_assigned(share, thread.app.consumer_generation_id)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka's consumer lives."""

    app: RunApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._shared_among: int | None = None  # told to the leader, before it has its share
        self._is_alone = True
        self._watching: asyncio.Future[None] | None = None
        super().__init__(*args, **kwargs)

    def _shares_out(self, members: int) -> None:
        self._shared_among = members

    def joined(self, share: int) -> None:
        """A generation has begun, with a share of so many partitions.

        Who came back as the static member that it was is told of no members, but has its share.
        """
        self._is_alone = self._shared_among == 1 or share == self.app.incarnations.partitions
        self._shared_among = None

    async def on_start(self) -> None:
        await super().on_start()
        self._join_once(self._ensure_consumer()._coordinator)
        self._watching = asyncio.ensure_future(self._watch())

    def _join_once(self, coordinator: Any) -> None:
        """Ask to join with all assignors at once.

        aiokafka asks with the first one, then with the first two, and takes the last answer. Each
        question begins a rebalance of the whole group; with two members these may never end.
        """
        send, complete = coordinator._send_req, len(coordinator._assignors)

        async def sending(request: Any) -> Any:
            asks = isinstance(request, JoinGroupRequest)
            if asks and len(request._group_protocols) < complete:
                return SimpleNamespace(error_code=0)
            return await send(request)

        coordinator._send_req = sending

    async def _watch(self) -> None:
        """End the worker when what works in the background has failed.

        aiokafka's group member and fetcher keep an error until they are asked for it, and the
        member does nothing more until then: nobody fetches while the group is joined, so nobody
        would ask.
        """
        consumer = self._ensure_consumer()
        try:
            while True:
                await asyncio.sleep(BACKGROUND_SECONDS)
                consumer._coordinator.check_errors()
                fetching = consumer._fetcher.error_future
                if fetching.done():
                    fetching.result()
                    raise ConsumerStoppedError
        except InvalidSessionTimeoutError:
            self.app.fail(SessionRefused(self.app.conf.broker_session_timeout))
        except Exception as error:
            if not self.app.stopping:
                logger.exception("the consumer cannot go on")
                self.app.fail(error)

    async def on_thread_stop(self) -> None:
        """Leave the group, if others are there to take the partitions over.

        A static member does not leave by itself: it may be back before its session ends, and so it
        is where it is alone; a broker lets the first member of an empty group wait for others. One
        that is not static always leaves.
        """
        if self._watching is not None:
            self._watching.cancel()
        if self._consumer is not None and not self._is_alone:
            self._consumer._coordinator._group_instance_id = None  # a dynamic one leaves
        await super().on_thread_stop()

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # the driver has no setting for these; the consumer reads them when it starts
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        consumer._partition_assignment_strategy = assignors(
            self.app.incarnations.ids, self._shares_out
        )
        self._notice_refusals(consumer)
        return consumer

    def _notice_refusals(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """A fetch that is refused may mean that a topic is gone; aiokafka tries again and again."""
        client = consumer._client
        send = client.send

        async def noticing(node: Any, request: Any, **options: Any) -> Any:
            response = await send(node, request, **options)
            if isinstance(request, FetchRequest) and any(
                code for _, partitions in response.topics for _, code, *_ in partitions
            ):
                self.app.incarnations.doubt()
            return response

        client.send = noticing

    async def fetch(self, partitions: set[TP]) -> list[Run]:
        return await self.call_thread(self._fetch, partitions)  # type: ignore[no-any-return]

    async def _fetch(self, partitions: set[TP]) -> list[Run]:
        # looked at here, in the thread: a rebalance may have begun since the call was queued
        if not self.consumer.flow_active:
            return []
        consumer = self._ensure_consumer()
        with consumer._subscription.fetch_context():
            ids, pace = self.app.incarnations.ids, self.app.pace
            runs = await fetch_runs(consumer, partitions, ids, POLL_SECONDS, pace=pace)
        return list(chain.from_iterable(map(bounded, runs)))

    async def go_to(self, positions: Mapping[TP, int]) -> None:
        await self.call_thread(self._go_to, positions)

    async def _go_to(self, positions: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in positions.items():
            if tp in consumer.assignment():
                consumer.seek(TopicPartition(*tp), offset)

    def ends(self) -> dict[TP, tuple[int, float]]:
        """The end of each partition's log, and when it was told: by the last answer to a fetch.

        Unix seconds. What may be read can end earlier, where a transaction is open.
        """
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None:
            return {}
        states = {TP(*tp): assignment.state_value(tp) for tp in assignment.tps}
        return {
            tp: (state.highwater, state.timestamp / 1000)
            for tp, state in states.items()
            if state.highwater is not None and state.timestamp is not None
        }

    def next_fetched(self, tp: TP) -> int:
        """The next offset to be fetched, 0 before it is known."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or TopicPartition(*tp) not in assignment.tps:
            return 0
        state = assignment.state_value(TopicPartition(*tp))
        return int(state.position) if state.has_valid_position else 0
