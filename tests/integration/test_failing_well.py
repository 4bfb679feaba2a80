"""A server under load whose stores are killed, paused, cut off and slowed: no answer may be wrong.

Redis has newer ticks than Postgres, whose worker says that it is behind, or has caught up. So each
answer shows where its values are from, and whether it pretends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import msgspec
import pytest
import redis

from registry import catalog
from registry.definitions import Catalog
from registry.formats.heartbeat import Heartbeat, PartitionLag
from registry.formats.redis_keys import CATALOG_KEY, WORKERS_KEY, worker_key
from tests.support.both_stores import log_of
from tests.support.network import Network, network
from tests.support.pipeline import wait_for
from tests.support.served import health
from tests.support.services import kill
from tickwell.embedded.ports import HOST
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process

pytestmark = pytest.mark.timeout(240)

CLIENTS = 16
ONLINE = "/features/online"
PRICE = {"features": ["current_price"], "entity": {"symbol": "A"}}
EXPOSURE = {"features": ["portfolio_exposure"], "entity": {"portfolio": "P"}}

Ticks = Sequence[tuple[str, dict[str, Any]]]
OLD: Ticks = (
    ("price", {"symbol": "A", "price": 1}),
    ("price", {"symbol": "B", "price": 1}),
    ("position", {"portfolio": "P", "symbol": "A", "quantity": 1}),
)
NEW: Ticks = (
    ("price", {"symbol": "A", "price": 2}),
    ("price", {"symbol": "B", "price": 2}),
    ("position", {"portfolio": "P", "symbol": "A", "quantity": 3}),
    ("position", {"portfolio": "P", "symbol": "B", "quantity": 5}),
)

NEWEST = {"current_price": 2.0, "portfolio_exposure": 16.0}
BEFORE = {"current_price": 1.0, "portfolio_exposure": 1.0}


class Beats:
    """Heartbeats of a worker of each sink, written all the time to the Redis servers at `urls`."""

    def __init__(self, *urls: str) -> None:
        self.offline_behind = 0.0
        self._urls = urls
        self._ended = Event()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        topics = ("ticks.price", "ticks.volume", "ticks.position")
        clients = [redis.Redis.from_url(u, socket_timeout=0.3, retry=None) for u in self._urls]
        while not self._ended.wait(0.5):
            for client in clients:
                for sink, behind in (("online", 0.0), ("offline", self.offline_behind)):
                    now = time.time()
                    lag = tuple(PartitionLag(topic, 0, 1, 1, 0, behind) for topic in topics)
                    beat = Heartbeat(
                        *(sink, "one", 1, now, "running", now),
                        lag=lag,
                        partitions=dict.fromkeys(topics, 1),
                    )
                    try:
                        client.set(worker_key(sink, "one"), msgspec.json.encode(beat))
                        client.sadd(WORKERS_KEY, f"{sink}:one")
                    except redis.RedisError:
                        break
        for client in clients:
            client.close()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@dataclass
class Stack:
    """A server, its stores, and the networks between."""

    port: int
    process: Process
    redis: Network
    postgres: Network
    beats: Beats
    catch_up: Callable[[], None]
    """Brings Postgres to where Redis is, and has its worker say so."""

    @property
    def redis_pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def health(self) -> dict[str, Any]:
        return health(self.port)

    def tiers(self) -> set[str | None]:
        """Where the values of an answer are from."""
        answer = httpx.post(f"http://{HOST}:{self.port}{ONLINE}", json=PRICE, timeout=10)
        return {one["tier"] for one in answer.json().get("features", {}).values()}


@contextmanager
def serving(*stores: str) -> Iterator[int]:
    """The port of a server of its own, which waits for stores as long as it has to."""
    names = ("TICKWELL_REDIS", "TICKWELL_REDIS_HOT", "TICKWELL_POSTGRES")
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tickwell", "serve", "--port", str(port)],
        env={
            **os.environ,
            **dict(zip(names, stores, strict=True)),
            "TICKWELL_DEADLINE_MS": "60000",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for("the server answers", lambda: health(port)["status"] != "starting")
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def stack(data: Path, recorded: Catalog, hot_redis: str, postgres_database: str) -> Iterator[Stack]:
    with ExitStack() as opened:
        spec, url = valkey(data / uuid.uuid4().hex, "warm")
        process = Process(spec)
        process.start()
        opened.callback(process.stop)
        process.wait_ready()
        online = opened.enter_context(log_of(recorded, url))
        offline = opened.enter_context(log_of(recorded, postgres_database))
        for source, tick in (*OLD, *NEW):
            online.add(source, tick)
        for source, tick in OLD:
            offline.add(source, tick)
        with redis.Redis.from_url(hot_redis) as client:
            client.flushall()
        with redis.Redis.from_url(url) as client:
            client.set(CATALOG_KEY, catalog.encode(recorded))
        beats = Beats(url, hot_redis)
        opened.callback(beats.end)
        beats.offline_behind = 60.0

        def catch_up() -> None:
            for source, tick in NEW:
                offline.add(source, tick)
            beats.offline_behind = 0.0

        networks = [opened.enter_context(network(one)) for one in (url, postgres_database)]
        port = opened.enter_context(serving(networks[0].url, hot_redis, networks[1].url))
        made = Stack(port, process, *networks, beats, catch_up)
        wait_for("values are warm", lambda: made.tiers() == {"warm"})
        yield made


@dataclass
class Seen:
    """What clients were answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    found: Counter[tuple[str, str | None, str, float | None]] = field(default_factory=Counter)
    """Feature, tier, status and value."""
    slowest: float = 0.0
    problems: list[dict[str, Any]] = field(default_factory=list)

    def take(self, answer: httpx.Response, seconds: float) -> None:
        self.slowest = max(self.slowest, seconds)
        self.statuses[answer.status_code] += 1
        if answer.status_code != 200:
            self.problems.append(answer.json())
        for name, one in answer.json().get("features", {}).items():
            self.found[name, one["tier"], one["status"], one["value"]] += 1

    def tiers(self) -> set[str | None]:
        return {tier for _, tier, _, _ in self.found}

    def check(self, cold: dict[str, float], cold_status: str) -> None:
        """No value may be another than that of its tier, nor pretend to be the newest."""
        for (name, tier, status, value), count in self.found.items():
            right = {
                "warm": (NEWEST[name], "ok"),
                "cold": (cold[name], cold_status),
            }[str(tier)]
            assert (value, status) == right, (name, tier, status, value, count)


