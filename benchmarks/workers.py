"""Our workers as they are started, and what their stores say of how far they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import psycopg2
import redis

from benchmarks.processes import THIS, Build, Child, running, start
from benchmarks.results import Failed
from benchmarks.services import Services, environment
from benchmarks.timing import Done
from pipelines.kafka.topics import Topic
from registry.formats.heartbeat import Heartbeat
from registry.formats.redis_keys import watermark_key, worker_key
from tickwell.settings import Settings

HEARTBEAT_SECONDS = 5.0
JOIN_SECONDS = 60.0


def start_worker(
    services: Services, settings: Settings, sink: str, instance: str = "one", build: Build = THIS
) -> Child:
    """Start a worker. Whoever starts it stops it."""
    command = ["-m", "tickwell", "worker", "--sink", sink, "--instance", instance]
    return start(f"{sink}-{instance}", command, environment(settings), services.place, build)


@contextmanager
def worker(
    services: Services, settings: Settings, sink: str, instance: str = "one", build: Build = THIS
) -> Iterator[Child]:
    """A worker that is stopped at the end."""
    command = ["-m", "tickwell", "worker", "--sink", sink, "--instance", instance]
    name = f"{sink}-{instance}"
    with running(name, command, environment(settings), services.place, build) as child:
        yield child


def watermarks(store: redis.Redis, topic: Topic) -> list[int]:
    """How many offsets of each partition are stored in Redis, by this build or an earlier one."""
    keys = [watermark_key(topic.topic_id, number) for number in range(topic.partitions)]
    earlier = [key.replace("tw:3:", "tw:", 1) for key in keys]
    pairs = zip(store.mget(keys), store.mget(earlier), strict=True)
    return [int(offset or before or 0) for offset, before in pairs]


def online_done(settings: Settings, topic: Topic) -> Done:
    """The offsets that are stored in Redis."""
    store = redis.Redis.from_url(settings.redis)

    def done() -> tuple[int, float]:
        return sum(watermarks(store, topic)), time.monotonic()

    return done


def offline_done(settings: Settings) -> Done:
    """The offsets whose rows are committed in Postgres."""
    connection = psycopg2.connect(settings.postgres)
    connection.autocommit = True

    def done() -> tuple[int, float]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(sum(next_offset), 0) FROM tickwell.watermarks")
            row = cursor.fetchone()
        return int(row[0] if row else 0), time.monotonic()

    return done


def heartbeat(settings: Settings, sink: str, instance: str) -> Heartbeat | None:
    """What a worker last said of itself."""
    with redis.Redis.from_url(settings.redis) as store:
        told = store.get(worker_key(sink, f"{instance}-{sink}"))
    return None if told is None else msgspec.json.decode(told, type=Heartbeat)


def await_shares(
    settings: Settings,
    topic: Topic,
    sink: str,
    children: Sequence[Child],
    instances: Sequence[str] = ("one",),
) -> None:
    """Wait until workers say that they share the partitions of a topic evenly."""
    deadline = time.monotonic() + JOIN_SECONDS
    each = topic.partitions // len(instances)
    while True:
        beats = [heartbeat(settings, sink, name) for name in instances]
        lags = [beat.lag if beat else () for beat in beats]
        shares = [sum(part.topic == topic.name for part in lag) for lag in lags]
        if shares == [each] * len(instances):
            return
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            raise Failed(f"the {sink} workers have {shares} partitions, not {each} each")
        time.sleep(0.1)


def check_counted(settings: Settings, sink: str, ticks: int, *instances: str) -> None:
    """Raises `Failed` unless the workers say that they stored `ticks` rows and rejected none.

    Fast is easy when ticks are refused.
    """
    deadline = time.monotonic() + HEARTBEAT_SECONDS
    while True:
        beats = [heartbeat(settings, sink, instance) for instance in instances]
        rows = sum(beat.rows for beat in beats if beat is not None)
        rejected = [beat.rejected for beat in beats if beat is not None and beat.rejected]
        if rows == ticks and not rejected:
            return
        if time.monotonic() > deadline:
            raise Failed(f"{rows:,} of {ticks:,} ticks became rows; rejected: {rejected}")
        time.sleep(0.1)
