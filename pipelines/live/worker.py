"""A worker process: one consumer group's member, bringing ticks into one store."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from threading import Event, Timer
from typing import TYPE_CHECKING, Any

from pipelines.errors import BrokerUnavailable, PipelineError, StoreUnavailable, TopicMissing
from pipelines.kafka.topic_identity import LOOK_SECONDS, Incarnations
from pipelines.live.faust_app import Pipeline, SinkApp, create_app
from pipelines.live.heartbeats import SECONDS, Heartbeats
from pipelines.live.lag import Lags
from pipelines.live.startup import Startup, WorkerOptions
from pipelines.runtime.allocator import give_back_at_once
from pipelines.runtime.daemon_threads import DaemonExecutor
from registry.formats.heartbeat import PartitionLag

if TYPE_CHECKING:
    from pipelines.live.metrics import Metrics

logger = logging.getLogger(__name__)

FILLING_LOOK_SECONDS = 1.0
SHUTDOWN_SECONDS = 5.0
"""What Faust and asyncio may take to stop. The store has what it has; nothing is lost by ending
without."""


def run_worker(options: WorkerOptions) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code, 1 when only a new start can help."""
    if options.sink == "offline":
        give_back_at_once()
    try:
        worker = _Worker(options)
    except PipelineError as error:
        logger.error("%s", error)
        return 1
    try:
        return asyncio.run(worker.run())
    finally:
        worker.ended()


class _Worker:
    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._stop = Event()
        self._heartbeats = Heartbeats(
            options.sink,
            options.instance,
            [options.redis, options.redis_hot],
            cluster=options.redis if options.cluster else None,
        )
        self._metrics = _serve_metrics(options) if options.metrics_port else None
        self._startup = Startup(options, self._stop)
        self._lags = Lags()
        self._topics_wait: str | None = None
        self._app: SinkApp | None = None
        self._giving_up: Timer | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()

        def stop() -> None:
            self._stop.set()
            stopped.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        beating = asyncio.create_task(self._beat())
        waiting = asyncio.create_task(stopped.wait())
        # not waited for when the worker is asked to stop: whatever it asks may hang
        preparing = loop.run_in_executor(DaemonExecutor("startup"), self._startup.prepare)
        try:
            begun: list[asyncio.Future[Any]] = [preparing, waiting]
            await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                return 0
            return await self._work(preparing.result(), waiting)
        except PipelineError as error:
            logger.error("%s", error)
            return 1
        finally:
            self._stop.set()
            beating.cancel()
            waiting.cancel()
            preparing.cancel()

    @property
    def _error(self) -> str | None:
        """Why the store, or something before it, does not answer."""
        return self._startup.error or self._topics_wait

    async def _work(self, pipeline: Pipeline, waiting: asyncio.Task[Any]) -> int:
        options = self._options
        count = self._heartbeats.count
        instance = options.instance if options.static_member else None
        app = create_app(options.group, options.kafka, instance, options.session, pipeline, count)
        app.finalize()
        watching = [
            asyncio.create_task(self._watch_topics(app, pipeline.incarnations)),
            asyncio.create_task(self._watch_filling(app)),
        ]
        starting = asyncio.create_task(self._start(app))
        await asyncio.wait([waiting, app.failed], return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if app.failed.done():
            logger.error("%s", app.failed.result())
            code = 1
        self._stop.set()
        for task in (*watching, starting):
            task.cancel()
        self._giving_up = Timer(SHUTDOWN_SECONDS, _give_up, [code])
        self._giving_up.daemon = True
        self._giving_up.start()
        try:
            await app.stop()
        except Exception:
            logger.exception("Faust did not stop as it should")
        return code

    def ended(self) -> None:
        """The event loop is closed, which waits for every task, and some lose a cancellation."""
        if self._giving_up is not None:
            self._giving_up.cancel()

    async def _start(self, app: SinkApp) -> None:
        try:
            await app.start()
        except Exception as error:
            logger.exception("Faust did not start")
            app.fail(error)
            return
        self._app = app
        topics = ", ".join(app.incarnations.ids)
        logger.info("the %s worker %s reads %s", self._options.sink, self._options.instance, topics)

    async def _watch_topics(self, app: SinkApp, incarnations: Incarnations) -> None:
        """A topic that is made anew, or has other partitions, is not the one that is read."""
        looking = DaemonExecutor("topics")
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await loop.run_in_executor(looking, incarnations.confirm)
            except (BrokerUnavailable, TopicMissing) as error:
                if self._topics_wait is None:
                    logger.warning("the topics could not be looked up: %s", error)
                self._topics_wait = str(error)
            except Exception as error:
                app.fail(error)
                return
            else:
                self._topics_wait = None

    async def _watch_filling(self, app: SinkApp) -> None:
        """A Redis that was emptied is noticed without a tick: its values are gone until then."""
        looking = DaemonExecutor("filling")
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(FILLING_LOOK_SECONDS)
            try:
                await loop.run_in_executor(looking, self._startup.confirm_filled)
            except StoreUnavailable:
                continue  # the sink says so
            except Exception as error:
                app.fail(error)
                return

    async def _beat(self) -> None:
        telling = DaemonExecutor("heartbeat")
        loop = asyncio.get_running_loop()
        while True:
            try:
                heartbeat = await loop.run_in_executor(
                    telling,
                    self._heartbeats.beat,
                    self._error,
                    self._lag(),
                    self._startup.partitions,
                )
                if self._metrics is not None:
                    self._metrics.show(heartbeat)
            except Exception:
                # a worker without a heartbeat counts as dead, whatever it does
                logger.exception("a heartbeat failed; the next one is in %g s", SECONDS)
            await asyncio.sleep(SECONDS)

    def _lag(self) -> list[PartitionLag] | None:
        app = self._app
        if app is None:
            return None
        consumer: Any = app.consumer
        return [
            self._lags.of(tp.topic, tp.partition, consumer.following(tp), end, told_at)
            for tp, (end, told_at) in sorted(consumer.ends().items())
        ]


def _serve_metrics(options: WorkerOptions) -> Metrics:
    from pipelines.live.metrics import Metrics  # a twentieth of a start, for who asks for it

    try:
        return Metrics(options.metrics_host, options.metrics_port or 0)
    except OSError as error:
        raise PipelineError(
            f"no metrics can be served on {options.metrics_host}:{options.metrics_port} "
            f"({error.strerror}): name another port as TICKWELL_METRICS_PORT"
        ) from None


def _give_up(code: int) -> None:
    """End the process whatever holds it: some threads of Faust and aiokafka are waited for."""
    logger.warning("Faust or a task did not stop in %g s; ending without", SHUTDOWN_SECONDS)
    os._exit(code)
