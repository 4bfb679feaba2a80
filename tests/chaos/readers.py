"""Readers that ask all the while, over HTTP and straight from Redis, and write down what they saw.

The lines are those of `tests.checker.observations`.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

import httpx
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.chaos.producers import entities
from tests.chaos.warm import NO_REDIS, client_of
from tests.checker.packed import bucket, entity_name, read_row, rows_key
from tests.oracle.times import rfc_3339

FEATURES = {
    "price": ("current_price", "price_sma_5", "price_volatility"),
    "volume": ("current_volume", "volume_sma_10"),
    "position": ("position_size",),
}
KEYS = {"price": ("symbol",), "volume": ("symbol",), "position": ("portfolio", "symbol")}
ENTITIES_A_QUESTION = 4
HTTP_PAUSE, REDIS_PAUSE = 0.1, 0.02
TIMEOUT = 8.0
"""A server answers within five seconds or says that it cannot; a paused one not at all."""


@dataclass
class Readers:
    """Two readers over HTTP, each at a server of its own, and one of Redis."""

    urls: Sequence[str]
    redis: str
    seed: int
    place: Path
    cluster: bool = False
    reads: dict[str, int] = field(default_factory=lambda: {"http": 0, "redis": 0})
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = Event()
        self.files: list[Path] = []
        self._threads = [
            *(self._thread(f"http-{n}", self._ask_http, url) for n, url in enumerate(self.urls)),
            self._thread("redis", self._ask_redis, self.redis),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _thread(self, name: str, ask: Any, url: str) -> Thread:
        file = self.place / f"seen-{name}.jsonl"
        self.files.append(file)

        def work() -> None:
            try:
                with file.open("w") as lines:
                    ask(name, url, lines)
            except Exception as error:
                self.failures.append(f"reader {name}: {error!r}")
                raise

        return Thread(target=work, name=f"reader {name}")

    def _ask_http(self, name: str, url: str, lines: IO[str]) -> None:
        chance = random.Random(f"{self.seed}/{name}")
        with httpx.Client(base_url=url, timeout=TIMEOUT) as client:
            while not self._stop.wait(HTTP_PAUSE):
                source = chance.choice(list(FEATURES))
                wanted = chance.sample(list(entities(source)), ENTITIES_A_QUESTION)
                asked = [dict(zip(KEYS[source], entity, strict=True)) for entity in wanted]
                question = {"features": FEATURES[source], "entities": asked}
                at = time.time_ns()
                try:
                    answer = client.post("/features/batch", json=question)
                except httpx.HTTPError:
                    code, results = 0, None
                else:
                    code = answer.status_code
                    results = answer.json()["results"] if code == 200 else None
                seen = {"at": at, "until": time.time_ns(), "reader": name, "source": source}
                self.reads["http"] += 1
                for place, entity in enumerate(wanted):
                    values = None if results is None else results[place]["features"]
                    for feature in FEATURES[source]:
                        value = {} if values is None else values[feature]
                        _write(lines, seen, entity, feature, value, code)

    def _ask_redis(self, name: str, url: str, lines: IO[str]) -> None:
        """Notes each row when it is another one than before."""
        wanted = [(source, entity) for source in FEATURES for entity in entities(source)]
        keys = [
            (rows_key(source, bucket(name, self.cluster)), name)
            for source, name in ((source, entity_name(entity)) for source, entity in wanted)
        ]
        before: list[bytes | None] = [None] * len(wanted)
        client = client_of(
            url,
            self.cluster,
            socket_timeout=1,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )
        while not self._stop.wait(REDIS_PAUSE):
            at = time.time_ns()
            try:
                # all of one moment, but of a cluster
                with client.pipeline(transaction=not self.cluster) as pipeline:
                    for key, name in keys:
                        pipeline.hget(key, name)
                    rows = pipeline.execute()
            except (*NO_REDIS, OSError):
                continue
            until = time.time_ns()
            self.reads["redis"] += 1
            for place, ((source, entity), row) in enumerate(zip(wanted, rows, strict=True)):
                if row == before[place]:
                    continue
                before[place] = row
                seen = {"at": at, "until": until, "reader": name, "source": source}
                _write_row(lines, seen, entity, row)
        client.close()


def _write(
    lines: IO[str],
    seen: dict[str, Any],
    entity: Sequence[str],
    feature: str,
    value: dict[str, Any],
    code: int,
) -> None:
    event_time = value.get("event_time")
    answer = {
        "via": "cold" if value.get("tier") == "cold" else "http",
        "entity": entity,
        "feature": feature,
        "version": value.get("version"),
        "event_time": None if event_time is None else rfc_3339(event_time),
        "sequence": None,
        "value": value.get("value"),
        "status": value.get("status"),
        "http": code,
        "row": None,
    }
    lines.write(json.dumps(seen | answer) + "\n")


def _write_row(
    lines: IO[str], seen: dict[str, Any], entity: Sequence[str], row: bytes | None
) -> None:
    answer: dict[str, Any] = {
        "via": "redis",
        "entity": entity,
        "feature": None,
        "version": None,
        "event_time": None,
        "sequence": None,
        "value": None,
        "status": "missing",
        "http": None,
        "row": None,
    }
    if row is not None:
        packed = read_row(row)
        answer |= {
            "event_time": packed.event_time,
            "sequence": packed.sequence,
            "status": "stored",
            "row": row.hex(),
        }
    lines.write(json.dumps(seen | answer) + "\n")
