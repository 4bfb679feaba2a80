"""The thread in which aiokafka's consumer, a member of the consumer group, lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, InvalidSessionTimeoutError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipelines.errors import PipelineError, SessionRefused
from pipelines.kafka import aiokafka_patches
from pipelines.kafka.aiokafka_patches import FetcherInternals
from pipelines.kafka.rights import refused_to_read
from pipelines.kafka.run import Run
from pipelines.kafka.run_fetcher import FETCH_WAIT_MS, FetchPacing, RunFetcher
from pipelines.live.group_membership import Membership, assignors
from pipelines.live.run_app import RunApp

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""Seconds to wait for data before checking whether the worker should stop."""

BACKGROUND_SECONDS = 1.0
"""Seconds between checks of aiokafka's background tasks."""


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Reports assignments to Faust, each as a generation of its own."""

    _thread: ConsumerThread

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        thread, share = self._thread, {TP(*tp) for tp in assigned}
        thread.app.consumer_generation_id += 1
        thread.membership.joined(len(share))
        await thread.on_partitions_assigned(share, thread.app.consumer_generation_id)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread in which aiokafka's consumer lives."""

    app: RunApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._fetcher: RunFetcher | None = None
        self._watching: asyncio.Future[None] | None = None
        super().__init__(*args, **kwargs)
        self.membership = Membership(self.app.incarnations.partitions)

    async def on_start(self) -> None:
        await super().on_start()
        consumer = self._ensure_consumer()
        aiokafka_patches.join_once(consumer)
        self._fetcher = RunFetcher(
            FetcherInternals(consumer),
            self.app.incarnations.ids,
            FetchPacing(self.app.pace),
            self.app.incarnations.doubt,
        )
        check = partial(aiokafka_patches.raise_background_errors, consumer)
        self._watching = asyncio.ensure_future(end_when_background_fails(self.app, check))

    async def on_thread_stop(self) -> None:
        """Leave the group if it has other members, which take the partitions over.

        A static member does not leave by itself, since it may be back before its session ends. That
        is right where it is alone: a broker lets the first member of an empty group wait for
        others. A member that is not static always leaves.
        """
        if self._watching is not None:
            self._watching.cancel()
        if self._consumer is not None and not self.membership.is_alone:
            aiokafka_patches.leave_group_when_stopped(self._consumer)
        await super().on_thread_stop()

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        sharing = assignors(self.app.incarnations.ids, self.membership.count)
        aiokafka_patches.configure(consumer, FETCH_WAIT_MS, sharing)
        return consumer

    async def fetch(self, partitions: set[TP]) -> list[Run]:
        """The next run of each of `partitions` that has one; waits up to `POLL_SECONDS`."""
        return await self.call_thread(self._fetch, partitions)  # type: ignore[no-any-return]

    async def _fetch(self, partitions: set[TP]) -> list[Run]:
        # Checked here, in the thread: a rebalance may have begun since the call was queued.
        if not self.consumer.flow_active or self._fetcher is None:
            return []
        with aiokafka_patches.fetching(self._ensure_consumer()):
            return await self._fetcher.fetch(partitions, POLL_SECONDS)

    async def go_to(self, positions: Mapping[TP, int]) -> None:
        """Fetch from these positions on."""
        await self.call_thread(self._go_to, positions)

    async def _go_to(self, positions: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in positions.items():
            if tp in consumer.assignment():
                consumer.seek(TopicPartition(*tp), offset)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit what is still assigned; returns whether it is done.

        As Faust does it, but that an error ends the worker in the words of `fail_on`.
        """
        held = self.assignment()
        committed = {
            TopicPartition(*tp): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in held
        }
        try:
            await self._ensure_consumer().commit(committed)
        except Exception as error:
            rebalanced = isinstance(error, CommitFailedError) and "already rebalanced" in str(error)
            if not rebalanced:
                fail_on(self.app, error)
            return False
        return True

    def ends(self) -> dict[TP, tuple[int, float]]:
        """The end of each partition's log, and when the broker reported it, in Unix seconds.

        It is that of the last response to a fetch. What may be read can end earlier, where a
        transaction is open.
        """
        assignment = aiokafka_patches.assignment_of(self._ensure_consumer())
        if assignment is None:
            return {}
        states = {TP(*tp): assignment.state_value(tp) for tp in assignment.tps}
        return {
            tp: (state.highwater, state.timestamp / 1000)
            for tp, state in states.items()
            if state.highwater is not None and state.timestamp is not None
        }

    @property
    def member_id(self) -> str:
        """The member's id in its group, "" before it has joined."""
        return "" if self._consumer is None else aiokafka_patches.member_id_of(self._consumer)

    def next_fetched(self, tp: TP) -> int:
        """The next offset to be fetched, 0 before it is known."""
        assignment = aiokafka_patches.assignment_of(self._ensure_consumer())
        if assignment is None or TopicPartition(*tp) not in assignment.tps:
            return 0
        state = assignment.state_value(TopicPartition(*tp))
        return int(state.position) if state.has_valid_position else 0


async def end_when_background_fails(
    app: RunApp, check: Callable[[], None], interval: float = BACKGROUND_SECONDS
) -> None:
    """End the worker when `check`, called every `interval` seconds, raises an error.

    A background task of aiokafka keeps its error until a fetch asks for it. Nothing is fetched
    while the group is joined, so a failed member would wait forever.
    """
    try:
        while True:
            await asyncio.sleep(interval)
            check()
    except InvalidSessionTimeoutError:
        app.fail(SessionRefused(app.conf.broker_session_timeout))
    except Exception as error:
        fail_on(app, error)


def fail_on(app: RunApp, error: Exception) -> None:
    """End the worker with an error of the consumer, unless it is being stopped.

    What a person can mend is one line, which the worker writes; a traceback is of what nobody
    foresaw.
    """
    if app.stopping:
        return
    refused = refused_to_read(error, app.incarnations.servers, app.conf.id)
    if refused is None and not isinstance(error, PipelineError):
        logger.error("the consumer stopped on an error", exc_info=error)
    app.fail(refused or error)
