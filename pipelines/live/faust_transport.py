"""A Faust transport that delivers a run of records as one event.

Stock Faust spends 70 to 100 µs of event loop on a message. Here an event is a whole run
(`kafka.run_fetcher`), and what Faust does per event is paid once a run. Groups, rebalancing,
commits and monitoring stay Faust's. What is different, and why:

- Positions come from the store, not from Kafka's committed offsets: the store's watermark is the
  truth. They are looked up in the drain loop, which can wait for a store that is away; Faust's own
  place for it, `perform_seek`, would time out and crash the worker.
- Acks are kept as the next offset of each partition. Faust's list of acked numbers counts an event
  as one offset, and its gap arithmetic commits past the run that follows a gap.
- A full buffer blocks the drain loop. Faust's way, to pause the partition, leaves `getmany`
  waiting on the partitions that were active when it began.
- Generations are counted here. Kafka gives the same number again to a member that joins anew
  without a rebalance, and to a group that was forgotten; Faust tells old events by it.
- Runs are delivered only while the topics are known to be those that the worker began with.
- What ends in the background ends the worker: one that waits for a dead task looks alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, Message
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from pipelines.errors import (
    BrokerUnavailable,
    ConsumerEnded,
    OffsetsWentBack,
    StoreUnavailable,
    TopicMissing,
)
from pipelines.kafka.run import Run
from pipelines.live.consumer_thread import POLL_SECONDS, ConsumerThread, RebalanceListener
from pipelines.live.run_app import RunApp
from pipelines.runtime.daemon_threads import DaemonExecutor

logger = logging.getLogger(__name__)

CONFIRM_SECONDS = 0.25
"""Between look-ups of topics while runs wait for one."""


class Consumer(driver.Consumer):
    """Delivers runs; see the module."""

    app: RunApp
    _thread: ConsumerThread
    RebalanceListener: ClassVar[type[RebalanceListener]] = RebalanceListener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._acked_to: dict[TP, int] = {}  # to be committed
        self._stored_to: dict[TP, int | None] = {}
        self._unpositioned: set[TP] = set()
        self._expected: dict[TP, int | None] = {}
        self._lookups = DaemonExecutor("positions")
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- positions

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """A new generation: nothing that was known of positions holds in it.

        This is the first that the main thread hears of it. Later, as in `perform_seek`, the drain
        loop of a worker that had no partitions could be ahead and begin at Kafka's offsets.
        """
        self._unpositioned = set(assigned)
        self._expected.clear()
        self._acked_to.clear()
        self._stored_to.clear()
        for tp in assigned:
            self._committed_offset[tp] = None
        if not assigned:
            self.app.watermarks(())  # nothing to look up, so no look-up that is waited for
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Nothing: the drain loop goes to the store's positions before it fetches."""

    async def _find_positions(self) -> None:
        """Go to where the store wants to go on; waits for the store as long as it takes."""
        generation = self.app.consumer_generation_id
        wanted = set(self._unpositioned)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(0.05, max=5),
            sleep=self.sleep,
        ):
            if self._is_over(generation):
                return
            with attempt:
                positions = await asyncio.get_running_loop().run_in_executor(
                    self._lookups, self.app.watermarks, sorted(wanted)
                )
        # another generation may have begun meanwhile: these are not its positions then
        if self._is_over(generation):
            return
        # offset 0 may be gone already: the broker then says so, and the earliest one is read
        await self._thread.go_to({tp: offset or 0 for tp, offset in positions.items()})
        if self._is_over(generation):
            return
        self._expected.update(positions)
        self._stored_to.update(positions)
        # a store that was filled by another way, or all of whose runs an earlier generation acked,
        # has nothing to ack now, and a lag monitor would count it as behind
        self._acked_to.update({tp: offset for tp, offset in positions.items() if offset})
        self._unpositioned -= wanted

    def _is_over(self, generation: int) -> bool:
        """Whether what was begun in a generation is to be dropped; its records come again."""
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
                    continue
                if self._unpositioned:
                    await self._find_positions()
                    continue
                partitions = set(self._get_active_partitions())
                if not partitions:
                    await self.sleep(0.1)
                    continue
                generation = self.app.consumer_generation_id
                runs = await self._thread.fetch(partitions)
                for run in (*runs, *self._passed_over(partitions, runs)):
                    await self._confirm(generation)
                    # a run that is dropped here is fetched again: its generation is over
                    if self._is_over(generation):
                        break
                    message = self._to_message(TP(run.topic, run.partition), self._meet(run))
                    await self.wait_first(self.callback(message), self.suspend_flow.wait())
        except Exception as error:
            if not self.app.stopping:
                logger.exception("the consumer cannot go on")
                self.app.fail(error)
        finally:
            if not self.app.stopping:
                self.app.fail(ConsumerEnded())

    async def _confirm(self, generation: int) -> None:
        """Wait until it is certain that the topics are still those that runs are taken for.

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
                # this one began after the fetch; what was refused meanwhile is about later runs
                return

    def _passed_over(self, partitions: set[TP], runs: Sequence[Run]) -> Iterator[Run]:
        """Empty runs, where the log was cut and holds no record since: see `_meet`.

        Without them a partition that is quiet from then on would count as behind for ever.
        """
        ids = self.app.incarnations.ids
        for tp in partitions - {TP(run.topic, run.partition) for run in runs}:
            expected, position = self._expected.get(tp), self._thread.next_fetched(tp)
            if expected is not None and position > expected:
                yield Run.empty(tp.topic, ids[tp.topic], tp.partition, position)

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
        self._acked_to[message.tp] = self._stored_to[message.tp] = message.offset + 1
        self._n_acked += 1
        return True

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (
            tp
            for tp in list(self._acked_to)
            if topics is None or tp in topics or tp.topic in topics
        )

    def _new_offset(self, tp: TP) -> int | None:
        return self._acked_to.get(tp)

    async def _commit_offsets(self, offsets: Mapping[TP, int], *args: Any, **options: Any) -> bool:
        """Commit, and forget what is committed; what is refused is tried again with the next."""
        done = bool(await super()._commit_offsets(offsets, *args, **options))
        for tp, offset in offsets.items():
            if not done:
                self._committed_offset[tp] = None  # Faust takes it for committed even so
            elif self._acked_to.get(tp) == offset:
                del self._acked_to[tp]
        return done

    def following(self, tp: TP) -> int:
        """The next offset to be stored; 0 before that is known.

        Where nothing ever was, and nothing was delivered, it is where the log begins.
        """
        stored = self._stored_to.get(tp)
        if stored is None and tp in self._stored_to and self._expected.get(tp) is None:
            return self._thread.next_fetched(tp)
        return stored or 0

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: heartbeats tell lag and stalls; Faust's test takes a quiet topic for one."""

    def ends(self) -> dict[TP, tuple[int, float]]:
        """The ends of the assigned partitions that are known, and when they were told."""
        return self._thread.ends()


class Transport(driver.Transport):
    """Chosen by the scheme of the broker's URL, `tickwell://host:port`."""

    Consumer: ClassVar[type[Consumer]] = Consumer
