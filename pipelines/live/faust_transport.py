"""A Faust transport that delivers runs of records as events.

Stock Faust spends 70 to 100 µs of event loop on a message. Here an event is a whole run
(`kafka.run_fetcher`), or the small runs of a topic that came with one fetch, and what Faust does
for each event is paid once for them. Groups, rebalancing, commits and monitoring stay Faust's. The
differences, and why:

- Positions come from the store, not from Kafka's committed offsets: the store's watermark is the
  truth. They are looked up in the drain loop, which can wait for a store that is unavailable;
  Faust's own method for it, `perform_seek`, would time out and crash the worker.
- Acks are kept as the next offset of each partition (`PartitionProgress`).
- A full buffer blocks the drain loop. Faust's way, to pause the partition, leaves `getmany`
  waiting on the partitions that were active when it began. Only a topic whose source waits for its
  schema registry is left behind, and not fetched until its runs are delivered: other sources need
  no registry, or another schema.
- Generations are counted here, because Faust recognizes old events by their number. Kafka gives the
  same number again to a member that rejoins without a rebalance, and to a group that was forgotten.
- Runs are delivered only while the topics are known to be those that the worker started with.
- What ends in the background ends the worker: one that waits for a dead task looks alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from pipelines.errors import BrokerUnavailable, ConsumerEnded, StoreUnavailable, TopicMissing
from pipelines.kafka.run import Run, together
from pipelines.live.consumer_thread import POLL_SECONDS, ConsumerThread, RebalanceListener, fail_on
from pipelines.live.partition_progress import PartitionProgress
from pipelines.live.run_app import RunApp
from pipelines.runtime.daemon_threads import DaemonExecutor
from pipelines.ticks.rules_decoder import decodable

CONFIRM_SECONDS = 0.25
"""Seconds between look-ups of the topics while runs wait for one."""

NO_PARTITIONS_SECONDS = 0.1
"""Seconds between checks for an assignment."""

STALL_CHECK_SECONDS = 0.25
"""Seconds between looks at why a run is not taken."""


class Consumer(driver.Consumer):
    """Delivers runs; the module says how."""

    app: RunApp
    _thread: ConsumerThread
    RebalanceListener: ClassVar[type[RebalanceListener]] = RebalanceListener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.progress = PartitionProgress()
        self._lookups = DaemonExecutor("positions")
        self._behind: dict[str, asyncio.Task[None]] = {}
        """The delivery of each topic that is not fetched until it is done."""
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- positions

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """A new generation begins.

        This is the first that the main thread hears of it. Any later, as in `perform_seek`, the
        drain loop of a worker without partitions could already fetch, from Kafka's offsets.
        """
        self.progress.begin(assigned)
        for tp in assigned:
            self._committed_offset[tp] = None
        if not assigned:
            self.app.watermarks(())  # ends a look-up that an earlier generation waited for
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Nothing: the drain loop goes to the store's positions before it fetches."""

    async def find_positions(self) -> None:
        """Go to the positions of the store; waits for it as long as it takes."""
        generation = self.app.consumer_generation_id
        wanted = sorted(self.progress.unpositioned)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(0.05, max=5),
            sleep=self.sleep,
        ):
            if self._is_over(generation):
                self.app.watermarks(())  # a look-up that has failed is not waited for any more
                return
            with attempt:
                positions = await asyncio.get_running_loop().run_in_executor(
                    self._lookups, self.app.watermarks, wanted
                )
        # Another generation may have begun meanwhile; these are not its positions.
        if self._is_over(generation):
            return
        # Offset 0 may be deleted: the broker then says so, and the earliest offset is read.
        await self._thread.go_to({tp: offset or 0 for tp, offset in positions.items()})
        if not self._is_over(generation):
            self.progress.resume(positions)

    def _is_over(self, generation: int) -> bool:
        """Whether what was begun in a generation is dropped; its records are fetched again."""
        return (
            self.should_stop
            or not self.flow_active
            or generation != self.app.consumer_generation_id
        )

    # -- delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch runs and hand them to the agents' streams until the worker stops."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                if not self.flow_active:
                    await self.wait_first(self.can_resume_flow.wait(), timeout=POLL_SECONDS)
                elif self.progress.unpositioned:
                    await self.find_positions()
                elif partitions := set(self._get_active_partitions()):
                    await self._deliver_next(partitions)
                else:
                    await self.sleep(NO_PARTITIONS_SECONDS)
        except Exception as error:
            fail_on(self.app, error)
        finally:
            for delivery in self._behind.values():
                delivery.cancel()
            if not self.app.stopping:
                self.app.fail(ConsumerEnded())

    async def _deliver_next(self, partitions: set[TP]) -> None:
        generation = self.app.consumer_generation_id
        self._catch_up()
        partitions = {tp for tp in partitions if tp.topic not in self._behind}
        if not partitions:
            await self.sleep(NO_PARTITIONS_SECONDS)
            return
        runs = await self._thread.fetch(partitions)
        silent = partitions - {TP(run.topic, run.partition) for run in runs}
        ids = self.app.incarnations.ids
        by_topic: dict[str, list[Run]] = {}
        for run in (*runs, *self.progress.passed_over(silent, ids, self._thread.next_fetched)):
            by_topic.setdefault(run.topic, []).append(run)
        for topic, its_runs in by_topic.items():
            if not self.app.may_stall(topic):
                await self._deliver(its_runs, generation)
                continue
            delivery = asyncio.create_task(self._deliver(its_runs, generation))
            self._behind[topic] = delivery
            while not (delivery.done() or self.app.is_stalled(topic)):
                await asyncio.wait({delivery}, timeout=STALL_CHECK_SECONDS)
            self._catch_up()

    def _catch_up(self) -> None:
        """Forget the deliveries that are done; raises what one of them has raised."""
        for topic in [topic for topic, delivery in self._behind.items() if delivery.done()]:
            self._behind.pop(topic).result()

    async def _deliver(self, runs: Iterable[Run], generation: int) -> None:
        """Hand runs of a topic to the stream of its agent, small ones together."""
        await self._confirm(generation)
        # What is dropped here is fetched again: its generation is over.
        if self._is_over(generation):
            return
        met = [self.progress.continued(run) for run in runs]
        pieces = [piece for run in met for piece in decodable(run, self.app.rules[run.topic])]
        for group in together(pieces):
            if self._is_over(generation):
                return
            await self._hand_over(self._to_message(TP(group[0].topic, group[0].partition), group))

    async def _hand_over(self, message: ConsumerMessage) -> None:
        """Put a message into its stream's buffer, unless the flow is suspended before it has room.

        As a rule it has, and `wait_first` would make a task for each of four that it waits for.
        """
        delivery = asyncio.ensure_future(self.callback(message))
        try:
            await asyncio.sleep(0)
            if delivery.done():
                delivery.result()
            else:
                await self.wait_first(delivery, self.suspend_flow.wait())
        finally:
            delivery.cancel()

    async def _confirm(self, generation: int) -> None:
        """Wait until the topics are known to be those that the runs are taken for.

        Raises `TopicRecreated` and `PartitionsChanged`.
        """
        incarnations = self.app.incarnations
        while not (incarnations.certain or self._is_over(generation)):
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._lookups, incarnations.confirm
                )
            except (BrokerUnavailable, TopicMissing):
                await self.sleep(CONFIRM_SECONDS)
            else:
                # This look-up began after the fetch; a refusal meanwhile concerns later runs.
                return

    def _to_message(self, tp: TP, record: tuple[Run, ...]) -> ConsumerMessage:
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=record[0].next_offset - 1,
            timestamp=0.0,
            timestamp_type=0,
            headers=None,
            key=None,
            value=cast(bytes, record),  # Faust passes it on unchanged: the topics' codec is `raw`
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
        """Runs are stored; they are committed with the next commit of their generation."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        if message.generation_id != self.app.consumer_generation_id:
            return False
        for run in cast("tuple[Run, ...]", message.value):
            self.progress.store(TP(run.topic, run.partition), run.next_offset)
        self._n_acked += 1
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (
            tp
            for tp in self.progress.uncommitted
            if topics is None or tp in topics or tp.topic in topics
        )

    def _new_offset(self, tp: TP) -> int | None:
        return self.progress.to_commit(tp)

    async def _commit_offsets(self, offsets: Mapping[TP, int], *args: Any, **options: Any) -> bool:
        """Commit, and forget what is committed; what is refused is tried again with the next."""
        done = bool(await super()._commit_offsets(offsets, *args, **options))
        for tp, offset in offsets.items():
            if done:
                self.progress.committed(tp, offset)
            else:
                self._committed_offset[tp] = None  # Faust takes it for committed even so
        return done

    def following(self, tp: TP) -> int:
        """The next offset to be stored; 0 before that is known."""
        return self.progress.following(tp, self._thread.next_fetched)

    @property
    def member_id(self) -> str:
        """The worker's id in its consumer group, "" before it has joined."""
        return self._thread.member_id

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: heartbeats report lag and stalls; Faust's test takes a quiet topic for one."""

    def ends(self) -> dict[TP, tuple[int, float]]:
        """The ends of the assigned partitions that are known, and when they were reported."""
        return self._thread.ends()


class Transport(driver.Transport):
    """Chosen by the scheme of the broker's URL, `tickwell://host:port`."""

    Consumer: ClassVar[type[Consumer]] = Consumer