async def load(port: int, seen: Seen, until: Callable[[], bool], **headers: str) -> None:
    """Asks without a pause, by some clients at once, until something is so."""

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        while not until():
            begun = time.monotonic()
            body = EXPOSURE if number % 4 == 0 else PRICE
            answer = await client.post(ONLINE, json=body, headers=headers)
            seen.take(answer, time.monotonic() - begun)

    async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=20) as client:
        await asyncio.gather(*(ask(client, number) for number in range(CLIENTS)))


def under_load(
    port: int, act: Callable[[], None], last: Collection[str] = (), **headers: str
) -> Seen:
    """What clients see while something is done, and until each feature was of a tier of `last`."""
    seen, done = Seen(), Event()
    least = {(feature, tier) for feature in NEWEST for tier in last}

    def is_over() -> bool:
        return done.is_set() and {(feature, tier) for feature, tier, _, _ in seen.found} >= least

    thread = Thread(target=lambda: asyncio.run(load(port, seen, is_over, **headers)))
    thread.start()
    try:
        act()
    except BaseException:
        least.clear()
        raise
    finally:
        done.set()
        thread.join()
    return seen


def faults(stack: Stack) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    """What happens to Redis, and how that ends."""

    def again() -> None:
        stack.process.start()
        stack.process.wait_ready()

    def pause() -> None:
        os.kill(stack.redis_pid, signal.SIGSTOP)

    def go_on() -> None:
        os.kill(stack.redis_pid, signal.SIGCONT)

    return {
        "killed": (lambda: kill(stack.process), again),
        "paused": (pause, go_on),
        "cut": (stack.redis.cut, stack.redis.heal),
        "held": (stack.redis.hold, stack.redis.heal),
        "slowed": (lambda: stack.redis.slow(1.5), stack.redis.heal),
    }


def test_whatever_happens_to_redis_no_answer_is_wrong_and_none_is_missing(stack: Stack) -> None:
    caught_up = False
    cold, status = BEFORE, "lagging"
    for name, (happens, ends) in faults(stack).items():

        def fault() -> None:
            happens()  # noqa: B023
            wait_for("cold", lambda: stack.tiers() == {"cold"})
            time.sleep(0.5)  # more of the same
            told = stack.health()
            assert told["breakers"]["Redis"].startswith(("open", "half-open"))
            assert told["status"] == "degraded"
            ends()  # noqa: B023
            wait_for("warm", lambda: stack.tiers() == {"warm"})

        seen = under_load(stack.port, fault, last=["warm"])
        assert seen.statuses.keys() == {200}, (name, seen.problems[:3])
        assert seen.tiers() == {"warm", "cold"}, name
        seen.check(cold, status)
        assert {(f, t) for f, t, _, _ in seen.found} >= {
            (feature, tier) for feature in NEWEST for tier in ("warm", "cold")
        }
        wait_for("redis is well", lambda: stack.health()["breakers"]["Redis"] == "closed")
        if not caught_up:
            caught_up = True
            stack.catch_up()
            cold, status = NEWEST, "ok"
            time.sleep(3.0)  # the heartbeats that say so are read each second


