"""Ticks brought into Redis and into Postgres by the real sinks, in one or in both."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

from pipelines.compute.run_computation import RunComputation
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.redis.online_sink import OnlineSink
from pipelines.stores.sink import Sink
from registry.definitions import Catalog
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from tests.oracle.messages import Record
from tests.support.logs import runs


class Log:
    """The ticks of each source, each source in a partition of its own, stored as they come."""

    def __init__(self, catalog: Catalog, *sinks: Sink) -> None:
        self._catalog = catalog
        self._partitions = {source: number for number, source in enumerate(catalog.sources)}
        self._ends = dict.fromkeys(catalog.sources, 0)
        self._sinks = [(sink, dict[str, Materializer]()) for sink in sinks]

    def add(self, source: str, *ticks: dict[str, Any]) -> None:
        """Store ticks, of now unless they say another time (`ts`, milliseconds)."""
        base, now = self._ends[source], time.time_ns() // 10**6
        self._ends[source] += len(ticks)
        records = [
            Record(
                "t",
                self._partitions[source],
                base + i,
                now,
                str(next(iter(tick.values()))).encode(),
                json.dumps({"ts": now, **tick}).encode(),
            )
            for i, tick in enumerate(ticks)
        ]
        (run,) = runs(records, (), base)
        for sink, works in self._sinks:
            if source not in works:
                works[source] = self._work(source, sink)
            works[source].materialize(run, Event())

    def _work(self, source: str, sink: Sink) -> Materializer:
        schema = self._catalog.schemas[self._catalog.writing[source]]
        rules = SourceRules.of(self._catalog, source)
        program = compile_program(self._catalog, schema)
        return Materializer(RunComputation(rules, schema, program, 1_000), sink)


@contextmanager
def log_of(catalog: Catalog, *urls: str) -> Iterator[Log]:
    """A log that is stored in the Redis and Postgres servers at `urls`."""
    sinks: Sequence[Any] = [
        OnlineSink(url) if url.startswith("redis") else OfflineSink(url) for url in urls
    ]
    try:
        yield Log(catalog, *sinks)
    finally:
        for sink in sinks:
            sink.close()
