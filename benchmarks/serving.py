"""What a request costs the server, in processor time, beside routes that answer nothing.

The store is filled directly, with rows of 1,000 symbols in each source, and heartbeats say that
nothing is behind. So no worker takes part, and every value is `ok`. All rows are written anew every
second, as those of an active market are.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import redis

from benchmarks.asking import ENTITIES
from benchmarks.latency import start_server
from benchmarks.processes import (
    THIS,
    Build,
    Child,
    processor_seconds,
    resident_mb,
    running,
)
from benchmarks.results import Failed, Run
from benchmarks.services import Services
from registry import catalog
from registry.database.engine import connect
from registry.definitions import Catalog
from registry.features_file import read
from registry.formats.heartbeat import Heartbeat, PartitionLag
from registry.formats.origin import Origin
from registry.formats.redis_keys import CATALOG_KEY, WORKERS_KEY, rows_key, worker_key
from registry.formats.row import Row, pack
from registry.lifecycle.recording import record
from tickwell.embedded.ports import HOST, keep_port
from tickwell.embedded.ports import connect as connected
from tickwell.settings import Settings

DERIVED = {
    "momentum": "price_sma_5 / price_sma_20 - 1",
    "turnover": "current_price * current_volume",
}
QUESTIONS = (("one", 32), ("one", 256), ("batch", 32), ("compact", 32), ("arrow", 1))
"""What is asked (`asking`), and by how many connections at once."""

AHEAD_SECONDS = 3_600.0
"""How far ahead the event times of rows are: nothing gets old while it is measured."""

BEAT_SECONDS = 1.0

SHIPPED = Path(read.__code__.co_filename).with_name("features.toml")
READY_SECONDS = CLIENT_SECONDS = 30.0
LAST_WORDS = 1_500


def serving(
    services: Services, question: str, connections: int, seconds: float, build: Build = THIS
) -> Run:
    """Microseconds of the server's processor time a request."""
    settings = services.fresh(services.settings, build)
    port = keep_port(services.place / "server-port")
    with _beating(settings, fill(settings)):
        server = start_server(services, settings, port, build)
        try:
            time.sleep(2.0)  # the catalog and the heartbeats are read
            return _asked(services, server, port, question, connections, seconds)
        finally:
            server.stop()


def empty_route(
    services: Services, protocol: str, question: str, connections: int, seconds: float
) -> Run:
    """The same of a route that answers nothing, by `stock` uvicorn or by `ours`."""
    port = keep_port(services.place / "server-port")
    command = ["-m", "benchmarks.peers.empty_route", str(port), protocol]
    with running("empty", command, {}, services.place) as server:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                connected(HOST, port)
                break
            except OSError:
                server.check()
                if time.monotonic() > deadline:
                    raise Failed("the empty route does not listen") from None
                time.sleep(0.05)
        return _asked(services, server, port, question, connections, seconds)


def _asked(
    services: Services, server: Child, port: int, question: str, connections: int, seconds: float
) -> Run:
    words = [str(port), str(connections), str(seconds), question]
    before, began = processor_seconds(server.pid), time.monotonic()
    with running("clients", ["-m", "benchmarks.asking", *words], {}, services.place) as clients:
        clients.popen.wait(seconds + CLIENT_SECONDS)
        if clients.popen.returncode:
            raise Failed(clients.log.read_text(errors="replace")[-LAST_WORDS:])
    after, took = processor_seconds(server.pid), time.monotonic() - began
    told = json.loads(clients.log.read_text().splitlines()[-1])
    if told["refused"]:
        raise Failed(f"{told['refused']} requests were refused")
    return Run(
        value=(after - before) / told["with_the_first_second"] * 1e6,
        unit="µs a request",
        ticks=told["with_the_first_second"],
        seconds=took,
        cpu={"server": round(after - before, 3)},
        memory_mb=resident_mb(server.pid),
        detail={"a_second": told["a_second"], "ms": told["ms"]},
    )


def fill(settings: Settings) -> Catalog:
    """Record the features that are asked for, and store a row of each symbol and source."""
    engine = connect(settings.postgres)
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "features.toml"
            file.write_text(_features())
            recorded = record(engine, read(file), "bench")
    finally:
        engine.dispose()
    with redis.Redis.from_url(settings.redis) as store:
        store.set(CATALOG_KEY, catalog.encode(recorded))
        _put_rows(store, recorded)
    return recorded


@contextmanager
def _beating(settings: Settings, recorded: Catalog) -> Iterator[None]:
    """Heartbeats of a worker of each sink, every second."""
    topics = [source.topic for source in recorded.sources.values()]
    stop = Event()

    def beat() -> None:
        with redis.Redis.from_url(settings.redis) as store:
            while True:
                _put_rows(store, recorded)
                for sink in ("online", "offline"):
                    packed = msgspec.json.encode(_heartbeat(sink, topics))
                    store.set(worker_key(sink, "one"), packed)
                    store.sadd(WORKERS_KEY, f"{sink}:one")
                if stop.wait(BEAT_SECONDS):
                    return

    thread = Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _features() -> str:
    """The shipped features, and two derived ones."""
    parts = [SHIPPED.read_text()]
    for name, expression in DERIVED.items():
        parts.append(
            f'[[feature]]\nname = "{name}"\nversion = "1.0.0"\nentity = ["symbol"]\n'
            f'expression = "{expression}"\n'
        )
    return "\n".join(parts)


def _put_rows(store: Any, recorded: Catalog) -> None:
    for source in ("price", "volume"):
        store.hset(rows_key(source, 0), mapping=_rows(recorded, source))


def _rows(recorded: Catalog, source: str) -> dict[str, bytes]:
    """A packed row of each symbol."""
    schema = recorded.writing[source]
    features = len(recorded.schemas[schema].features)
    ahead = time.time_ns() + int(AHEAD_SECONDS * 1e9)
    rows = {}
    for number in range(ENTITIES):
        values = tuple(100 + number / 7 + index / 3 for index in range(features))
        origin = Origin(bytes(16), 0, number, 0)
        row = Row(schema, ahead - number * 1_000, 0, ahead, origin, bytes(features), values)
        rows[f"S{number}"] = pack(row)
    return rows


def _heartbeat(sink: str, topics: list[str]) -> Heartbeat:
    now = time.time()
    lag = tuple(PartitionLag(topic, 0, 1, 1, 0, 0.0, 0.0) for topic in topics)
    return Heartbeat(
        *(sink, "one", 1, now, "running", now), lag=lag, partitions=dict.fromkeys(topics, 1)
    )
