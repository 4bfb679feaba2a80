"""A source whose definition changes while its topic goes on."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.run import Run
from pipelines.live.materializer import Materializer
from pipelines.live.rules_start import RulesBeginning, RulesChange
from pipelines.rebuild.rebuild import Rebuild
from pipelines.stores.redis import scripts
from pipelines.stores.redis.connection import WarmRedis
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.sink import Sink
from registry.formats.redis_keys import watermark_key
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from tests.support.logs import run_of_columns
from tests.support.pipeline import Pipeline
from tests.support.replays import GO_ON, catalog_of
from tests.support.sinks import redis_dump
from tickwell.migrate import migrate

Messages = list[tuple[bytes | None, bytes | None]]


FIRST = 'ts_unit = "ms"\nskew = "1s"'
"""What the shipped file says of each source."""


def declare(running: Pipeline, rules: str, source: str = "price") -> None:
    """Have the file say other rules of a source, with their own tables last."""
    file = Path(running.settings.features)
    head, begin, rest = file.read_text().partition(f'[[source]]\nname = "{source}"\n')
    fixed, fields, rest = rest.partition("fields = ")
    names, _, _ = rest.partition("\n")
    _, following, tail = rest.partition("\n[[")
    file.write_text(f"{head}{begin}{fixed}{fields}{names}\n{rules}\n{following}{tail}")


class Killed(Exception):
    """In a test, the end of a process."""


def killed() -> None:
    raise Killed


class _Watched(RulesBeginning):
    """Does something when the rules have begun, before the transaction ends."""

    def __init__(self, act: Callable[[], object], *given: Any) -> None:
        super().__init__(*given)
        self._act = act

    def __call__(self, *given: Any) -> Any:
        starts = super().__call__(*given)
        self._act()
        return starts


class StoredMeanwhile(WarmRedis):
    """A Redis in which an online worker stores a run of one partition as that is told of rules."""

    def __init__(self, running: Pipeline, partition: int) -> None:
        super().__init__(running.settings.redis)
        topic = running.topics[running.topic("price")]
        self._watermark = watermark_key(topic.topic_id, partition)

    def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if script == scripts.BEGIN_RULES and self._watermark in keys:
            self.connect().incrby(self._watermark, 10)
        return super().run(script, keys, arguments)


def from_now(
    running: Pipeline,
    silent: float = 11.0,
    before_the_end: Callable[[], object] = lambda: None,
    warm: WarmRedis | None = None,
) -> list[RulesChange]:
    """What `tickwell migrate --from-now` does; returns what it has changed.

    `before_the_end` is called when Redis was told of the rules, before they are recorded.
    """
    warm = warm or WarmRedis(running.settings.redis)
    begin = _Watched(before_the_end, running.settings.kafka_connection, warm, silent)
    try:
        migrate(running.settings, begin=begin)
    finally:
        warm.close()
    return begin.changes


def messages(n: int, seed: int, **changed: Any) -> Messages:
    """Ticks of eight symbols about now, as the shipped file has them, or with fields changed.

    A field is changed by a function of the tick; one that gives None is left out.
    """
    chance, now, made = random.Random(seed), time.time_ns() // 10**6, []
    for number in range(n):
        tick = {
            "symbol": f"S{chance.randrange(8)}",
            "price": chance.uniform(1, 2),
            "ts": now - n + number - chance.randrange(1200),
        }
        tick |= {name: change(dict(tick)) for name, change in changed.items()}
        value = {name: value for name, value in tick.items() if value is not None}
        made.append((str(tick["symbol"]).encode(), json.dumps(value).encode()))
    return list(made)


OTHER = 'ts_unit = "s"\nskew = "5s"\nwhere = { e = "trade" }\n[source.map]\nprice = "p"'


def of_other_rules(n: int, seed: int) -> Messages:
    """Ticks as `OTHER` describes them; some are of another kind."""
    return messages(
        n,
        seed,
        e=lambda tick: "quote" if tick["ts"] % 9 == 0 else "trade",
        p=lambda tick: f"{tick['price']:.6f}",
        price=lambda tick: None,
        ts=lambda tick: tick["ts"] // 1000,
    )


def stored(running: Pipeline) -> list[tuple[int, ...]]:
    """The watermarks of the price topic in both stores, by partition."""
    topic_id = running.topics[running.topic("price")].topic_id
    known = running.query(
        "SELECT partition, next_offset FROM tickwell.watermarks WHERE topic_id = %s::uuid",
        topic_id.hex(),
    )
    with redis.Redis.from_url(running.settings.redis) as client:
        online = [client.get(f"tw:3:watermark:{topic_id.hex()}:{n}") for n in range(2)]
    return [(dict(known).get(n, 0), int(online[n] or 0)) for n in range(2)]


def worker_of(running: Pipeline, sink: Sink) -> Materializer:
    """A worker that begins now."""
    catalog = catalog_of(running)
    schema = catalog.schemas[catalog.writing["price"]]
    rules, program = SourceRules.of(catalog, "price"), compile_program(catalog, schema)
    return Materializer(RunComputation(rules, schema, program, 1000), sink)


def next_run(running: Pipeline, n: int, sink: Sink | None = None) -> Run:
    """The next records of partition 0 as one run, with ticks of the first rules.

    They follow what `sink` has stored, or Postgres.
    """
    topic = running.topics[running.topic("price")]
    base = stored(running)[0][int(isinstance(sink, OnlineSink))]
    offsets, made = range(base, base + n), messages(n, 9)
    run = run_of_columns(0, (base, base + n), offsets, [10**13] * n, *zip(*made, strict=True))
    return replace(run, topic=topic.name, topic_id=topic.topic_id)


def rows_in_redis(running: Pipeline) -> dict[bytes, bytes]:
    rows = redis_dump(running.settings.redis)
    return {key: row for key, row in rows.items() if b":rows:" in key}


def empty_redis(running: Pipeline) -> None:
    with redis.Redis.from_url(running.settings.redis) as client:
        client.flushall()


def fill(running: Pipeline) -> None:
    """What an online worker does at its start."""
    warm, catalog = WarmRedis(running.settings.redis), catalog_of(running)
    rebuild = Rebuild(running.settings.postgres, warm, catalog, GO_ON)
    topic = running.topics[running.topic("price")]
    rebuild.fill(catalog.sources["price"], topic, lambda done: None)
    warm.close()
