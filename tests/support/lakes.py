"""Histories of tests that are exported to a lake, and what the lake should have of them."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from sqlalchemy import Engine

from pipelines.kafka.run import Run
from pipelines.kafka.topics import Topic
from pipelines.lake.days import days_of_lake, schemas_of
from pipelines.lake.export import Done, LakeExport
from pipelines.live.materializer import Materializer
from pipelines.replay.backfill_sink import BackfillSink
from pipelines.replay.progress import Progress, ReplayProgress
from pipelines.stores.postgres.offline_sink import OfflineSink
from registry import catalog as recorded
from registry.formats.lake import ROWS
from registry.formats.status import Status
from registry.lifecycle.audit import By
from registry.lifecycle.registry import Registry
from tests.oracle.messages import Record
from tests.support.backfills import backfill, blocks
from tests.support.carried import HOMES, carried_rows
from tests.support.file_loads import as_csv, load_files
from tests.support.followers import compute, with_means
from tests.support.logs import NOW_MS, TOPIC_ID, runs
from tests.support.pages import section
from tests.support.rebuilds import Stores
from tests.support.sinks import GO_ON, query

SYMBOLS = ("A", "B", "AB", "B\u00e9, a name that is longer than others")
SILENT = tuple(f"S{number}" for number in range(40))
"""Symbols that tick once or twice, for a time long ago."""

PAGE = Path(__file__).parents[2] / "docs/lake.md"
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
VALUES = ("price", "size", "price_sma_5__v1_0_0", "mean_2__v1_0_0")
"""The columns of values that the page's examples read."""

DAY_MS = 86_400_000
LATER = date(2100, 1, 1)


class History:
    """The log of the price source: what live, replays, backfills and carrying have stored of it."""

    def __init__(self, stores: Stores, engine: Engine, chance: random.Random) -> None:
        self.postgres = stores.postgres
        self._stores, self._engine, self._chance = stores, engine, chance
        self._log: list[Run] = []
        self.at_ms = NOW_MS
        self.symbols: Sequence[str] = SYMBOLS
        """Those that tick often."""
        self._means = list[int]()
        self._replays = self._loads = 0
        with_means(engine)
        self._begin()

    def _begin(self) -> None:
        """A worker of what is recorded now."""
        sink = self._stores.keep(OfflineSink(self.postgres))
        sink.settle(Topic("ticks.price", TOPIC_ID, 1))
        self._live = Materializer(compute(recorded.load(self._engine), "price"), sink)

    def live(self, n: int = 12, hours: float = 9) -> None:
        """A run of ticks that came within some hours; some are for times long ago."""
        records = []
        for offset in range(self._offset, self._offset + n):
            if self._chance.random() < 0.7:  # the others come at the same time
                self.at_ms += round(self._chance.uniform(0, hours * 3_600_000 / n))
            records.append(self._record(offset))
        (run,) = runs(records, [], self._offset)
        self._live.materialize(run, GO_ON)
        self._log.append(run)

    def late(self, at_ms: int) -> None:
        """A tick of a symbol that has later ones: live rejects it."""
        value = json.dumps({"symbol": SYMBOLS[0], "ts": at_ms, "price": 1.5}).encode()
        key = SYMBOLS[0].encode()
        record = Record("ticks.price", 0, self._offset, self.at_ms, key, value)
        (run,) = runs([record], [], self._offset)
        self._live.materialize(run, GO_ON)
        self._log.append(run)

    @property
    def _offset(self) -> int:
        return self._log[-1].next_offset if self._log else 0

    def _record(self, offset: int) -> Record:
        chance, at = self._chance, self.at_ms
        tick: dict[str, Any] = {
            "symbol": chance.choice(self.symbols),
            "ts": at - chance.choice([0, 999]),
        }
        if chance.random() < 0.1:
            tick = {"symbol": chance.choice(SILENT), "ts": at - chance.randrange(40 * DAY_MS)}
        tick["price"] = chance.choice([1.5, 0.1, 2.25, 100.0, -3.5, 0.0, 1e-7 / 3])
        if chance.random() < 0.5:
            tick["size"] = chance.randrange(9)
        if chance.random() < 0.6:
            tick["seq"] = chance.choice([offset, f"trade-{offset:020}"])
        if chance.random() < 0.05:
            tick["op"] = "reset"
        value = json.dumps(tick).encode()
        return Record("ticks.price", 0, offset, at, tick["symbol"].encode(), value)

    def record_version(self) -> None:
        """A version more, and a worker that computes it from now on."""
        self._means.append(len(self._means) + 2)
        history = recorded.load(self._engine).sources["price"].history
        with_means(self._engine, *self._means, history=history)
        self._begin()

    def carry(self) -> None:
        """The newest rows of silent symbols, in the newest row schema as well."""
        computation = compute(recorded.load(self._engine), "price")
        for _ in carried_rows(self._stores, "offline", 3).carry(computation, [HOMES[0]]):
            pass

    def backfill(self) -> None:
        """The newest version's values of what was stored without it."""
        if not self._means:
            return
        ref = f"mean_{self._means[-1]}@1.0.0"
        begun = Registry(self._engine, By("ann")).begin_backfill(ref)
        if begun is not None and begun.state == "running":
            backfill(self._engine, self.postgres, ref, self._chance.choice([3, 1000]))

    def load(self, end_ms: int | None = None, days: float = 7) -> None:
        """Ticks of symbols that live never has, of some days up to a time, which is now."""
        chance, end = self._chance, end_ms or self.at_ms
        self._loads += 1
        made = [
            (f"L{self._loads}{chance.choice('AB')}", chance.choice([1.5, -0.0, 1e-7 / 3]), at, None)
            for at in sorted(end - chance.randrange(round(days * DAY_MS)) for _ in range(20))
        ]
        with tempfile.TemporaryDirectory() as directory:
            load_files(self.postgres, [as_csv(Path(directory), made)])

    def replay(self) -> None:
        """All of the log, or its beginning, in the newest row schema."""
        self._replays += 1
        progress, name = ReplayProgress(self.postgres), f"replay {self._replays}"
        progress.begin(name, Topic("ticks.price", TOPIC_ID, 1), 0, "", True, Progress(0, 0, 0))
        let_go_to = progress.let_go_to(TOPIC_ID, 0)
        progress.close()
        sink = self._stores.keep(BackfillSink(self.postgres, name, 0, let_go_to=let_go_to))
        computation = compute(recorded.load(self._engine), "price")
        for run in self._log[: self._chance.randrange(len(self._log) + 1)]:
            decoded = computation.decode(run)
            computation.restore(decoded, sink.load)
            sink.store(computation.compute(decoded))