def test_with_both_gone_answers_are_refused_at_once_and_come_back(stack: Stack) -> None:
    made: list[int] = []

    def fault() -> None:
        stack.redis.cut()
        stack.postgres.hold()
        wait_for("503", lambda: stack.tiers() == set())
        breakers = wait_for(
            "both breakers are open",
            lambda: (
                (found := stack.health()["breakers"])
                and all(state != "closed" for state in found.values())
                and found
            ),
        )
        assert set(breakers) == {"Redis", "Postgres"}

    first = under_load(stack.port, fault)
    first.check(BEFORE, "lagging")

    def gone() -> None:
        made.append(stack.redis.connections)
        time.sleep(2.0)
        made.append(stack.redis.connections)

    seen = under_load(stack.port, gone)
    assert seen.statuses.keys() == {503}
    assert {problem["title"] for problem in seen.problems} == {"No value could be read"}
    assert set(seen.problems[0]["stores"]) == {"Redis", "Postgres"}
    begun = time.monotonic()
    for _ in range(20):
        answer = httpx.post(f"http://{HOST}:{stack.port}{ONLINE}", json=PRICE)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (time.monotonic() - begun) / 20 < 0.5  # a store's limit is a second, and more
    assert stack.health()["status"] == "unavailable"
    # Connections are tried by probes, and not by requests.
    assert made[1] - made[0] < sum(seen.statuses.values()) / 2

    def back() -> None:
        stack.postgres.heal()
        wait_for("cold", lambda: stack.tiers() == {"cold"})
        stack.redis.heal()
        wait_for("warm", lambda: stack.tiers() == {"warm"})

    under_load(stack.port, back).check(BEFORE, "lagging")
    metrics = httpx.get(f"http://{HOST}:{stack.port}/metrics").text
    assert 'tickwell_breaker_state{state="closed",store="Redis"} 1.0' in metrics
    assert 'tickwell_breaker_opened_total{store="Postgres"}' in metrics


def test_a_short_deadline_is_kept_and_the_store_named(stack: Stack) -> None:
    """Until the breaker knows; then cold answers in time."""
    headers = {"X-Deadline-Ms": "400"}

    def fault() -> None:
        stack.redis.hold()
        wait_for("cold", lambda: stack.tiers() == {"cold"})
        time.sleep(0.5)

    seen = under_load(stack.port, fault, **headers)
    seen.check(BEFORE, "lagging")
    assert seen.statuses[503] > 0
    assert {problem["title"] for problem in seen.problems} == {"Not in time"}
    assert "Redis" in {problem["waited_for"] for problem in seen.problems}
    stack.redis.heal()


def test_without_postgres_nobody_notices(stack: Stack) -> None:
    def fault() -> None:
        for happens in (stack.postgres.cut, stack.postgres.hold):
            happens()
            wait_for("it is told", lambda: stack.health()["stores"]["postgres"] != "ok")
        stack.postgres.heal()
        wait_for("it is told", lambda: stack.health()["stores"]["postgres"] == "ok")

    seen = under_load(stack.port, fault)
    assert (seen.statuses.keys(), seen.tiers()) == ({200}, {"warm"})
    seen.check(BEFORE, "lagging")


def test_a_stop_is_not_held_up_by_a_store_that_hangs(stack: Stack) -> None:
    """A thread waits for Postgres when the server is told to end, which it must do in time."""
    stack.postgres.hold()
    wait_for("it is told", lambda: stack.health()["stores"]["postgres"] != "ok")


def test_without_both_at_the_start_it_says_so_and_answers_when_one_is_there(
    recorded: Catalog, redis_database: str, hot_redis: str, postgres_database: str
) -> None:
    with network(redis_database) as one, network(postgres_database) as other:
        one.cut()
        other.cut()
        with serving(one.url, hot_redis, other.url) as port:
            answer = httpx.post(f"http://{HOST}:{port}{ONLINE}", json=PRICE)
            assert answer.status_code == 503
            detail = answer.json()["detail"]
            assert "catalog of the features cannot be read" in detail
            assert "Postgres: " in detail
            assert "Redis: " in detail
            for path in ("/health", "/health/ready"):
                assert httpx.get(f"http://{HOST}:{port}{path}").status_code == 503
            other.heal()

            def answers() -> Any:
                found = httpx.post(f"http://{HOST}:{port}{ONLINE}", json=PRICE)
                return found.status_code == 200 and found.json()

            value = wait_for("it is answered", answers)["features"]["current_price"]
            assert (value["status"], value["tier"]) == ("missing", "cold")
            assert httpx.get(f"http://{HOST}:{port}/health/ready").status_code == 200


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
