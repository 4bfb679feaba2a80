"""A worker process: a member of one consumer group, which brings ticks into one store."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from threading import Event, Timer
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError
from pipelines.live.background import (
    FILLED_CHECK_SECONDS,
    FOLLOW_SECONDS,
    start_carrying,
    start_hot_feed,
    start_log_ends,
    start_offline_threads,
    start_verifying,
    watch,
    watch_broker,
    watch_topics,
)
from pipelines.live.broker_watch import Broker, BrokerView, BrokerWatch
from pipelines.live.carrying import Carrying
from pipelines.live.faust_app import GroupMember, Pipeline, SinkApp, create_app
from pipelines.live.health import Health
from pipelines.live.heartbeats import INTERVAL_SECONDS, Heartbeats
from pipelines.live.lag import Lags
from pipelines.live.log_ends import LogEnds
from pipelines.live.startup import Startup
from pipelines.live.worker_options import WorkerOptions
from pipelines.runtime.allocator import give_back_at_once
from pipelines.runtime.daemon_threads import DaemonExecutor
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.ticks.homes import home_remarks
from registry.database.engine import connect
from registry.formats.heartbeat import PartitionLag

if TYPE_CHECKING:
    from pipelines.live.metrics import Metrics

logger = logging.getLogger(__name__)

SILENCE_MS = 15_000
"""Milliseconds after which the registry's server counts as gone whose system says nothing."""

SHUTDOWN_SECONDS = 5.0
"""Seconds that Faust and asyncio may take to stop. Ending the process without them loses nothing:
what is stored is stored."""


def run_worker(options: WorkerOptions) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code, 1 when only a restart can help."""
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
        self._health = Health(options.sink)
        self._heartbeats = Heartbeats(
            options.sink,
            options.instance,
            [options.redis, options.redis_hot],
            cluster=options.redis if options.cluster else None,
            verifying=options.verifying,
        )
        self._metrics = _serve_metrics(options) if options.metrics_port else None
        self._lags = Lags()
        self._log_ends: LogEnds | None = None
        self._app: SinkApp | None = None
        self._watch: BrokerWatch | None = None
        self._hot: HotFeed | None = None
        self._carrying: Carrying | None = None
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
        # A daemon thread: what it calls may hang, and must not hold up the end of the process.
        preparing = loop.run_in_executor(DaemonExecutor("startup"), self._prepare)
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

    def _prepare(self) -> Pipeline:
        engine = connect(self._options.postgres, silence_ms=SILENCE_MS, pool_pre_ping=True)
        pipeline = Startup(self._options, engine, self._health, self._stop).prepare()
        if self._options.sink == "offline":
            start_offline_threads(self._options, engine, self._stop)
            self._log_ends = LogEnds(self._options.postgres, pipeline.incarnations.ids)
            start_log_ends(self._log_ends, self._stop)
            if self._options.verifying is not None:
                start_verifying(self._options.verifying, engine, self._stop)
        if pipeline.hot is not None:
            start_hot_feed(pipeline.hot, self._stop)
            self._hot = pipeline.hot
        if pipeline.carrying is not None:
            start_carrying(pipeline.carrying, self._stop)
            self._carrying = pipeline.carrying
        return pipeline

    async def _work(self, pipeline: Pipeline, waiting: asyncio.Task[Any]) -> int:
        options = self._options
        instance = options.instance if options.static_member else None
        member = GroupMember(options.group, instance, options.session)
        app = create_app(member, options.kafka, pipeline, self._heartbeats.count)
        app.finalize()
        notes = [
            remark
            for rules in pipeline.rules.values()
            for remark in home_remarks(rules.source, self._health.partitions[rules.source.topic])
        ]
        broker = Broker(options.kafka, options.group, pipeline.incarnations.ids, notes)
        self._watch = BrokerWatch(broker, options.session, self._member_id, self._heartbeats.others)
        tasks = [
            asyncio.create_task(
                watch_topics(pipeline.incarnations.confirm, self._health, app.fail)
            ),
            asyncio.create_task(
                watch("filled", FILLED_CHECK_SECONDS, pipeline.check_filled, app.fail)
            ),
            asyncio.create_task(watch("following", FOLLOW_SECONDS, pipeline.follow, app.fail)),
            asyncio.create_task(self._start(app)),
            asyncio.create_task(watch_broker(self._watch.look)),
        ]
        await asyncio.wait([waiting, app.failed], return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if app.failed.done():
            logger.error("%s", app.failed.result())
            code = 1
        self._stop.set()
        for task in tasks:
            task.cancel()
        self._giving_up = Timer(SHUTDOWN_SECONDS, _give_up, [code])
        self._giving_up.daemon = True
        self._giving_up.start()
        try:
            await app.stop()
        except Exception:
            logger.exception("Faust failed to stop")
        return code

    def ended(self) -> None:
        """The event loop is closed. Closing waits for every task, and some ignore cancellation."""
        if self._giving_up is not None:
            self._giving_up.cancel()

    async def _start(self, app: SinkApp) -> None:
        try:
            await app.start()
        except Exception as error:
            logger.exception("Faust failed to start")
            app.fail(error)
            return
        self._app = app
        topics = ", ".join(app.incarnations.ids)
        logger.info("the %s worker %s reads %s", self._options.sink, self._options.instance, topics)

    async def _beat(self) -> None:
        thread = DaemonExecutor("heartbeat")
        loop = asyncio.get_running_loop()
        while True:
            try:
                heartbeat = await loop.run_in_executor(
                    thread,
                    self._heartbeats.beat,
                    self._health.error,
                    self._lag(),
                    self._health.partitions,
                    self._watch.view if self._watch is not None else BrokerView(),
                    self._hot.state if self._hot is not None else "",
                    self._carrying.finished if self._carrying is not None else (),
                )
                if self._metrics is not None:
                    self._metrics.show(heartbeat)
            except Exception:
                # A worker without heartbeats counts as dead, so they continue whatever fails.
                logger.exception("a heartbeat failed; the next is in %g s", INTERVAL_SECONDS)
            await asyncio.sleep(INTERVAL_SECONDS)

    def _member_id(self) -> str:
        consumer: Any = None if self._app is None else self._app.consumer
        return "" if consumer is None else str(consumer.member_id)

    def _lag(self) -> list[PartitionLag] | None:
        app = self._app
        if app is None:
            return None
        consumer: Any = app.consumer
        ends = {tp: (*end, consumer.following(tp)) for tp, end in sorted(consumer.ends().items())}
        if self._log_ends is not None:
            # a broker that has just recovered may name an end before what it had delivered
            known = {tp: (end, at) for tp, (end, at, stored) in ends.items() if end >= stored}
            self._log_ends.note(known)
        return [
            self._lags.of(tp.topic, tp.partition, stored, end, at)
            for tp, (end, at, stored) in ends.items()
        ]


def _serve_metrics(options: WorkerOptions) -> Metrics:
    from pipelines.live.metrics import Metrics  # a twentieth of the start-up time

    try:
        return Metrics(options.metrics_host, options.metrics_port or 0)
    except OSError as error:
        raise PipelineError(
            f"no metrics can be served on {options.metrics_host}:{options.metrics_port} "
            f"({error.strerror}): set TICKWELL_METRICS_PORT to a free port"
        ) from None


def _give_up(code: int) -> None:
    """End the process: some threads of Faust and aiokafka are waited for without a bound."""
    logger.warning("Faust or a task did not stop in %g s; ending without it", SHUTDOWN_SECONDS)
    os._exit(code)
