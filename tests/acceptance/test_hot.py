"""Real workers that feed hot while ticks flow, and whatever may happen to them and to it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from pipelines.kafka.topics import Topic
from registry.formats.hot import mark_key
from registry.formats.row import unpack
from tests.support.beliefs import Counts, believing
from tests.support.hot import Reader
from tests.support.load import SYMBOLS, load
from tests.support.pipeline import Pipeline, pipeline, wait_for
from tests.support.services import kill
from tests.support.stored import stored_row
from tickwell.embedded.valkey import valkey
from tickwell.up.process import Process

PARTITIONS = 2


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A hot Redis of the test's own, which it may kill, and its URL."""
    spec, url = valkey(tmp_path / "hot", "hot")
    process = Process(spec)
    process.start()
    try:
        process.wait_ready()
        yield process, url
    finally:
        process.stop()


@pytest.fixture
def own(
    tmp_path: Path,
    kafka: str,
    redis_database: str,
    hot: tuple[Process, str],
    postgres_database: str,
) -> Iterator[Pipeline]:
    urls = (redis_database, hot[1], postgres_database)
    with pipeline(tmp_path, kafka, *urls, partitions=PARTITIONS) as running:
        yield running


def marks(running: Pipeline, topic: Topic) -> list[bytes | None]:
    with redis.Redis.from_url(running.settings.redis_hot) as client:
        keys = [mark_key(topic.topic_id, number) for number in range(PARTITIONS)]
        found: list[bytes | None] = client.mget(keys)
        return found


def await_marks(running: Pipeline) -> list[bytes | None]:
    """The live marks of the topic of prices."""
    topic = running.topics[running.topic("price")]
    return wait_for("the marks live", lambda: all(found := marks(running, topic)) and found)  # type: ignore[no-any-return]


def believes_more(counts: Counts, reads: int = 2000) -> None:
    """Wait until so many reads more were answered by hot."""
    goal = counts.believed + reads
    wait_for("hot answers", lambda: counts.believed >= goal)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nothing_stale_is_believed_whatever_happens(
    own: Pipeline, hot: tuple[Process, str]
) -> None:
    settings = own.settings
    worker = own.start_worker("online")
    with (
        load(own),
        believing(settings.redis, settings.redis_hot, "price", SYMBOLS) as counts,
    ):
        await_marks(own)
        believes_more(counts)

        def pause(seconds: float) -> None:
            worker.send_signal(signal.SIGSTOP)
            time.sleep(seconds)  # how long a process is stopped, and no wait for anything
            worker.send_signal(signal.SIGCONT)

        for seconds in (0.3, 0.9, 1.5):
            pause(seconds)
            believes_more(counts)
        own.kill("online-one")
        wait_for(
            "the marks end",
            lambda: not any(marks(own, own.topics[own.topic("price")])),
            patience=10,
        )
        worker = own.start_worker("online")
        believes_more(counts)
        kill(hot[0])
        hot[0].start()
        hot[0].wait_ready()
        believes_more(counts)
        with redis.Redis.from_url(settings.redis) as warm:
            forget_watermarks(own, warm)
        believes_more(counts)
    assert counts.stale == []
    assert counts.promoted > 0


def forget_watermarks(running: Pipeline, warm: redis.Redis) -> None:
    """As if another writer had moved the partitions: the worker is refused, and looks again."""
    topic = running.topics[running.topic("price")]
    for number in range(PARTITIONS):
        warm.delete(f"tw:3:writer:{{tw:3:watermark:{topic.topic_id.hex()}:{number}}}")


@pytest.mark.timeout(120)
def test_a_row_in_hot_is_warms_while_ticks_flow_and_when_they_end(own: Pipeline) -> None:
    own.start_worker("online")
    with own.redis() as warm, redis.Redis.from_url(own.settings.redis_hot) as client:
        with load(own):
            await_marks(own)
            row = wait_for("a row", lambda: stored_row(warm, "price", SYMBOLS[0]))
            home = unpack(row).origin
            reader = Reader(client, warm, home.topic_id, home.partition)
            wait_for("it is put in", lambda: reader.promote("price", SYMBOLS[0]))
            seen = {row}
            wait_for("it changes", lambda: grows(seen, reader) > 20)
        own.wait_drained("online")
        wait_for(
            "hot has the last one",
            lambda: reader.believed("price", SYMBOLS[0]) == stored_row(warm, "price", SYMBOLS[0]),
        )
        beat = wait_for("a heartbeat", lambda: [b for b in own.heartbeats() if b.hot == "fed"])
        assert beat[0].sink == "online"
        token = await_marks(own)
        time.sleep(1.5)  # without a tick the marks are renewed all the same
        assert await_marks(own) == token
        own.stop()
        topic = own.topics[own.topic("price")]
        wait_for("the marks end", lambda: not any(marks(own, topic)), patience=10)


def grows(seen: set[bytes], reader: Reader) -> int:
    """How many different rows hot has answered with."""
    row = reader.believed("price", SYMBOLS[0])
    if row is not None:
        seen.add(row)
    return len(seen)
