"""The agent of one source: takes its runs from Faust, and acknowledges what is stored.

A large run is computed while the one before it is stored. Small ones are not: a thread brings all
those of an event into the store, one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Task
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

from pipelines.compute.batch import Batch
from pipelines.errors import ConsumerEnded, Stopped
from pipelines.kafka.run import SMALL_RUN, Run
from pipelines.live.materializer import ComputedRun, Materializer
from pipelines.live.run_app import RunApp
from pipelines.runtime.daemon_threads import DaemonExecutor

T = TypeVar("T")

logger = logging.getLogger(__name__)


class SourceAgent:
    """Brings the runs of one source into the store, in threads, so that heartbeats continue.

    `stored` is called with the batch of each run once it is stored. Runs of an event that have
    fewer than `small_run` records together are stored before the next event is looked at.
    """

    def __init__(
        self,
        app: RunApp,
        materializer: Materializer,
        stop: Event,
        stored: Callable[[Batch], None],
        small_run: int = SMALL_RUN,
    ) -> None:
        self._app = app
        self._materializer = materializer
        self._stop = stop
        self._stored = stored
        self._small_run = small_run
        self._computing = DaemonExecutor(f"compute {materializer.source}")
        self._storing = DaemonExecutor(f"store {materializer.source}")
        self._before: Task[None] | None = None
        """Stores the run that was taken last, where that was not waited for."""

    async def consume(self, stream: Any) -> None:
        """Take every event of a stream until the app stops."""
        generation = None
        try:
            # With automatic acks an exception that leaves an agent would ack the event.
            async for event in stream.noack().events():
                # Another worker may have had the partitions meanwhile, even if none was reported
                # as revoked.
                if event.message.generation_id != generation:
                    generation = event.message.generation_id
                    await self._forget()
                await self._take(event)
            await self._settle()
        except Stopped:
            return
        except Exception as error:
            logger.exception("%s stopped on an error between runs", self._materializer.source)
            self._app.fail(error)
            return
        finally:
            if self._before is not None:
                self._before.cancel()
                self._before = None
        if not self._app.stopping:
            self._app.fail(ConsumerEnded())

    async def _forget(self) -> None:
        """Forget every state once nothing is under way.

        That includes what a call of `consume` before this one, which was cancelled, has begun.
        """
        await self._settle()
        await _call(self._storing, _nothing)
        await _call(self._computing, self._materializer.forget)

    async def _take(self, event: Any) -> None:
        """Bring the runs of an event into the store; acknowledge it with the last one."""
        runs: Sequence[Run] = event.value
        if self._before is not None and self._before.done():
            await self._settle()
        if self._before is None and sum(map(len, runs)) < self._small_run:
            for batch in await _call(self._computing, self._materialize, runs):
                self._report(batch)
            event.ack()
            return
        for run in runs[:-1]:
            await self._overlap(run, _nothing)
        await self._overlap(runs[-1], event.ack)

    def _materialize(self, runs: Sequence[Run]) -> Sequence[Batch | None]:
        batches = []
        for run in runs:
            with self._reporting(run):
                batches.append(self._materializer.materialize(run, self._stop))
        return batches

    async def _overlap(self, run: Run, acknowledge: Callable[[], None]) -> None:
        """Compute a run, and begin to store it once the run before is stored."""
        work = self._materializer
        with self._reporting(run):
            computed = await _call(self._computing, work.compute_ahead, run)
        await self._settle()
        if computed is None or not work.is_current(computed):
            # before the next one is computed, which would have to be computed again then, and so on
            await self._store(run, acknowledge, None)
            return
        self._before = asyncio.create_task(self._store(run, acknowledge, computed))
        self._before.add_done_callback(_retrieve)

    async def _store(
        self, run: Run, acknowledge: Callable[[], None], computed: ComputedRun | None
    ) -> None:
        work, batch = self._materializer, None
        with self._reporting(run):
            if computed is not None:
                batch = await _call(self._storing, work.store, computed)
                computed = None  # it may be large, and the store may not be there for long
            if batch is None:
                batch = await _call(self._computing, work.materialize_again, run, self._stop)
            self._report(batch)
            acknowledge()

    async def _settle(self) -> None:
        """Wait until the run that was taken last is stored."""
        if self._before is not None:
            await self._before
            self._before = None

    def _report(self, batch: Batch | None) -> None:
        if batch is not None:
            self._stored(batch)

    @contextmanager
    def _reporting(self, run: Run) -> Iterator[None]:
        """End the worker on an error: to continue would skip the run.

        The ack of the next one would cover it. Raises `Stopped` then.
        """
        try:
            yield
        except Stopped:
            raise
        except Exception as error:
            where = f"{run.topic}[{run.partition}], offset {run.base_offset}"
            logger.exception("%s stopped on an error at %s", self._materializer.source, where)
            self._app.fail(error)
            raise Stopped(str(error)) from error


async def _call(thread: Executor, work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work, *arguments)


def _nothing() -> None:
    """What is done where only its turn matters."""


def _retrieve(task: Task[None]) -> None:
    """Look at how a task ended, so that asyncio does not report what nobody waits for any more."""
    if not task.cancelled():
        task.exception()
