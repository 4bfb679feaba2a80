"""What tests of the read API share."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import httpx
import msgspec
import redis
from starlette.testclient import TestClient

from pipelines.compute.run_computation import RunComputation
from pipelines.live.materializer import Materializer
from pipelines.stores.redis.online_sink import OnlineSink
from registry.definitions import Catalog, Definitions, RowSchema
from registry.formats.heartbeat import Heartbeat, PartitionLag
from registry.formats.redis_keys import WORKERS_KEY, worker_key
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from tests.oracle.messages import Record
from tests.support.logs import runs


def beat(
    url: str,
    state: str = "running",
    behind: float = 0.0,
    unseen: float = 0.0,
    partitions: int = 1,
    instance: str = "one",
    cluster: bool = False,
    **said: Any,
) -> None:
    """A worker's heartbeat, as `live.heartbeats` writes it; it reads one partition of each topic.

    A worker of no partitions knows no topic. `said` is what it says of other things.
    """
    now = time.time()
    topics = ("ticks.price", "ticks.volume", "ticks.position") if partitions else ()
    lag = tuple(PartitionLag(topic, 0, 1, 2, 1, behind, unseen) for topic in topics)
    with (redis.RedisCluster if cluster else redis.Redis).from_url(url) as store:
        for sink in ("online", "offline"):
            heartbeat = Heartbeat(
                *(sink, instance, 1, now + 60, state, now),
                lag=lag,
                partitions=dict.fromkeys(topics, partitions),
                **said,
            )
            store.set(worker_key(sink, instance), msgspec.json.encode(heartbeat))
            store.sadd(WORKERS_KEY, f"{sink}:{instance}")


@contextmanager
def beating(url: str) -> Iterator[None]:
    """Heartbeats of workers that run, twice a second, however long a test takes."""
    ended = Event()

    def beat_on() -> None:
        while not ended.wait(0.5):
            beat(url)

    beat(url)
    thread = Thread(target=beat_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tick(url: str, recorded: Catalog, source: str, ticks: list[dict[str, Any]]) -> None:
    """Bring ticks into Redis by the real sink."""
    schema = recorded.schemas[recorded.writing[source]]
    program = compile_program(recorded, schema)
    sink = OnlineSink(url)
    now = time.time_ns() // 10**6
    records = [
        Record(
            "t", 0, i, now, next(iter(t.values())).encode(), json.dumps({"ts": now, **t}).encode()
        )
        for i, t in enumerate(ticks)
    ]
    with redis.Redis.from_url(url) as store:
        for key in store.scan_iter("tw:3:watermark:*"):
            store.delete(key)
    (run,) = runs(records, ())
    rules = SourceRules.of(recorded, source)
    work = Materializer(RunComputation(rules, schema, program, 1000), sink)
    work.materialize(run, Event())
    sink.close()


def online(client: TestClient, feature: str, **entity: str) -> dict[str, Any]:
    answer = client.post("/features/online", json={"features": [feature], "entity": entity})
    assert answer.status_code == 200, answer.text
    value: dict[str, Any] = answer.json()["features"][feature]
    return value


def health(port: int) -> dict[str, Any]:
    """What the server on `port` answers about itself; `starting` while it does not answer."""
    try:
        found: dict[str, Any] = httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).json()
    except httpx.HTTPError:
        return {"status": "starting"}
    return found


def catalog_of(definitions: Definitions) -> Catalog:
    """The catalog of a features file that is recorded alone: every source has one row schema."""
    features = definitions.features
    schemas = [
        RowSchema(number, source.name, tuple(f.ref for f in features if f.source == source.name))
        for number, source in enumerate(definitions.sources, 1)
    ]
    return Catalog(
        sources={source.name: source for source in definitions.sources},
        features={feature.ref: feature for feature in features},
        active={feature.name: feature.version for feature in features},
        schemas={schema.id: schema for schema in schemas},
        writing={schema.source: schema.id for schema in schemas},
    )
