"""A Faust transport that delivers a run of records as one event.

Stock Faust spends 70 to 100 µs of event loop on a message. Here an event is a whole run
(`pipelines.fetch`), and what Faust does per event is paid once a run. Groups, rebalancing, commits
and monitoring stay Faust's. What is different, and why:

- Positions come from the store, not from Kafka's committed offsets: the store's watermark is the
  truth. They are looked up in the drain loop, which can wait for a store that is away; Faust's own
  place for it, `perform_seek`, would time out and crash the worker.
- Acks are kept as the next offset of each partition. Faust's list of acked numbers counts an event
  as one offset, and its gap arithmetic commits past the run that follows a gap.
- A full buffer blocks the drain loop. Faust's way, to pause the partition, leaves `getmany`
  waiting on the partitions that were active when it began.
- An ack counts only in the generation that fetched the run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar, cast

import aiokafka
import faust
from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from pipelines.errors import OffsetsWentBack, StoreUnavailable
from pipelines.fetch import fetch_runs
from pipelines.runs import Run

logger = logging.getLogger(__name__)

FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch without data. Faust's 1,500 ms hold up the partitions of a
node that have data while one that is drained waits."""

POLL_SECONDS = 1.0
"""How long to wait for data before looking whether the worker should stop."""


class RunApp(faust.App):
    """A Faust app that knows its topics' incarnations and where its store wants to go on."""

    topic_ids: Mapping[str, bytes]

    def watermark(self, tp: TP) -> int | None:
        """The next offset that the store wants of a partition, None from the beginning. Blocks.

        Raises `StoreUnavailable` while the store is away.
        """
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End the worker: only a new start, or a person, can help."""
        raise NotImplementedError


def assignors(topic_ids: Mapping[str, bytes]) -> list[type[RoundRobinPartitionAssignor]]:
    """How the group shares out partitions: in turn, under a name that tells the incarnations.

    A static member that starts again gets its old assignment back without a rebalance, even one
    from when a topic was not there. The coordinator rebalances when the group's protocol changes
    its name, and a topic that was made anew changes this one. The plain assignor is for the moment
    in which members of both names are in the group.
    """
    incarnations = b"".join(topic_ids[topic] for topic in sorted(topic_ids))
    name = f"roundrobin-{sha256(incarnations).hexdigest()[:12]}"
    named = type("NamedAssignor", (RoundRobinPartitionAssignor,), {"name": name})
    return [named, RoundRobinPartitionAssignor]


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka's consumer lives."""

    app: RunApp

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # the driver has no setting for these; the consumer reads them when it starts
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        consumer._partition_assignment_strategy = assignors(self.app.topic_ids)
        return consumer

    async def fetch(self, partitions: set[TP]) -> list[Run]:
        return await self.call_thread(self._fetch, partitions)  # type: ignore[no-any-return]

    async def _fetch(self, partitions: set[TP]) -> list[Run]:
        # looked at here, in the thread: a rebalance may have begun since the call was queued
        if not self.consumer.flow_active:
            return []
        consumer = self._ensure_consumer()
        with consumer._subscription.fetch_context():
            return await fetch_runs(consumer, partitions, self.app.topic_ids, POLL_SECONDS)

    async def go_to(self, positions: Mapping[TP, int]) -> None:
        await self.call_thread(self._go_to, positions)

    async def _go_to(self, positions: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in positions.items():
            if tp in consumer.assignment():
                consumer.seek(TopicPartition(*tp), offset)

    def end_offset(self, tp: TP) -> int | None:
        """The end of what may be read, as of the last fetch: past it are open transactions."""
        return self._ensure_consumer().last_stable_offset(TopicPartition(*tp))  # type: ignore[no-any-return]


class Consumer(driver.Consumer):
    """Delivers runs; see the module."""

    app: RunApp
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._acked_to: dict[TP, int] = {}
        self._unpositioned: set[TP] = set()
        self._expected: dict[TP, int | None] = {}
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- positions

    async def perform_seek(self) -> None:
        """Faust calls this after every rebalance, before it lets events flow again."""
        assignment = self.assignment()
        self._unpositioned = set(assignment)
        self._acked_to.clear()
        for tp in assignment:
            self._committed_offset[tp] = None

    async def _find_positions(self) -> None:
        """Go to where the store wants to go on; waits for the store as long as it takes."""
        wanted = set(self._unpositioned)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(0.05, max=5),
            sleep=self.sleep,
        ):
            if self.should_stop or not self.flow_active:
                return
            with attempt:
                positions = {
                    tp: await asyncio.to_thread(self.app.watermark, tp) for tp in sorted(wanted)
                }
        # offset 0 may be gone already: the broker then says so, and the earliest one is read
        await self._thread.go_to({tp: offset or 0 for tp, offset in positions.items()})
        self._expected.update(positions)
        self._unpositioned -= wanted

    # -- delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch runs and hand them to the agents' streams until the worker stops."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                if not self.flow_active:
                    await self.wait_first(self.can_resume_flow.wait(), timeout=POLL_SECONDS)
                    continue
                if self._unpositioned:
                    await self._find_positions()
                    continue
                partitions = set(self._get_active_partitions())
                if not partitions:
                    await self.sleep(0.1)
                    continue
                generation = self.app.consumer_generation_id
                for run in await self._thread.fetch(partitions):
                    # a run that is dropped here is fetched again: a rebalance ends with a seek
                    if not self.flow_active or generation != self.app.consumer_generation_id:
                        break
                    message = self._to_message(TP(run.topic, run.partition), self._meet(run))
                    await self.wait_first(self.callback(message), self.suspend_flow.wait())
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as error:
            logger.exception("the consumer cannot go on")
            self.app.fail(error)

    def _meet(self, run: Run) -> Run:
        """The run, beginning where the one before it ended.

        They meet but where the broker has thrown records away before they were read.
        """
        tp = TP(run.topic, run.partition)
        expected = self._expected.get(tp)
        self._expected[tp] = run.next_offset
        if expected is None or expected == run.base_offset:
            return run
        if run.base_offset < expected:
            raise OffsetsWentBack(run.topic, run.partition, expected, run.base_offset)
        logger.error(
            "%s[%d]: offsets %d to %d were deleted by retention before they were read: "
            "their ticks are lost",
            run.topic,
            run.partition,
            expected,
            run.base_offset - 1,
        )
        return replace(run, base_offset=expected)

    def _to_message(self, tp: TP, record: Run) -> ConsumerMessage:
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.next_offset - 1,
            timestamp=0.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=cast(bytes, record),  # Faust passes it on as it is: the topics' codec is `raw`
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: a full buffer blocks the drain loop."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Nothing, as for `on_buffer_full`."""

    # -- acks

    def ack(self, message: Message) -> bool:
        """A run is stored; it is committed with the next commit of its generation."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        if message.generation_id != self.app.consumer_generation_id:
            return False
        self._acked_to[message.tp] = message.offset + 1
        self._n_acked += 1
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (
            tp
            for tp in list(self._acked_to)
            if topics is None or tp in topics or tp.topic in topics
        )

    def _new_offset(self, tp: TP) -> int | None:
        return self._acked_to.pop(tp, None)

    def acked_to(self, tp: TP) -> int | None:
        """The next offset after the newest run that was stored, None before the first one."""
        return self._acked_to.get(tp) or self._committed_offset[tp]

    def expected(self, tp: TP) -> int:
        """The next offset to be delivered."""
        return self._expected.get(tp) or 0

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: heartbeats tell lag and stalls; Faust's test takes a quiet topic for one."""

    def end_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """The ends of partitions as far as they are known."""
        ends = {tp: self._thread.end_offset(tp) for tp in tps}
        return {tp: end for tp, end in ends.items() if end is not None and end >= 0}


class Transport(driver.Transport):
    """Chosen by the scheme of the broker's URL, `tickwell://host:port`."""

    Consumer: ClassVar[type[Consumer]] = Consumer
