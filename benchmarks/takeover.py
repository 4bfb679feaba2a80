"""How long ticks wait when a worker starts, is killed, or hands over; and how long `up` takes.

Ticks come on a schedule to every partition. What is timed is the longest that a partition stands
still in the store: the longest that a tick had to wait.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL, SIGTERM

import redis

from benchmarks.backlog import new_topics
from benchmarks.latency import paced
from benchmarks.prober import HEADERS
from benchmarks.processes import Child, running
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from benchmarks.workers import await_shares, start_worker, watermarks
from pipelines.kafka.topics import Topic
from tickwell.embedded.ports import HOST, keep_port
from tickwell.settings import Settings

RATE = 1_000
SYMBOLS = 100
WATCHED_SECONDS = 30.0
"""At the most; a worker that stays away is replaced after a session of 6 s and a rebalance."""

NOTICED_SECONDS = 1.0
QUIET_SECONDS = 3.0
"""It is over when a partition stood still for a second, and then none for three."""

SETTLED_SECONDS = 2.0
UP_SECONDS = 180.0
QUESTION = b'{"features": ["current_price"], "entity_type": "symbol", "entity_value": "AAPL"}'


def start_up(services: Services) -> Run:
    """Seconds from the start of a worker, its kernels compiled before, to its first stored run."""
    settings, topic = new_topics(services)
    settings = services.fresh(settings)
    with ExitStack() as stack, redis.Redis.from_url(settings.redis) as store:
        stack.enter_context(paced(services, topic, time.monotonic() + 1, 30, RATE, SYMBOLS))
        time.sleep(SETTLED_SECONDS)
        began = time.monotonic()
        child = start_worker(services, settings, "online")
        stack.callback(child.stop)
        while not any(watermarks(store, topic)):
            child.check()
            if time.monotonic() > began + UP_SECONDS:
                raise Failed("the worker stored nothing")
            time.sleep(0.005)
        return _seconds(time.monotonic() - began)


def killed_and_started(services: Services) -> Run:
    """Seconds that partitions stand still when the only worker is killed and started at once."""

    def trigger(settings: Settings, first: Child) -> Child:
        first.send(SIGKILL)
        first.popen.wait()
        return start_worker(services, settings, "online")

    return _standstill(services, ("one",), trigger)


def stopped_and_started(services: Services) -> Run:
    """Seconds that partitions stand still when the only worker is stopped and started anew."""

    def trigger(settings: Settings, first: Child) -> Child:
        first.stop()
        return start_worker(services, settings, "online")

    return _standstill(services, ("one",), trigger)


def killed_and_replaced(services: Services) -> Run:
    """Seconds that partitions stand still when one of two workers is killed and stays away."""

    def trigger(settings: Settings, first: Child) -> None:
        first.send(SIGKILL)

    return _standstill(services, ("one", "two"), trigger)


def handed_over(services: Services) -> Run:
    """Seconds that partitions stand still when one of two workers is asked to stop."""

    def trigger(settings: Settings, first: Child) -> None:
        first.send(SIGTERM)

    return _standstill(services, ("one", "two"), trigger)


def up(services: Services, broker: str) -> Run:
    """Seconds from `tickwell up` in an empty directory to the first price over HTTP."""
    with tempfile.TemporaryDirectory(dir=services.place) as data:
        Path(data).chmod(0o755)
        port = keep_port(services.place / "up-port")
        words = ["--data", f"{data}/data", "--port", str(port), "--broker", broker]
        began = time.monotonic()
        with running(
            f"up-{broker}",
            ["-m", "tickwell", "up", *words],
            {},
            services.place,
        ) as child:
            while not _has_price(port):
                child.check()
                if time.monotonic() > began + UP_SECONDS:
                    raise Failed(f"no price in {UP_SECONDS:g} s")
                time.sleep(0.02)
            seconds = time.monotonic() - began
            child.send(SIGTERM)
            child.popen.wait(60)
        return _seconds(seconds)


def _has_price(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("POST", "/features/online", QUESTION, HEADERS)
        response = connection.getresponse()
        content = response.read()
    except OSError:
        return False
    finally:
        connection.close()
    if response.status != 200:
        return False
    return json.loads(content)["features"]["current_price"]["value"] is not None


def _standstill(
    services: Services,
    instances: tuple[str, ...],
    trigger: Callable[[Settings, Child], Child | None],
) -> Run:
    settings, topic = new_topics(services)
    settings = services.fresh(settings)
    with ExitStack() as stack, redis.Redis.from_url(settings.redis) as store:
        children = [start_worker(services, settings, "online", name) for name in instances]
        for child in children:
            stack.callback(child.stop)
        await_shares(settings, topic, "online", children, instances)
        seconds = 2 * SETTLED_SECONDS + WATCHED_SECONDS
        stack.enter_context(paced(services, topic, time.monotonic() + 1, seconds, RATE, SYMBOLS))
        time.sleep(SETTLED_SECONDS)
        if not all(watermarks(store, topic)):
            raise Failed("a partition does not move before anything happened")
        began = time.monotonic()
        started = trigger(settings, children[0])
        if started is not None:
            stack.callback(started.stop)
        pauses = _longest_pauses(store, topic, began, began + WATCHED_SECONDS)
    return _seconds(max(pauses), pauses=[round(pause, 3) for pause in pauses])


def _longest_pauses(store: redis.Redis, topic: Topic, began: float, end: float) -> list[float]:
    """The longest that each partition stood still, from `began` until it is over, or `end`.

    Raises `Failed` for a partition that stands still at the end.
    """
    stored, since = watermarks(store, topic), [began] * topic.partitions
    longest, stood = [0.0] * topic.partitions, None
    while (now := time.monotonic()) < end:
        following = watermarks(store, topic)
        for number in range(topic.partitions):
            if following[number] != stored[number]:
                longest[number] = max(longest[number], now - since[number])
                since[number] = now
        stored = following
        if now - min(since) > NOTICED_SECONDS:
            stood = now
        elif stood is not None and now > stood + QUIET_SECONDS:
            return longest
        time.sleep(0.005)
    if end - min(since) > NOTICED_SECONDS:
        raise Failed(f"a partition still stands: {[round(end - moment, 1) for moment in since]}")
    return longest


def _seconds(seconds: float, **detail: list[float]) -> Run:
    return Run(value=seconds, unit="s", seconds=seconds, detail=detail)