class _Acting(Event):
    """A signal to stop; whenever an export looks at it, something else happens."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def is_set(self) -> bool:
        self._act()
        return super().is_set()


def exported(
    postgres: str,
    lake: Path,
    stop_after: int | None = None,
    rows: int = 7,
    meanwhile: Callable[[], None] | None = None,
) -> Done:
    """Export, and stop after some days, if given; do something else before each row group."""
    stop = Event() if meanwhile is None else _Acting(meanwhile)

    def report(done: Done) -> None:
        if done.days == stop_after:
            stop.set()

    return LakeExport(postgres, lake, LATER, rows_a_group=rows).run(report, stop)


def states(engine: Engine, lake: Path) -> dict[tuple[str, date], str]:
    """What the manifest says of each day."""
    known = recorded.load(engine)
    with engine.connect() as connection:
        schemas = schemas_of(connection, known)
        found = days_of_lake(connection)
    return {(one.source, one.day): one.state(schemas, lake).value for one in found}


KEY = ("entity", "event_time", "sequence", "revision")


class Row(NamedTuple):
    """What identifies a row."""

    schema: int
    entity: str
    event_time: int
    sequence: int
    revision: int


Cells = dict[str, Any]


def in_postgres(postgres: str, refs: Sequence[str] = ()) -> dict[Row, Cells]:
    """What files should have of each row; of `refs`, which are backfilled, the blocks' values.

    Loaded rows are in the negative of their row schema.
    """
    of_blocks = {ref: (blocks(postgres, ref), blocks(postgres, ref, -1)) for ref in refs}
    names = ["ok", "warming", "undefined", "closed"]
    found: dict[Row, Cells] = {}
    for row, versions, fields, features, status, *rest in query(
        postgres,
        "SELECT (schema_id, entity, event_time, sequence, revision), of.features, fields,"
        " stored.features, status, tick_time, seq, seq_text, op, known_at, topic_id, partition,"
        ' "offset", index, of.source, schema_id, entity, event_time, sequence, revision'
        " FROM tickwell.feature_rows AS stored"
        " JOIN tickwell.row_schemas AS of ON of.id = abs(schema_id)",
    ):
        del row
        key = Row(*rest[-5:])
        (tick_time, seq, seq_text, op, known_at, topic_id, partition, offset, index), source = (
            rest[:9],
            rest[9],
        )
        assert source == "price"
        cells: Cells = {
            "symbol": key.entity,
            "ts": datetime(1970, 1, 1) + timedelta(microseconds=key.event_time // 1000),
            "known_at": known_at,
            "tick_time": tick_time,
            "seq": seq,
            "seq_text": seq_text,
            "op": ["trade", "reset", "close"][op],
            **{
                name: None if v != v else bits(v)
                for name, v in zip(("price", "size"), fields, strict=True)
            },
            "topic_id": topic_id,
            "partition": partition,
            "offset": offset,
            "index": index,
        }
        stored = {
            ref: (value, names[code])
            for ref, value, code in zip(versions, features, bytes(status), strict=True)
        }
        for ref, of_both in of_blocks.items():
            if ref in stored:
                continue
            values = of_both[key.schema < 0]
            value, code = values.get(key[1:4], (None, None)) if key.revision == 0 else (None, None)
            known = code is not None
            stored[ref] = (
                float.fromhex(value) if known else None,
                names[code] if known else Status.MISSING.value,
            )
        for ref, (value, state) in stored.items():
            column = ref.replace("@", "__v").replace(".", "_")
            cells[column] = bits(value) if state == "ok" else None
            cells[f"{column}__status"] = state
        found[key] = cells
    return found


def bits(value: float | None) -> str | None:
    return None if value is None else float(value).hex()


def files_of(lake: Path) -> list[Path]:
    return [path for path in sorted((lake / ROWS).rglob("*")) if path.is_file()]


def in_lake(lake: Path) -> dict[Row, Cells]:
    """What the files have of each row; they are in the right order, and in the right folders."""
    found: dict[Row, Cells] = {}
    for path in files_of(lake):
        source, schema, day, name = path.relative_to(lake / ROWS).parts
        assert source == "source=price"
        sign = {"part-0.parquet": 1, "part-1.parquet": -1}[name]
        keys = []
        for row, cells in rows_of(path, sign * int(schema.removeprefix("schema="))):
            assert f"day={cells['ts'].date()}" == day
            assert row not in found
            found[row] = cells
            keys.append((row.entity.encode(), *row[2:]))
        assert keys == sorted(keys)
    return found


def rows_of(path: Path, schema: int) -> Iterator[tuple[Row, Cells]]:
    for cells in pq.ParquetFile(path).read().to_pylist():
        key = Row(schema, *(cells.pop(name) for name in KEY))
        cells["ts"] = cells["ts"].replace(tzinfo=None)
        yield key, {n: bits(v) if isinstance(v, float) else v for n, v in cells.items()}


def of_days(rows: dict[Row, Cells], days: set[date]) -> dict[Row, Cells]:
    return {row: cells for row, cells in rows.items() if cells["ts"].date() in days}


def complete(engine: Engine) -> list[str]:
    """The versions whose backfills are complete."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT name || '@' || version FROM tickwell.backfills WHERE state = 'complete'"
        )
        return [ref for (ref,) in found]


def example_of(engine: str) -> str:
    """The code by which the page on the lake has an engine read it."""
    (code,) = CODE.findall(section(PAGE, f"### {engine}"))
    return str(code)


def as_read(postgres: str, refs: Sequence[str]) -> list[tuple[Any, ...]]:
    """What these examples should read: each tick once, as its newest row schema has it."""
    there = sorted(in_postgres(postgres, refs).items(), key=lambda one: abs(one[0].schema))
    found = {row[1:4]: cells for row, cells in there}
    return [
        (*tick, *(cells.get(name) for name in VALUES))
        for tick, cells in sorted(found.items(), key=lambda one: (one[0][0].encode(), *one[0][1:]))
    ]
