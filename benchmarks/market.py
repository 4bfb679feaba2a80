"""A store that is filled directly, as that of a busy market: what the server is asked for.

It has a row of each symbol in each source, and heartbeats say that nothing is behind. So no worker
takes part, and every value is `ok`. The rows of 1,000 symbols are written anew every second, and
where there is a hot tier it is fed as a worker feeds it, by the worker's own `HotFeed`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import numpy as np
import redis

from benchmarks.asking import DERIVED, ENTITIES
from benchmarks.results import Failed
from pipelines.kafka.run import Run as Records
from pipelines.stores.redis.hot_feed import HotFeed
from pipelines.stores.redis.hot_redis import HotRedis, Rows
from pipelines.stores.redis.resp import Texts
from pipelines.stores.redis.warm_look import WarmLook
from registry import catalog
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.features_file import read
from registry.formats.heartbeat import Heartbeat, PartitionLag
from registry.formats.origin import Origin
from registry.formats.redis_keys import (
    CATALOG_KEY,
    WORKERS_KEY,
    rows_key,
    watermark_key,
    worker_key,
)
from registry.formats.row import Row, pack
from registry.lifecycle.recording import record
from tickwell.settings import Settings

EXPRESSIONS = ("price_sma_5 / price_sma_20 - 1", "current_price * current_volume")
SOURCES = ("price", "volume")
AHEAD_SECONDS = 3_600.0
"""How far ahead the event times of rows are: nothing gets old while it is measured."""

BEAT_SECONDS = 1.0
AT_ONCE = 10_000
SHIPPED = Path(read.__code__.co_filename).with_name("features.toml")


def features(prefix: str = "ticks") -> str:
    """The shipped features, of topics that begin with `prefix`, and two derived ones."""
    parts = [SHIPPED.read_text().replace('topic = "ticks.', f'topic = "{prefix}.')]
    for name, expression in zip(DERIVED, EXPRESSIONS, strict=True):
        parts.append(
            f'[[feature]]\nname = "{name}"\nversion = "1.0.0"\nentity = ["symbol"]\n'
            f'expression = "{expression}"\n'
        )
    return "\n".join(parts)


@contextmanager
def market(settings: Settings, entities: int = ENTITIES) -> Iterator[None]:
    """The features recorded, the store filled, and rows and heartbeats written every second.

    Hot is fed where `settings` name one.
    """
    recorded = _record(settings)
    with redis.Redis.from_url(settings.redis) as store:
        store.set(CATALOG_KEY, catalog.encode(recorded))
        for source in SOURCES:
            _fill(store, recorded, source, entities)
    stop = Event()
    failed: list[BaseException] = []

    def trade() -> None:
        try:
            _trade(settings, recorded, feed, stop)
        except BaseException as error:  # the measurement would go on with what is out of date
            failed.append(error)

    feed = None
    if settings.redis_hot:
        feed = HotFeed(HotRedis(settings.redis_hot), WarmLook(settings.redis))
    threads = [Thread(target=trade)]
    if feed is not None:
        feed.assigned((topic(source), topic_id(source), 0) for source in SOURCES)
        threads.append(Thread(target=feed.run, args=(stop,)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if failed:
        raise Failed("rows were not written anew") from failed[0]


def topic(source: str) -> str:
    """The name of a source's topic, which is nowhere but here."""
    return f"ticks.{source}"


def topic_id(source: str) -> bytes:
    """Its id."""
    return bytes(15) + bytes([1 + SOURCES.index(source)])


def _trade(settings: Settings, recorded: Catalog, feed: HotFeed | None, stop: Event) -> None:
    """Rows and heartbeats of a worker of each sink, every second."""
    topics = [source.topic for source in recorded.sources.values()]
    names = _texts([f"S{number}".encode() for number in range(ENTITIES)])
    turn = 0
    with redis.Redis.from_url(settings.redis) as store:
        while True:
            turn += 1
            for source in SOURCES:
                rows = _rows(recorded, source, turn)
                base, end = turn * ENTITIES, (turn + 1) * ENTITIES
                run = Records.empty(topic(source), topic_id(source), 0, base)
                run = replace(run, next_offset=end)
                if feed is not None:
                    feed.storing(run)
                with store.pipeline() as pipeline:
                    pipeline.hset(rows_key(source, 0), mapping=_named(rows))
                    pipeline.set(watermark_key(topic_id(source), 0), end)
                    pipeline.execute()
                if feed is not None:
                    packed = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
                    feed.stored(run, Rows(source, names, packed))
            for sink in ("online", "offline"):
                packed_beat = msgspec.json.encode(_heartbeat(sink, topics))
                store.set(worker_key(sink, "one"), packed_beat)
                store.sadd(WORKERS_KEY, f"{sink}:one")
            if stop.wait(BEAT_SECONDS):
                return


def _record(settings: Settings) -> Catalog:
    engine = connect(settings.postgres)
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "features.toml"
            file.write_text(features())
            return record(engine, read(file), "bench")
    finally:
        engine.dispose()


def _fill(store: Any, recorded: Catalog, source: str, entities: int) -> None:
    """A row of each entity, and the watermark behind them; of many entities rows come again."""
    rows = _rows(recorded, source, 0)
    for begin in range(0, entities, AT_ONCE):
        numbers = range(begin, min(begin + AT_ONCE, entities))
        mapping: dict[Any, Any] = {f"S{number}": rows[number % ENTITIES] for number in numbers}
        store.hset(rows_key(source, 0), mapping=mapping)
    store.set(watermark_key(topic_id(source), 0), ENTITIES)


def _named(rows: Sequence[bytes]) -> dict[Any, Any]:
    return {f"S{number}": row for number, row in enumerate(rows)}


def _rows(recorded: Catalog, source: str, turn: int) -> list[bytes]:
    """A packed row of each symbol that trades, of this second."""
    schema = recorded.writing[source]
    many = len(recorded.schemas[schema].features)
    ahead = time.time_ns() + int(AHEAD_SECONDS * 1e9)
    rows = []
    for number in range(ENTITIES):
        values = tuple(100 + number / 7 + index / 3 for index in range(many))
        origin = Origin(topic_id(source), 0, turn * ENTITIES + number, 0)
        row = Row(schema, ahead - number * 1_000, 0, ahead, origin, bytes(many), values)
        rows.append(pack(row))
    return rows


def _texts(names: Sequence[bytes]) -> Texts:
    ends = np.cumsum([0, *map(len, names)], dtype=np.int64)
    return Texts.of(b"".join(names), ends)


def _heartbeat(sink: str, topics: Sequence[str]) -> Heartbeat:
    now = time.time()
    lag = tuple(PartitionLag(topic, 0, 1, 1, 0, 0.0, 0.0) for topic in topics)
    return Heartbeat(
        *(sink, "one", 1, now, "running", now), lag=lag, partitions=dict.fromkeys(topics, 1)
    )
