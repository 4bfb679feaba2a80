"""What runs in a worker beside the pipeline: the relay, maintenance, and checks of its world."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from threading import Event
from time import monotonic

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pipelines.errors import BrokerUnavailable, StoreUnavailable, TopicMissing
from pipelines.kafka.topic_identity import FRESH_SECONDS
from pipelines.live.broker_watch import LOOK_SECONDS
from pipelines.live.carrying import Carrying
from pipelines.live.health import Health
from pipelines.live.log_ends import LogEnds
from pipelines.live.rejected_relay import Relay
from pipelines.live.worker_options import WorkerOptions
from pipelines.repair.repair import settle_all
from pipelines.runtime.daemon_threads import DaemonExecutor, keep_running
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.verify.continual import Continual
from registry.catalog import load
from registry.database.month_partitions import attach_ahead
from registry.definitions import Catalog
from registry.serial import Serial, serial

logger = logging.getLogger(__name__)

Fail = Callable[[BaseException], None]
"""Ends the worker with an error."""

MAINTENANCE_SECONDS = 3_600.0
"""Seconds between checks that the partitions of the coming months are attached."""

TOPICS_CHECK_SECONDS = 2.0
"""Seconds between checks that the topics are the ones that the worker started with."""

SETTLE_SECONDS = 2.0
"""Seconds between looks for rows that a repair has to revise."""

FOLLOW_SECONDS = 0.25
"""Seconds between looks at the registry."""

FILLED_CHECK_SECONDS = 1.0
"""Seconds between checks that Redis was not emptied, which nothing else notices without a tick."""


def start_offline_threads(options: WorkerOptions, engine: Engine, stop: Event) -> None:
    """Relay rejected ticks, attach partitions and settle repairs in daemon threads until `stop`."""

    def relay() -> None:
        Relay(options.postgres, options.kafka, options.rejected_topic).run(stop)

    def maintain() -> None:
        try:
            attach_ahead(engine, datetime.now(UTC))
        except DBAPIError as error:
            logger.warning("no partitions were attached: %s", error.orig)
        stop.wait(MAINTENANCE_SECONDS)

    def settle() -> None:
        try:
            settle_all(options.postgres, lambda: load(engine), stop)
        except StoreUnavailable as error:
            logger.warning("repairs were not settled: %s", error)
        stop.wait(SETTLE_SECONDS)

    keep_running("repairs", settle, stop)
    keep_running("relay", relay, stop)
    keep_running("maintenance", maintain, stop)


def start_verifying(verifying: Continual, engine: Engine, stop: Event) -> None:
    """Verify a little all the time in a daemon thread until `stop` is set."""
    keep_running("verifying", partial(verifying.run, _Definitions(engine).now, stop), stop)


class _Definitions:
    """The catalog, which is read again once the registry's serial has moved."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._read: tuple[Serial | None, Catalog] | None = None

    def now(self) -> Catalog:
        """Raises `StoreUnavailable`."""
        try:
            number = serial(self._engine)
            if self._read is None or number is None or number != self._read[0]:
                self._read = number, load(self._engine)
        except DBAPIError as error:
            raise StoreUnavailable(str(error.orig)) from error
        return self._read[1]


def start_log_ends(ends: LogEnds, stop: Event) -> None:
    """Report ends of logs in a daemon thread until `stop` is set."""
    keep_running("log ends", partial(ends.run, stop), stop)


def start_hot_feed(feed: HotFeed, stop: Event) -> None:
    """Feed hot in a daemon thread until `stop` is set."""
    keep_running("hot", partial(feed.run, stop), stop)


def start_carrying(carrying: Carrying, stop: Event) -> None:
    """Carry rows over in a daemon thread until `stop` is set."""
    keep_running("carrying", partial(carrying.run, stop), stop)


async def watch_topics(
    confirm: Callable[[], None],
    health: Health,
    fail: Fail,
    interval: float = TOPICS_CHECK_SECONDS,
    clock: Callable[[], float] = monotonic,
) -> None:
    """End the worker when a topic was recreated or its number of partitions has changed.

    `confirm` is that of `Incarnations`. That it fails is a state of the worker only once no run may
    be delivered for it, after `FRESH_SECONDS`: a broker that dies may be the one that was asked,
    and one of a cluster may not have heard of a topic yet. Runs until it is cancelled or the worker
    ends.
    """
    thread = DaemonExecutor("topics")
    loop = asyncio.get_running_loop()
    confirmed = clock()
    while True:
        await asyncio.sleep(interval)
        begun = clock()
        try:
            await loop.run_in_executor(thread, confirm)
        except (BrokerUnavailable, TopicMissing) as error:
            if clock() - confirmed < FRESH_SECONDS:
                continue
            if health.topics_error is None:
                logger.warning("the topics could not be looked up: %s", error)
            health.topics_error = str(error)
        except Exception as error:
            fail(error)
            return
        else:
            health.topics_error, confirmed = None, begun


async def watch_broker(look: Callable[[], None]) -> None:
    """Look at the group and the topics. `look` is that of `BrokerWatch`. Runs until cancelled."""
    thread = DaemonExecutor("broker")
    loop = asyncio.get_running_loop()
    while True:
        try:
            await loop.run_in_executor(thread, look)
        except Exception:  # what it sees is for people: no tick depends on it
            logger.exception("the group could not be looked at; the next look is in a moment")
        await asyncio.sleep(LOOK_SECONDS)


async def watch(name: str, seconds: float, look: Callable[[], None], fail: Fail) -> None:
    """Call `look` every so many seconds, in a thread of this name; an error of it ends the worker.

    But `StoreUnavailable`, which the sink reports. Runs until it is cancelled or the worker ends.
    """
    thread = DaemonExecutor(name)
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(seconds)
        try:
            await loop.run_in_executor(thread, look)
        except StoreUnavailable:
            continue
        except Exception as error:
            fail(error)
            return
