"""`make bench`: the workers beside stock Faust, on one broker and one set of stores.

    python -m benchmarks [--ticks 1000000] [--rounds 3]

A backlog of price ticks of 100 symbols is produced once. In each round the online worker, the
offline worker and the stock agent work on it one after the other, each in a consumer group and a
store of its own. The workers are timed from their first stored tick to their last; the stock agent
for a fixed time after its first, since it would need minutes. Start-up is in no figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg2
import redis
from confluent_kafka import Producer

from pipelines.topics import describe
from tickwell.embedded.broker import broker, choose
from tickwell.embedded.postgres import postgres
from tickwell.embedded.valkey import valkey
from tickwell.migrate import migrate
from tickwell.process import Process, Spec
from tickwell.settings import Settings

SYMBOLS = 100
STOCK_SECONDS = 15.0
PATIENCE = 600.0


@contextmanager
def running(made: tuple[Spec, str]) -> Iterator[str]:
    process = Process(made[0])
    process.start()
    process.wait_ready()
    try:
        yield made[1]
    finally:
        process.stop()


def produce(settings: Settings, ticks: int) -> None:
    """The backlog: random walks, keys in turn, lz4 as most producers send."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 262_144,
            "queue.buffering.max.messages": 500_000,
        }
    )
    prices = [random.uniform(10, 1000) for _ in range(SYMBOLS)]
    now = time.time_ns() // 10**6
    for number in range(ticks):
        place = number % SYMBOLS
        prices[place] *= 1 + random.uniform(-1e-3, 1e-3)
        tick = {"symbol": f"S{place}", "price": round(prices[place], 4), "ts": now + number // 1000}
        while True:
            try:
                producer.produce("ticks.price", json.dumps(tick), f"S{place}")
                break
            except BufferError:
                producer.poll(0.05)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()


def timed(done: Callable[[], int], target: int, seconds: float | None = None) -> float:
    """Ticks a second from the first that is done to `target`, or for `seconds`."""
    deadline = time.monotonic() + PATIENCE
    first = done()
    while (began_with := done()) == first:
        if time.monotonic() > deadline:
            raise SystemExit("nothing was done: see the log")
        time.sleep(0.01)
    began = time.monotonic()
    while (now_done := done()) < target and (seconds is None or time.monotonic() < began + seconds):
        if time.monotonic() > deadline:
            raise SystemExit(f"only {now_done} of {target} were done")
        time.sleep(0.01)
    return (now_done - began_with) / (time.monotonic() - began)


class Bench:
    """One broker and one set of stores, and what is run on them."""

    def __init__(self, settings: Settings, ticks: int, place: Path) -> None:
        self.settings = settings
        self.ticks = ticks
        self.place = place
        self.topic = describe(settings.kafka, ["ticks.price"])["ticks.price"]

    def online(self) -> tuple[float, float]:
        self._redis().flushall()
        return self._worker("online", self._online_done)

    def offline(self) -> tuple[float, float]:
        self._execute(
            "TRUNCATE tickwell.feature_rows, tickwell.entities, tickwell.watermarks,"
            " tickwell.rejected_ticks"
        )
        return self._worker("offline", self._offline_done)

    def stock(self) -> tuple[float, float]:
        self._redis().flushall()
        self._redis().config_resetstat()
        environment = {"BENCH_GROUP": f"stock-{uuid.uuid4().hex[:8]}", "BENCH_TOPIC": "ticks.price"}
        command = ["-m", "faust", "-A", "benchmarks.stock_faust", "--datadir", str(self.place)]
        return self._run(
            [*command, "worker", "--without-web"], environment, self._sets, STOCK_SECONDS
        )

    def _worker(self, sink: str, done: Callable[[], int]) -> tuple[float, float]:
        environment = {"TICKWELL_GROUP": f"bench-{uuid.uuid4().hex[:8]}"}
        command = ["-m", "tickwell", "worker", "--sink", sink]
        return self._run(command, environment, done, None)

    def _run(
        self,
        command: list[str],
        environment: dict[str, str],
        done: Callable[[], int],
        seconds: float | None,
    ) -> tuple[float, float]:
        """Ticks a second, and the process's memory at the end in MB."""
        s = self.settings
        addresses = {
            "TICKWELL_KAFKA": s.kafka,
            "TICKWELL_REDIS": s.redis,
            "TICKWELL_REDIS_HOT": s.redis_hot,
            "TICKWELL_POSTGRES": s.postgres,
        }
        with (self.place / "bench.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **addresses, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            rate = timed(done, self.ticks, seconds)
            memory = psutil.Process(process.pid).memory_info().rss / 2**20
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return rate, memory

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.settings.redis)

    def _online_done(self) -> int:
        keys = [
            f"tw:watermark:{self.topic.topic_id.hex()}:{n}" for n in range(self.topic.partitions)
        ]
        return sum(int(offset or 0) for offset in self._redis().mget(keys))

    def _offline_done(self) -> int:
        return int(self._execute("SELECT coalesce(sum(next_offset), 0) FROM tickwell.watermarks"))

    def _sets(self) -> int:
        stats = self._redis().info("commandstats")
        return int(stats.get("cmdstat_set", {"calls": 0})["calls"])

    def _execute(self, statement: str) -> int:
        connection = psycopg2.connect(self.settings.postgres)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.fetchone()[0]) if cursor.description else 0
        finally:
            connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--ticks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tickwell-bench-")))
        place.chmod(0o755)
        kind = choose("auto")
        settings = Settings(
            kafka=stack.enter_context(running(broker(place / "broker", kind))),
            redis=stack.enter_context(running(valkey(place / "warm", "warm"))),
            redis_hot=stack.enter_context(running(valkey(place / "hot", "hot"))),
            postgres=stack.enter_context(running(postgres(place / "postgres"))),
        )
        migrate(settings)
        print(f"producing {wanted.ticks} ticks to {kind} ...", file=sys.stderr)
        produce(settings, wanted.ticks)
        bench = Bench(settings, wanted.ticks, place)
        found: dict[str, list[tuple[float, float]]] = {"online": [], "offline": [], "stock": []}
        for number in range(wanted.rounds):
            for name, measure in (
                ("online", bench.online),
                ("offline", bench.offline),
                ("stock", bench.stock),
            ):
                found[name].append(measure())
                print(f"round {number + 1} {name}: {found[name][-1][0]:,.0f}/s", file=sys.stderr)
        show(found, kind, wanted.ticks)


def show(found: dict[str, list[tuple[float, float]]], kind: str, ticks: int) -> None:
    """The table, in Markdown."""
    stock = [rate for rate, _ in found["stock"]]
    names = {
        "online": "worker --sink online, to Redis",
        "offline": "worker --sink offline, to committed rows",
        "stock": "stock Faust agent, one Redis SET an event",
    }
    print(f"{ticks:,} price ticks of {SYMBOLS} symbols, lz4, {kind}; {os.cpu_count()} cores,")
    print(
        f"{platform.machine()}, Python {platform.python_version()}; {len(stock)} rounds in turn\n"
    )
    print("| | ticks/s, median | best | beside stock Faust, median of rounds | memory, MB |")
    print("|---|---|---|---|---|")
    for name, title in names.items():
        rates = [rate for rate, _ in found[name]]
        ratio = statistics.median(a / b for a, b in zip(rates, stock, strict=True))
        memory = max(memory for _, memory in found[name])
        print(
            f"| {title} | {statistics.median(rates):,.0f} | {max(rates):,.0f} | "
            f"{ratio:,.0f} × | {memory:,.0f} |"
        )


main()
