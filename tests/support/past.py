"""Markets of tests whose past is asked for: ticks of prices and positions in both stores."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
from faust.types import TP

from pipelines.compute.run_computation import RunComputation
from pipelines.kafka.topics import Topic
from pipelines.live.log_ends import LogEnds
from pipelines.live.materializer import Materializer
from pipelines.stores.postgres.offline_sink import OfflineSink
from pipelines.stores.sink import Sink
from registry.definitions import Catalog
from registry.formats.status import Status
from registry.language.program import compile_program
from registry.source_rules import SourceRules
from serving.features.columns import NO_TIME
from serving.history.entity_rows import EntityRows, entity_rows
from serving.history.past_columns import PastColumn
from serving.history.point_in_time import PointInTimeJoin
from serving.history.snapshot import ROW_BYTES, SCAN_LIMITS, ScanLimits, snapshot
from tests.oracle.messages import Record
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON

ALWAYS = ScanLimits(fewest_questions=0, rows_a_question=math.inf, rows_an_entity=0)
"""Lets a join read the rows of a stretch of time, whatever look-ups would take."""

SYMBOLS, PORTFOLIOS = "ABCD", ("P", "Q")
TOPIC_IDS = {"price": TOPIC_ID, "position": TOPIC_ID[::-1]}
MOMENT = "at"
TOPIC_IDS = {"price": TOPIC_ID, "position": bytes(reversed(TOPIC_ID))}


class Market:
    """Ticks that come one run after the other; `at_ms` is when the last one came."""

    def __init__(
        self,
        stores: Stores,
        chance: random.Random,
        catalog: Catalog,
        without_size: float = 0.0,
    ) -> None:
        """So large a part of the prices has no size."""
        self._stores = stores
        self._chance = chance
        self._without_size = without_size
        self._offsets = {"price": 0, "position": 0}
        self._workers: dict[str, list[Materializer]] = {}
        self.at_ms = NOW_MS
        self.newest_ms = NOW_MS
        """The newest event time of a tick, which may be ahead of the time at which it came."""
        self.work_by(catalog)

    def work_by(self, catalog: Catalog) -> None:
        """The workers of both stores write the row schemas of a catalog from now on."""
        for source in self._offsets:
            sinks: list[Sink] = [
                self._stores.sink(),
                self._stores.keep(OfflineSink(self._stores.postgres)),
            ]
            self._workers[source] = [self._worker(catalog, source, sink) for sink in sinks]

    def _worker(self, catalog: Catalog, source: str, sink: Sink) -> Materializer:
        schema = catalog.schemas[catalog.writing[source]]
        program = compile_program(catalog, schema)
        rules = SourceRules.of(catalog, source)
        sink.settle(Topic(f"ticks.{source}", TOPIC_IDS[source], 1))
        return Materializer(RunComputation(rules, schema, program, 1_000), sink)

    def tick(self, source: str, n: int) -> None:
        """A run of so many ticks: some late, some at one time, some ahead, resets and closes."""
        first = self._offsets[source]
        records = [self._record(source, offset) for offset in range(first, first + n)]
        self._offsets[source] += n
        (run,) = runs(records, [])
        run = replace(run, topic=f"ticks.{source}", topic_id=TOPIC_IDS[source])
        for worker in self._workers[source]:
            worker.materialize(run, GO_ON)

    def _record(self, source: str, offset: int) -> Record:
        chance = self._chance
        ts = self.at_ms - chance.choice([0, 0, 0, 1, 300, 900, -500, 2_000])
        self.newest_ms = max(self.newest_ms, ts)
        made: dict[str, Any] = {"symbol": chance.choice(SYMBOLS), "ts": ts}
        if source == "price":
            made |= {"price": chance.choice([1.5, 2.25, 100.0, 0.0, -3.5]), "size": 1}
            made["op"] = chance.choice(["trade"] * 12 + ["reset"])
            if self._without_size and chance.random() < self._without_size:
                del made["size"]
            key = made["symbol"]
        else:
            made |= {"portfolio": "P", "quantity": chance.choice([0, -2, 3.5, 10])}
            made["op"] = chance.choice(["trade"] * 4 + ["close", "close", "reset"])
            key = "P"
        at, value = self.at_ms, json.dumps(made).encode()
        return Record(f"ticks.{source}", 0, offset, at, key.encode(), value)

    def close(self, at_ms: int, unstored: int = 0) -> None:
        """Workers have seen, after a moment, that so many ticks are left to be stored, or none."""
        ends = {
            TP(f"ticks.{source}", 0): offset + unstored for source, offset in self._offsets.items()
        }
        topic_ids = {f"ticks.{source}": topic_id for source, topic_id in TOPIC_IDS.items()}
        reports = LogEnds(self._stores.postgres, topic_ids)
        reports.note(dict.fromkeys(ends, (0, at_ms / 1000)))
        reports.note({tp: (end, at_ms / 1_000 + 1) for tp, end in ends.items()})
        reports.report()
        reports.close()


def asked(moments: Sequence[int], **keys: Sequence[str]) -> EntityRows:
    """Rows of entities at moments, nanoseconds UTC."""
    stamps = pa.array(moments, pa.int64()).cast(pa.timestamp("ns", "UTC"))
    table = pa.table({**keys, MOMENT: stamps})
    return entity_rows(table, list(keys), MOMENT)


@contextmanager
def joining(
    postgres: str,
    features: Sequence[str],
    row_bytes: int = ROW_BYTES,
    scans: ScanLimits = SCAN_LIMITS,
) -> Iterator[PointInTimeJoin]:
    with snapshot(postgres, row_bytes=row_bytes, scans=scans) as seen:
        yield PointInTimeJoin.of_names(seen, features)


Cell = tuple[str | None, str, int | None]
"""The bits of a value, its status and its event time."""


def cells(column: PastColumn) -> list[Cell]:
    """What a column says of each row."""
    statuses = list(Status)
    return [
        (
            None if value != value else float(value).hex(),
            statuses[rank].value,
            None if time == NO_TIME else time,
        )
        for value, rank, time in zip(
            column.values.tolist(),
            column.ranks.tolist(),
            column.event_times.tolist(),
            strict=True,
        )
    ]
